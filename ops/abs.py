"""Abs: y = |x|.

At x: a diagonal of ones and minus ones; 0 counts as negative, so that W is the map of a side. Guard: the
sign of each entry.
https://onnx.ai/onnx/operators/onnx__Abs.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, explains, like, lowers, positive, threshold


@lowers("Abs", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def absolute(site: Site) -> Local:
    """Turn the negative entries."""
    x = site.value()
    return Local(Scale(x.shape, np.where(x > 0, 1, -1).astype(x.dtype)), guards=(threshold(x),))


@explains("Abs")
def absolute_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The signs."""
    return (graph.node("Where", positive(site, graph), like(site, graph, 1.0), like(site, graph, -1.0)),)
