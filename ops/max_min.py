"""Max, Min: the largest (smallest) of n operands, entry by entry, with numpy's broadcasting.

At x: the winner passes; among equals the first operand wins. Guard: the winner against every other operand.
https://onnx.ai/onnx/operators/onnx__Max.html, …Min.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Broadcast, Scale, chain
from ..runtime.program import Guard, HalfSpaces, Kind
from ._rule import Local, Site, explains, like, lowers


def _extreme(site: Site, sign: int) -> Local:
    shape = site.broadcast_shape()
    count = len(site.inputs)
    values = [sign * np.broadcast_to(site.value(i), shape) for i in range(count)]
    top, winner = values[0], np.zeros(shape, np.min_scalar_type(count))
    for i in range(1, count):
        winner = np.where(values[i] > top, winner.dtype.type(i), winner)
        top = np.maximum(top, values[i])
    won = [winner == i for i in range(count)]
    terms = {i: chain(site.spread(i, shape), Scale(shape, won[i])) for i in range(count) if site.active(i)}
    offset: Array = np.zeros(shape, top.dtype)
    for i in range(count):
        if not site.active(i):
            offset = np.where(won[i], site.value(i), offset)

    def margins() -> Array:
        losers = [np.where(one, -np.inf, value) for one, value in zip(won, values, strict=True)]
        return np.asarray(top - np.max(losers, axis=0))

    def half_spaces() -> HalfSpaces:
        """Per operand i, winner - xᵢ ≥ 0 (times the sign); rows are operands times entries."""
        stacked = (count, *shape)
        lost = np.zeros(stacked, top.dtype)
        pairs = []
        for i in range(count):
            # The difference winner - x_j, for every j, in terms of operand i alone.
            share = np.broadcast_to(won[i], stacked).astype(top.dtype) * sign
            share[i] -= sign
            if site.active(i):
                copied = chain(site.spread(i, shape), Broadcast(shape, stacked), Scale(stacked, share))
                pairs.append((i, copied))
            else:
                lost += share * np.broadcast_to(site.value(i), shape)
        return HalfSpaces(tuple(pairs), lost)

    return Local(terms, offset, (Guard(winner, margins, half_spaces),))


@lowers("Max", kind=Kind.PIECEWISE_LINEAR, observes=None)
def maximum(site: Site) -> Local:
    """Pass the largest operand."""
    return _extreme(site, 1)


@lowers("Min", kind=Kind.PIECEWISE_LINEAR, observes=None)
def minimum(site: Site) -> Local:
    """Pass the smallest operand."""
    return _extreme(site, -1)


def _extreme_in_graph(site: Site, graph: Builder, arg: str) -> tuple[str, ...]:
    """What the winners that do not depend on x add; and for each operand that does, where it wins."""
    node, count = graph.node, len(site.inputs)
    shape, first = graph.constant(list(site.broadcast_shape())), graph.constant([0])
    spread = [node("Expand", site.tensor(i), shape) for i in range(count)]
    stacked = node("Concat", *(node("Unsqueeze", operand, first) for operand in spread), axis=0)
    winner = node(arg, stacked, axis=0, keepdims=0)
    won = [node("Equal", winner, graph.constant(np.array(i))) for i in range(count)]
    offset = node("Expand", like(site, graph, 0.0), shape)
    for i in range(count):
        if not site.active(i):
            offset = node("Where", won[i], site.tensor(i), offset)
    return offset, *(won[i] for i in range(count) if site.active(i))


@explains("Max")
def maximum_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """Offset and masks."""
    return _extreme_in_graph(site, graph, "ArgMax")


@explains("Min")
def minimum_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """Offset and masks."""
    return _extreme_in_graph(site, graph, "ArgMin")
