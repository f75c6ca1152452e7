"""Gelu: y = x Φ(x) with Φ the cumulative normal distribution, or its approximation by tanh.

The approximation is ½ (1 + tanh(√(2/π) (x + 0.044715 x³))).
Smooth: at x the slope is Φ(x) + x Φ'(x). Frozen mode holds Φ, the gate.
https://onnx.ai/onnx/operators/onnx__Gelu.html
"""

import math

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._functions import logistic, normal_cdf, normal_density
from ._rule import Local, Site, lowers
from ._smooth import elementwise

_CUBIC = 0.044715
_STEEP = 2 * math.sqrt(2 / math.pi)
_FLAT = 25.0  # beyond it the approximation is 0 or 1 in every floating type


@lowers("Gelu", kind=Kind.SMOOTH, observes=(0,))
def gelu(site: Site) -> Local:
    """The tangent at x, or its gate."""
    exact = site.attribute("approximate", "none") != "tanh"
    gate, slope = (normal_cdf, normal_density) if exact else (_approximation, _approximation_slope)
    return elementwise(
        site,
        lambda x: x * gate(x),
        lambda x: gate(x) + x * slope(x),
        gate=gate,
        size=np.abs(site.value()),  # onnxruntime computes Φ as ½ (1 + …), which it rounds at 1
    )


def _approximation(x: Array) -> Array:
    x = np.clip(x, -_FLAT, _FLAT)
    return logistic(_STEEP * (x + _CUBIC * x**3))  # ½ (1 + tanh t) is the logistic function of 2 t


def _approximation_slope(x: Array) -> Array:
    x = np.clip(x, -_FLAT, _FLAT)
    return _approximation(x) * _approximation(-x) * _STEEP * (1 + 3 * _CUBIC * x**2)
