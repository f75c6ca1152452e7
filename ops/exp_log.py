"""Exp, Log: y = exp(x) and y = log(x).

Smooth: at x the slopes are y and 1/x.
https://onnx.ai/onnx/operators/onnx__Exp.html, …Log.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.program import Kind
from ._rule import Local, Site, explains, lowers
from ._smooth import elementwise, elementwise_in_graph


@lowers("Exp", kind=Kind.SMOOTH, observes=(0,))
def exp(site: Site) -> Local:
    """Exp is its own slope."""
    return elementwise(site, np.exp, np.exp)


@lowers("Log", kind=Kind.SMOOTH, observes=(0,))
def log(site: Site) -> Local:
    """The natural logarithm."""
    return elementwise(site, np.log, np.reciprocal)


@explains("Exp")
def exp_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    return elementwise_in_graph(site, graph, site.outputs[0])


@explains("Log")
def log_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    return elementwise_in_graph(site, graph, graph.node("Reciprocal", site.tensor()))
