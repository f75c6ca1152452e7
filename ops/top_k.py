"""TopK: y = the k largest (smallest) entries along an axis, in order; among equals the first comes first.

At x: each output selects its entry. Guard: each entry against the next in the order, and the last of the k
against all that are left out. The second output, Indices, does not change around x.
https://onnx.ai/onnx/operators/onnx__TopK.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array
from ..runtime.program import Guard, HalfSpaces, Kind
from ._moves import gathered, positions
from ._pooled import ahead
from ._rule import Local, Site, explains, lowers


@lowers("TopK", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,), constant_outputs=(1,))
def top_k(site: Site) -> Local:
    """Select the first k of the sorted entries."""
    axis, k, sign = _axis(site), _k(site), 1 if site.attribute("largest", 1) else -1
    if k > 1 and not site.attribute("sorted", 1):
        raise site.refuse("with sorted = 0 the order of the values is left open; set sorted to 1")
    values = np.moveaxis(sign * site.value(), axis, -1)
    order = np.argsort(-values, axis=-1, kind="stable")
    ranked = np.take_along_axis(np.moveaxis(positions(site), axis, -1), order, -1)  # (…, n)
    picked = ranked[..., :k]

    def margins() -> Array:
        gaps = -np.diff(np.take_along_axis(values, order, -1))
        ends = np.full((*gaps.shape[:-1], 1), np.inf)
        ahead_of, behind = (np.concatenate(parts, -1)[..., :k] for parts in ((gaps, ends), (ends, gaps)))
        return np.moveaxis(np.minimum(ahead_of, behind), -1, axis)

    def half_spaces() -> HalfSpaces:
        left = ranked[..., k:]
        last = np.broadcast_to(picked[..., -1:], left.shape)
        winners = np.concatenate([picked[..., :-1], last], -1)
        losers = np.concatenate([picked[..., 1:], left], -1)
        place = np.minimum(np.arange(losers.shape[-1]), picked.shape[-1] - 1)  # of the winner in the order
        outputs = np.arange(picked.size).reshape(np.moveaxis(picked, -1, axis).shape)
        units = np.take(np.moveaxis(outputs, axis, -1), place, -1)
        return ahead(site, winners.ravel(), losers.ravel(), units.ravel(), sign)

    index = np.moveaxis(picked, -1, axis)
    return Local(gathered(site, index), guards=(Guard(index, margins, half_spaces),) if k else ())


def _axis(site: Site) -> int:
    return int(site.attribute("axis", -1)) % len(site.shape())


def _k(site: Site) -> int:
    """An input since opset 10, an attribute before."""
    return int(np.ravel(site.parameter("K", site.attribute("k")))[0])


@explains("TopK")
def top_k_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The flat positions of the indices along the axis."""
    axis, node = _axis(site), graph.node
    own = positions(site)
    first = np.take(own, [0], axis)
    stride = int(np.prod(own.shape[axis + 1 :], dtype=np.int64))
    k = site.tensor(1) if site.has(1) else graph.constant([_k(site)])
    largest, in_order = int(site.attribute("largest", 1)), int(site.attribute("sorted", 1))
    along = graph.second("TopK", site.tensor(0), k, axis=axis, largest=largest, sorted=in_order)
    return (node("Add", node("Mul", along, graph.constant(np.array(stride))), graph.constant(first)),)
