"""Where: y = X where the condition holds, Y elsewhere, with numpy's broadcasting.

Linear in X and Y for a held condition: a mask for each of them. A condition that is computed from x, such as
a comparison, does not change around x, so it is held as well.
https://onnx.ai/onnx/operators/onnx__Where.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Scale, chain
from ._rule import Local, Site, explains, lowers


@lowers("Where", linear_in=(1, 2))
def where(site: Site) -> Local:
    """Mask both branches."""
    condition: Array = site.value(0)
    shape = site.broadcast_shape()
    masks = {1: condition, 2: ~condition}
    terms = {i: chain(site.spread(i, shape), Scale(shape, masks[i])) for i in masks if site.active(i)}
    if len(terms) == 2:
        return Local(terms)
    held = next(i for i in masks if i not in terms)
    return Local(terms, np.where(masks[held], site.value(held), 0))


@explains("Where")
def where_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """What a held branch adds, and the masks."""
    masks = {1: site.tensor(0), 2: graph.node("Not", site.tensor(0))}
    zero = graph.node("CastLike", graph.constant(np.zeros(())), site.tensor(1))
    held = [graph.node("Where", masks[i], site.tensor(i), zero) for i in masks if not site.active(i)]
    return *held, *(masks[i] for i in masks if site.active(i))
