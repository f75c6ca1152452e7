"""Clip: y = min(max(x, lo), hi).

At x: entries in (lo, hi] pass; the others are the bound that holds them (min(·, hi) is applied last, so hi
wins where lo > hi). Guards: the side of each bound; a bound itself counts as below it.
https://onnx.ai/onnx/operators/onnx__Clip.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, explains, like, lowers, threshold


@lowers("Clip", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,))
def clip(site: Site) -> Local:
    """Pass what lies between the bounds."""
    x = site.value(0)
    low, high = (
        np.asarray(site.parameter(name, end), x.dtype) for name, end in (("min", -np.inf), ("max", np.inf))
    )
    inside = (x > low) & (x <= high)
    bound = np.where(x > high, high, np.minimum(low, high))
    guards = tuple(threshold(x, end) for end in (low, high) if np.isfinite(end))
    return Local(Scale(x.shape, inside), offset=np.where(inside, 0, bound), guards=guards)


@explains("Clip")
def clip_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The bound that holds an entry, and which entries pass."""
    x, node = site.tensor(0), graph.node
    low, high = (
        site.tensor(position) if site.has(position) else like(site, graph, float(site.attribute(name, end)))
        for position, name, end in ((1, "min", -np.inf), (2, "max", np.inf))
    )
    above = node("Greater", x, high)
    inside = node("And", node("Greater", x, low), node("Not", above))
    bound = node("Where", above, high, node("Min", low, high))
    return node("Where", inside, like(site, graph, 0.0), bound), inside
