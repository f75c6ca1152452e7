"""HardSigmoid: y = max(0, min(1, alpha x + beta)).

At x: slope alpha between the two ends x = -beta/alpha and (1 - beta)/alpha, 0 elsewhere. Guards: the side
of each end; an end itself counts as below it.
https://onnx.ai/onnx/operators/onnx__HardSigmoid.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, explains, like, lowers, threshold


@lowers("HardSigmoid", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def hard_sigmoid(site: Site) -> Local:
    """Pass what lies on the ramp."""
    x = site.value()
    alpha, beta = float(site.attribute("alpha", 0.2)), float(site.attribute("beta", 0.5))
    if alpha == 0:
        return Local(Scale(x.shape, np.zeros((), bool)), offset=np.full(x.shape, np.clip(beta, 0, 1)))
    low, high = (np.asarray(end, x.dtype) for end in sorted((-beta / alpha, (1 - beta) / alpha)))
    inside = (x > low) & (x <= high)
    flat = (x > high) == (alpha > 0)  # outside the ramp: which of the two ends is the one of value 1
    return Local(
        Scale(x.shape, np.where(inside, alpha, 0.0)),
        offset=np.where(inside, beta, flat).astype(x.dtype),
        guards=(threshold(x, low), threshold(x, high)),
    )


@explains("HardSigmoid")
def hard_sigmoid_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The value of the end that holds an entry, or beta; and the slopes."""
    x, node = site.tensor(0), graph.node
    alpha, beta = float(site.attribute("alpha", 0.2)), float(site.attribute("beta", 0.5))
    if alpha == 0:
        flat = node("Expand", like(site, graph, min(max(beta, 0.0), 1.0)), node("Shape", x))
        return flat, graph.constant(np.zeros((), bool))
    low, high = (like(site, graph, end) for end in sorted((-beta / alpha, (1 - beta) / alpha)))
    zero, one = like(site, graph, 0.0), like(site, graph, 1.0)
    above = node("Greater", x, high)
    inside = node("And", node("Greater", x, low), node("Not", above))
    ends = node("Where", above, *((one, zero) if alpha > 0 else (zero, one)))
    slope = node("Where", inside, like(site, graph, alpha), zero)
    return node("Where", inside, like(site, graph, beta), ends), slope
