"""Erf: y = 2/√π ∫₀ˣ exp(-t²) dt.

Smooth: at x the slope is 2/√π exp(-x²).
https://onnx.ai/onnx/operators/onnx__Erf.html
"""

import math

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._functions import erf
from ._rule import Local, Site, lowers
from ._smooth import elementwise


@lowers("Erf", kind=Kind.SMOOTH, observes=(0,), gate=True)
def error_function(site: Site) -> Local:
    """The tangent at x."""
    return elementwise(site, erf, _slope)


def _slope(x: Array) -> Array:
    return np.asarray(2 / math.sqrt(math.pi) * np.exp(-x * x))
