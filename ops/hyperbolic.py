"""Sinh, Cosh, Tanh, Asinh, Acosh, Atanh.

Smooth: at x a diagonal of derivatives. Acosh is refused at 1, where its derivative is infinite.
https://onnx.ai/onnx/operators/onnx__Sinh.html, …Cosh.html, …Tanh.html, …Asinh.html, …Acosh.html, …Atanh.html
"""

import numpy as np

from ..runtime.program import Kind
from ._functions import sech2
from ._rule import Local, Site, lowers
from ._smooth import Function, elementwise

_FUNCTIONS: dict[str, tuple[Function, Function]] = {  # with their slopes
    "Sinh": (np.sinh, np.cosh),
    "Cosh": (np.cosh, np.sinh),
    "Asinh": (np.arcsinh, lambda x: 1 / np.hypot(1, x)),
    "Acosh": (np.arccosh, lambda x: 1 / (np.sqrt(x - 1) * np.sqrt(x + 1))),
    "Atanh": (np.arctanh, lambda x: 1 / ((1 - x) * (1 + x))),
}


@lowers(*_FUNCTIONS, kind=Kind.SMOOTH, observes=(0,))
def hyperbolic(site: Site) -> Local:
    """The tangent at x."""
    return elementwise(site, *_FUNCTIONS[site.op_type])


@lowers("Tanh", kind=Kind.SMOOTH, observes=(0,), gate=True)
def tanh(site: Site) -> Local:
    """Tanh: the slope is 1 / cosh(x)²."""
    return elementwise(site, np.tanh, sech2)
