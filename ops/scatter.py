"""Scatter, ScatterElements, ScatterND, TensorScatter: y = data, with updates for entries at given indices.

At x: y = D ⊙ data + S (U ⊙ updates), where S adds each update to the entry that it is for. Without a
reduction U keeps the last update of each entry and D the entries without one; add keeps all of both; max and
min keep the winner of each entry, the first among equals, data before updates. These two are
piecewise-linear; guard: the winner against all others of its entry. mul is linear in one factor of a product.
https://onnx.ai/onnx/operators/onnx__ScatterElements.html, …ScatterND.html, …Scatter.html, …TensorScatter.html
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Primitive, Scale, Scatter, chain
from ..runtime.program import Guard, HalfSpaces, Kind
from ._moves import along, compact, gathered, nested
from ._rule import Local, Site, explains, like, lowers

_OPERATORS = ("Scatter", "ScatterElements", "ScatterND")
_SIGNS = {"max": 1, "min": -1}
_PRODUCT = (
    "multiplies two values that both depend on x ({!r} and {!r}), which is not affine; name one of them in "
    "inputs, or a tensor before this node in outputs"
)


class _Share(NamedTuple):
    """What the result takes of data, D, and of updates, U."""

    data: Array
    updates: Array
    guards: tuple[Guard, ...] = ()


_ALL = _Share(np.ones((), bool), np.ones((), bool))


@lowers(*_OPERATORS, kind=Kind.PIECEWISE_LINEAR, observes=(0, 2), linear_in=(0, 2))
def scatter(site: Site) -> Local:
    """Share every entry between data and its updates."""
    target = _targets(site)
    reduction = site.attribute("reduction", "none")
    if reduction in _SIGNS:
        return _combined(site, target, _extreme(site, target, _SIGNS[reduction]))
    if reduction == "mul":
        return _multiplied(site, target)
    return _combined(site, target, _ALL if reduction == "add" else _last(site, target))


@lowers("TensorScatter", linear_in=(0, 1))
def tensor_scatter(site: Site) -> Local:
    """Write the update behind each sequence's start, and around the end where that is circular."""
    shape, updates = site.shape(), site.shape(1)
    axis = site.attribute("axis", -2) % len(shape)
    start = site.value(2) if site.has(2) else np.zeros(shape[0], np.int64)
    at = start[:, None] + np.arange(updates[axis])  # (batch, sequence)
    if site.attribute("mode", "linear") == "circular":
        at %= shape[axis]
    aligned = at.reshape(shape[0], *(1,) * (axis - 1), updates[axis], *(1,) * (len(shape) - 1 - axis))
    target = along(site, np.broadcast_to(aligned, updates), axis)
    return _combined(site, target, _last(site, target), position=1)


def _targets(site: Site) -> Array:
    """Position in data that each update is for, in the shape of the updates."""
    indices = site.value(1)
    if site.op_type == "ScatterND":
        return nested(site, indices)
    return along(site, indices, site.attribute("axis", 0))


# -- what each of the two adds -------------------------------------------------------------------------


def _combined(site: Site, target: Array, share: _Share, position: int = 2) -> Local:
    """D ⊙ data + S (U ⊙ updates), the updates being the operand at `position`."""
    shape = site.shape()
    place = Scatter(shape, np.asarray(target, compact(shape), order="C"))
    terms: dict[int, Primitive] = {}
    offset = size = None
    if site.active(0):
        terms[0] = Scale(shape, share.data)
    else:
        offset = _product(share.data, site.value(0))
    if site.active(position):
        terms[position] = chain(Scale(target.shape, share.updates), place)
    else:  # then data is active
        added = _product(share.updates, site.value(position))[None]
        offset, size = place.apply(added)[0], place.apply(np.abs(added))[0]
    return Local(terms, offset, share.guards, offset_size=size)


def _product(factor: Array, value: Array) -> Array:
    """The factor times the value; what a mask drops may be infinite."""
    return np.where(factor, value, 0) if factor.dtype == bool else factor * value


def _last(site: Site, target: Array) -> _Share:
    """The last update of each entry, or its data. The specification leaves several for one entry open."""
    number = np.arange(target.size).reshape(target.shape)
    last = np.full(math.prod(site.shape()), -1)
    last[target.ravel()] = number.ravel()
    return _Share((last < 0).reshape(site.shape()), last[target] == number)


