"""PRelu: y = x where x > 0, slope x elsewhere; the slope is a parameter of its own for each channel or entry.

At x: a diagonal of ones and slopes; at 0 the given slope. Guard: the sign of each entry.
https://onnx.ai/onnx/operators/onnx__PRelu.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, explains, like, lowers, positive, threshold


@lowers("PRelu", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,))
def prelu(site: Site) -> Local:
    """Scale the entries that are not positive by the slope."""
    x, slope = site.value(0), site.value(1)
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise site.refuse(f"its slope {list(slope.shape)} does not broadcast to x {list(x.shape)}")
    return Local(Scale(x.shape, np.where(x > 0, 1.0, slope)), guards=(threshold(x),))


@explains("PRelu")
def prelu_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The slopes."""
    return (graph.node("Where", positive(site, graph), like(site, graph, 1.0), site.tensor(1)),)
