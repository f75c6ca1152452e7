"""Erf: y = 2/√π ∫₀ˣ exp(-t²) dt.

Smooth: at x the slope is 2/√π exp(-x²).
https://onnx.ai/onnx/operators/onnx__Erf.html
"""

import math

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._functions import erf
from ._rule import Local, Site, explains, like, lowers
from ._smooth import elementwise, elementwise_in_graph


@lowers("Erf", kind=Kind.SMOOTH, observes=(0,), gate=True)
def error_function(site: Site) -> Local:
    """The tangent at x."""
    return elementwise(site, erf, _slope)


def _slope(x: Array) -> Array:
    return np.asarray(2 / math.sqrt(math.pi) * np.exp(-x * x))


@explains("Erf")
def erf_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    x = site.tensor()
    bell = graph.node("Exp", graph.node("Neg", graph.node("Mul", x, x)))
    top = like(site, graph, 2 / math.sqrt(math.pi))
    return elementwise_in_graph(site, graph, graph.node("Mul", bell, top))
