"""PRelu: y = x where x > 0, slope x elsewhere; the slope is an operand of its own for each channel or entry.

At x: a diagonal of ones and slopes; at 0 the given slope. Guard: the sign of each entry. Linear in the slope
for a fixed x, by the entries that are not positive; smooth where both depend on x.
https://onnx.ai/onnx/operators/onnx__PRelu.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Scale, chain
from ..runtime.program import Kind
from ._rule import Local, Site, explains, like, lowers, positive, threshold
from ._smooth import tangent


@lowers("PRelu", kind=Kind.PIECEWISE_LINEAR, observes=(0,), products=((0, 1),), tangent=True)
def prelu(site: Site) -> Local:
    """Scale the entries that are not positive by the slope."""
    shape, own = site.shape(0), site.shape(1)
    if np.broadcast_shapes(shape, own) != shape:
        raise site.refuse(f"its slope {list(own)} does not broadcast to x {list(shape)}")
    x = site.value(0)
    below = np.minimum(x, 0)
    by_slope = chain(site.spread(1, shape), Scale(shape, below))
    if not site.active(0):
        return Local([(1, by_slope)], x - below)
    sign, slope = threshold(x), site.value(1)
    by_x = Scale(shape, np.where(sign.choice, 1.0, slope))
    if not site.active(1):
        return Local(by_x, guards=(sign,))
    if not site.reading.frozen:
        return tangent(site, np.where(sign.choice, x, slope * x), [(0, by_x), (1, by_slope)], guards=(sign,))
    half_x = Scale(shape, np.where(sign.choice, 1.0, slope / 2))
    half_slope = chain(site.spread(1, shape), Scale(shape, below / 2))
    return Local([(0, half_x), (1, half_slope)], guards=(sign,), frozen=True)


@explains("PRelu")
def prelu_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The slopes; or of a slope that depends on x, the entries that it scales, behind those it does not."""
    x, node = site.tensor(0), graph.node
    if site.active(0):
        return (node("Where", positive(site, graph), like(site, graph, 1.0), site.tensor(1)),)
    below = node("Min", x, like(site, graph, 0.0))
    return node("Sub", x, below), below
