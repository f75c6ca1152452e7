"""Range: y = start, start + delta, … up to limit, which is left out.

At x: linear in start and delta; limit decides how many entries there are. Guard: the n-th lies before limit
and one more would not; an entry that would be limit itself is left out.
https://onnx.ai/onnx/operators/onnx__Range.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Broadcast, Primitive, Scale, chain
from ..runtime.program import Guard, HalfSpaces, Kind
from ._rule import Local, Site, explains, lowers


@lowers("Range", kind=Kind.PIECEWISE_LINEAR, observes=None)
def range_(site: Site) -> Local:
    """Spread start, and delta times the numbers of the entries."""
    start, limit, delta = (site.value(i).reshape(()) for i in range(3))
    count = max(0, int(np.ceil(float(limit - start) / float(delta))))  # in float64, as in onnxruntime
    number = np.arange(count, dtype=float)
    terms: dict[int, Primitive] = {}
    if site.active(0):
        terms[0] = Broadcast(site.shape(0), (count,))
    if site.active(2):
        terms[2] = chain(Broadcast(site.shape(2), (count,)), Scale((count,), number))
    held = [part for i, part in ((0, start), (2, number * delta)) if not site.active(i)]
    # onnxruntime adds delta up, so that entry n has n roundings behind it; they are counted with the offset.
    size = number * (np.abs(start) + number * np.abs(delta))
    return Local(terms, sum(held, np.zeros(count)), (_length(site, count),), offset_size=size)


def _length(site: Site, count: int) -> Guard:
    """Guard of the number of entries: two half-spaces Σ factor · operand ≥ 0."""
    sign = -1.0 if site.value(2) < 0 else 1.0
    # Rows: the last entry lies before limit, the next one does not. Without any: start is not before limit.
    before = (-sign, sign, -sign * (count - 1)) if count else (0.0, 0.0, sign)
    factors = np.array([before, (sign, -sign, sign * count)]).T  # (3, 2)

    def margins() -> Array:
        both = sum(factor * site.value(i).reshape(()) for i, factor in enumerate(factors))
        return np.asarray(np.min(both))

    def half_spaces() -> HalfSpaces:
        terms = tuple(
            (i, chain(Broadcast(site.shape(i), (2,)), Scale((2,), factor)))
            for i, factor in enumerate(factors)
            if site.active(i)
        )
        held = [f * site.value(i).reshape(()) for i, f in enumerate(factors) if not site.active(i)]
        return HalfSpaces(terms, sum(held, np.zeros(2)))

    return Guard(np.array(count), margins, half_spaces)


@explains("Range")
def range_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """What a held start and delta add, or zeros; and the numbers of the entries."""
    node, start, delta = graph.node, site.tensor(0), site.tensor(2)
    count = node("Size", node("Range", start, site.tensor(1), delta))
    numbers = node("Range", graph.constant(np.array(0)), count, graph.constant(np.array(1)))
    numbers = node("CastLike", numbers, start)
    shares = ((0, start), (2, node("Mul", numbers, delta)))
    offset = node("Sub", numbers, numbers)
    for position, share in shares:
        if not site.active(position):
            offset = node("Add", offset, share)
    return (offset, numbers) if site.active(2) else (offset,)
