"""Gelu: y = x Φ(x) with Φ the cumulative normal distribution, or its approximation by tanh.

The approximation is ½ (1 + tanh(√(2/π) (x + 0.044715 x³))), with 2/π and 0.044715 rounded to float32, as the
operator's definition in ONNX holds them; in float64 that moves y by up to 1e-8.
Smooth: at x the slope is Φ(x) + x Φ'(x). Frozen mode holds Φ, the gate.
https://onnx.ai/onnx/operators/onnx__Gelu.html
"""

import math

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._functions import logistic, normal_cdf, normal_density
from ._rule import Local, Site, explains, like, lowers
from ._smooth import elementwise, elementwise_in_graph

_CUBIC = float(np.float32(0.044715))
_STEEP = 2 * math.sqrt(np.float32(2 / math.pi))
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


@explains("Gelu")
def gelu_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent; or the gate, and an offset of 0."""
    x, node = site.tensor(), graph.node

    def times(factor: float, tensor: str) -> str:
        return node("Mul", like(site, graph, factor), tensor)

    square, one = node("Mul", x, x), like(site, graph, 1.0)
    if site.attribute("approximate", "none") == "tanh":
        t = times(_STEEP, node("Mul", x, node("Add", one, times(_CUBIC, square))))
        gate, rise = node("Sigmoid", t), times(_STEEP, node("Add", one, times(3 * _CUBIC, square)))
        bell = node("Mul", node("Mul", gate, node("Sigmoid", node("Neg", t))), rise)
    else:
        gate = times(0.5, node("Add", one, node("Erf", times(math.sqrt(0.5), x))))
        bell = times(1 / math.sqrt(2 * math.pi), node("Exp", times(-0.5, square)))
    if site.reading.frozen:
        return like(site, graph, 0.0), gate
    return elementwise_in_graph(site, graph, node("Add", gate, node("Mul", x, bell)))
