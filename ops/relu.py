"""Relu: y = max(x, 0) — keeps the positive entries.

At x: y = D x with D = diag(x > 0); at 0 the slope is 0. Guard: the sign of each entry.
https://onnx.ai/onnx/operators/onnx__Relu.html
"""

from ..runtime.emit import Builder
from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, explains, lowers, positive, threshold


@lowers("Relu", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def relu(site: Site) -> Local:
    """Keep the positive entries."""
    sign = threshold(site.value())
    return Local(Scale(site.shape(), sign.choice), guards=(sign,))


@explains("Relu")
def relu_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The mask."""
    return (positive(site, graph),)
