"""LeakyRelu: y = x where x > 0, alpha x elsewhere.

At x: a diagonal of ones and alphas; at 0 the slope is alpha. Guard: the sign of each entry.
https://onnx.ai/onnx/operators/onnx__LeakyRelu.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, explains, like, lowers, positive, threshold


@lowers("LeakyRelu", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def leaky_relu(site: Site) -> Local:
    """Scale the entries that are not positive by alpha."""
    x = site.value()
    slope = np.where(x > 0, 1.0, site.attribute("alpha", 0.01))
    return Local(Scale(x.shape, slope), guards=(threshold(x),))


@explains("LeakyRelu")
def leaky_relu_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The slopes."""
    alpha = float(site.attribute("alpha", 0.01))
    return (graph.node("Where", positive(site, graph), like(site, graph, 1.0), like(site, graph, alpha)),)
