"""ThresholdedRelu: y = x where x > alpha, 0 elsewhere.

At x: a diagonal of zeros and ones; at alpha itself the slope is 0. Guard: the side of alpha.
https://onnx.ai/onnx/operators/onnx__ThresholdedRelu.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, explains, like, lowers, threshold


@lowers("ThresholdedRelu", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def thresholded_relu(site: Site) -> Local:
    """Keep the entries above alpha."""
    x = site.value()
    side = threshold(x, np.asarray(site.attribute("alpha", 1.0), x.dtype))
    return Local(Scale(x.shape, side.choice), guards=(side,))


@explains("ThresholdedRelu")
def thresholded_relu_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The mask."""
    return (graph.node("Greater", site.tensor(0), like(site, graph, float(site.attribute("alpha", 1.0)))),)
