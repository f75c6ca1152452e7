"""Clip: y = min(max(x, lo), hi).

At x: entries in (lo, hi] pass; the others are the bound that holds them (min(·, hi) is applied last, so hi
wins where lo > hi). Bounds may depend on x, too. Guards: the side of each bound, and of the two bounds
against each other where one depends on x; equals count as below.
https://onnx.ai/onnx/operators/onnx__Clip.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Primitive, Scale, chain
from ..runtime.program import Guard, HalfSpaces, Kind
from ._rule import Local, Site, explains, like, lowers, threshold

X, LOW, HIGH = range(3)


@lowers("Clip", kind=Kind.PIECEWISE_LINEAR, observes=None)
def clip(site: Site) -> Local:
    """Pass what lies between the bounds."""
    x = site.value(X)
    low, high = (
        np.asarray(site.parameter(name, end), x.dtype) for name, end in (("min", -np.inf), ("max", np.inf))
    )
    inside = (x > low) & (x <= high)
    by_high = (x > high) | (low > high)
    values = {X: x, LOW: low, HIGH: high}
    won = {X: inside, LOW: ~inside & ~by_high, HIGH: ~inside & by_high}
    terms: dict[int, Primitive] = {}
    offset: Array = np.zeros(x.shape, x.dtype)
    for position, mask in won.items():
        if site.active(position):
            terms[position] = chain(site.spread(position, x.shape), Scale(x.shape, mask))
        else:
            offset = np.where(mask, values[position], offset)
    pairs = [(X, LOW), (X, HIGH), *([(LOW, HIGH)] if site.active(LOW) or site.active(HIGH) else [])]
    finite = [pair for pair in pairs if all(np.isfinite(values[position]).all() for position in pair)]
    return Local(terms, offset, tuple(_side(site, values, *pair) for pair in finite))


def _side(site: Site, values: dict[int, Array], left: int, right: int) -> Guard:
    """Guard of the side of one operand on which another lies, equals below."""
    if site.active(left) and not site.active(right):
        return threshold(values[left], values[right], left)
    difference = values[left] - values[right]
    shape = difference.shape
    sign = np.where(difference > 0, 1, -1).astype(difference.dtype)

    def half_spaces() -> HalfSpaces:
        weights = {left: sign, right: -sign}
        terms = [
            (position, chain(site.spread(position, shape), Scale(shape, weight)))
            for position, weight in weights.items()
            if site.active(position)
        ]
        fixed = [
            weight * values[position] for position, weight in weights.items() if not site.active(position)
        ]
        return HalfSpaces(tuple(terms), sum(fixed, start=np.zeros(shape, sign.dtype)))

    return Guard(difference > 0, lambda: np.abs(difference), half_spaces)


@explains("Clip")
def clip_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The values that hold entries and do not depend on x; and for each operand that does, where it holds."""
    x, node = site.tensor(X), graph.node
    low, high = (
        site.tensor(position) if site.has(position) else like(site, graph, float(site.attribute(name, end)))
        for position, name, end in ((LOW, "min", -np.inf), (HIGH, "max", np.inf))
    )
    above = node("Greater", x, high)
    inside = node("And", node("Greater", x, low), node("Not", above))
    outside, by_high = node("Not", inside), node("Or", above, node("Greater", low, high))
    won = {X: inside, LOW: node("And", outside, node("Not", by_high)), HIGH: node("And", outside, by_high)}
    offset = node("Expand", like(site, graph, 0.0), node("Shape", x))
    for position, tensor in ((X, x), (LOW, low), (HIGH, high)):
        if not site.active(position):
            offset = node("Where", won[position], tensor, offset)
    return offset, *(mask for position, mask in won.items() if site.active(position))