def _extreme(site: Site, target: Array, sign: int) -> _Share:
    """The winner of each entry: the largest for sign 1, the smallest for -1."""
    data, updates, flat = sign * site.value(0).ravel(), sign * site.value(2).ravel(), target.ravel()
    best = data.copy()
    np.maximum.at(best, flat, updates)
    stays = data == best
    contends = np.flatnonzero((updates == best[flat]) & ~stays[flat])
    winner = np.where(stays, -1, updates.size)  # the number of the update; -1 for data
    np.minimum.at(winner, flat[contends], contends)
    wins = winner[flat] == np.arange(updates.size)

    def margins() -> Array:
        second = np.where(stays, -np.inf, data)
        np.maximum.at(second, flat[~wins], updates[~wins])
        margin: Array = (best - second).reshape(site.shape())
        return margin

    def half_spaces() -> HalfSpaces:
        """Sign · (winner - loser) ≥ 0, one row for each update or data that loses; data is numbered first."""
        losers = np.concatenate([np.flatnonzero(~stays), data.size + np.flatnonzero(~wins)])
        entries = np.concatenate([np.arange(data.size), flat])  # that each number is for
        winners = np.where(stays, entries[: data.size], data.size + winner)[entries[losers]]
        terms: list[tuple[int, Primitive]] = []
        offset: Array = np.zeros(losers.size)
        for position, first in ((0, 0), (2, data.size)):
            for numbers, factor in ((winners, sign), (losers, -sign)):
                own = numbers - first
                within = (own >= 0) & (own < site.value(position).size)
                if site.active(position):
                    taken = gathered(site, np.where(within, own, -1), position)
                    terms.append((position, chain(taken, Scale(taken.out_shape, np.array(float(factor))))))
                else:
                    offset[within] += factor * site.value(position).ravel()[own[within]]
        return HalfSpaces(tuple(terms), offset, entries[losers])

    shape = site.shape()
    guard = Guard(winner.reshape(shape), margins, half_spaces)
    return _Share(stays.reshape(shape), wins.reshape(target.shape), (guard,))


def _multiplied(site: Site, target: Array) -> Local:
    """Scale data by its updates, or each update by its data."""
    shape = site.shape()
    if site.active(0):
        if site.active(2):
            raise site.refuse(_PRODUCT.format(site.tensor(0), site.tensor(2)))
        factor = np.ones(math.prod(shape), site.value(2).dtype)
        np.multiply.at(factor, target.ravel(), site.value(2).ravel())
        return Local({0: Scale(shape, factor.reshape(shape))})
    if target.size and np.bincount(target.ravel()).max() > 1:
        raise site.refuse(_PRODUCT.format(site.tensor(2), site.tensor(2)))
    untouched = _last(site, target).data
    return _combined(site, target, _Share(untouched, site.value(0).ravel()[target]))


# -- the same within a graph ---------------------------------------------------------------------------


@explains(*_OPERATORS)
def scatter_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """What a held operand adds; D; the entry that each update is for, and U."""
    if site.inputs[1] is None or site.inputs[1].value is None:
        raise site.refuse("its indices are known only when the model runs, so it cannot explain itself")
    node, target, reduction = graph.node, _targets(site), site.attribute("reduction", "none")
    data, updates = (node("Reshape", site.tensor(i), graph.constant([-1])) for i in (0, 2))
    at, shape = graph.constant(target.ravel()), graph.constant(list(site.shape()))
    if reduction == "mul" and site.active(0):
        ones = node("CastLike", graph.constant(np.ones(math.prod(site.shape()))), data)
        factor = node("ScatterElements", ones, at, updates, axis=0, reduction="mul")
        return (node("Reshape", factor, shape),)
    if reduction in _SIGNS:
        stays, taken = _extreme_in_graph(site, graph, target, reduction)
    else:
        share = _ALL if reduction == "add" else _last(site, target)
        stays, taken = graph.constant(share.data), graph.constant(share.updates)
        if reduction == "mul":
            taken = node("Gather", data, graph.constant(target))
    zero = like(site, graph, 0.0)
    if not site.active(0):
        return node("Where", stays, site.tensor(0), zero), graph.constant(target), taken
    if site.active(2):
        return stays, graph.constant(target), taken
    added = node("Reshape", node("Where", taken, site.tensor(2), zero), graph.constant([-1]))
    nothing = node("Expand", zero, node("Shape", data))
    placed = node("ScatterElements", nothing, at, added, axis=0, reduction="add")
    return node("Reshape", placed, shape), stays


def _extreme_in_graph(site: Site, graph: Builder, target: Array, reduction: str) -> tuple[str, str]:
    """Where data stays, and which updates win."""
    node, flat = graph.node, graph.constant([-1])
    data, updates = (node("Reshape", site.tensor(i), flat) for i in (0, 2))
    at, count = graph.constant(target.ravel()), np.array(target.size)
    best = node("ScatterElements", data, at, updates, axis=0, reduction=reduction)
    stays = node("Equal", data, best)
    contends = node("Equal", updates, node("Gather", best, at))
    contends = node("And", contends, node("Not", node("Gather", stays, at)))
    number = graph.constant(np.arange(target.size))
    ranked = node("Where", contends, number, graph.constant(count))
    none = graph.constant(np.full(math.prod(site.shape()), count))
    first = node("ScatterElements", none, at, ranked, axis=0, reduction="min")
    wins = node("Equal", node("Gather", first, at), number)
    shapes = (graph.constant(list(shape)) for shape in (site.shape(), target.shape))
    both = [node("Reshape", tensor, shape) for tensor, shape in zip((stays, wins), shapes, strict=True)]
    return both[0], both[1]
