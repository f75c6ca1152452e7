"""Elu, Celu, Selu: y = c x where x > 0, c a (exp(x / b) - 1) elsewhere.

Elu has c = b = 1 and a = alpha, Celu c = 1 and a = b = alpha, Selu b = 1, a = alpha and c = gamma.
Linear where every entry is positive, else smooth; at 0 the slope is the exponential's. Guard: the sign of
each entry.
https://onnx.ai/onnx/operators/onnx__Elu.html, …Celu.html, …Selu.html
"""

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._rule import Local, Site, lowers, threshold
from ._smooth import elementwise


def _exponential_unit(site: Site, a: float, b: float, c: float) -> Local:
    x = site.value()

    def f(x: Array) -> Array:
        return np.where(x > 0, c * x, c * a * np.expm1(np.minimum(x, 0) / b))

    def slope(x: Array) -> Array:
        return np.where(x > 0, c, c * a / b * np.exp(np.minimum(x, 0) / b)).astype(x.dtype)

    sign = threshold(x)
    straight = sign.choice
    rounded = np.where(straight, 0, abs(c * a))  # exp(x) - 1, which onnxruntime computes as that difference
    return elementwise(site, f, slope, guards=(sign,), straight=straight, size=np.abs(f(x)) + rounded)


@lowers("Elu", kind=Kind.SMOOTH, observes=(0,))
def elu(site: Site) -> Local:
    """Elu: a = alpha, b = c = 1."""
    return _exponential_unit(site, float(site.attribute("alpha", 1.0)), 1.0, 1.0)


@lowers("Celu", kind=Kind.SMOOTH, observes=(0,))
def celu(site: Site) -> Local:
    """Celu: a = b = alpha, c = 1."""
    alpha = float(site.attribute("alpha", 1.0))
    return _exponential_unit(site, alpha, alpha, 1.0)


@lowers("Selu", kind=Kind.SMOOTH, observes=(0,))
def selu(site: Site) -> Local:
    """Selu: a = alpha, b = 1, c = gamma."""
    return _exponential_unit(site, float(site.attribute("alpha")), 1.0, float(site.attribute("gamma")))
