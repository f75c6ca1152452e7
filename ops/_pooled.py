"""The extreme entry of each group of positions: what MaxPool and ReduceMax share.

Among equals the first entry of a group wins, as in onnxruntime. At once only the winners are looked for;
margins (the runners-up) and half-spaces (all pairs) are worked out where somebody reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Scale, Shape, Window, chain
from ..runtime.program import Guard, HalfSpaces
from ._moves import compact, gathered, positions
from ._rule import Local, Site

Index = tuple[Any, ...]  # what selects part of an array


def windowed_extreme(site: Site, window: Window) -> Local:
    """Lower the largest entry of each window, (N, C, *spatial) to (N, C, *out); padding never wins."""
    x = site.value()
    tap = _winning_taps(x, window)
    start, shift, unread = _places(window, compact(x.shape))
    images = math.prod(x.shape[:2])
    plane = np.arange(images, dtype=start.dtype)[:, None] * math.prod(window.in_size)
    winner = shift.take(tap.reshape(images, len(start)), mode="clip")
    winner += start
    winner += plane
    winner[:, unread] = -1

    def margins() -> Array:
        best = np.full(tap.shape, -np.inf, x.dtype)
        second = best.copy()
        for _, outputs, inputs in _taps(window):
            entries, leader, runner_up = np.ascontiguousarray(x[inputs]), best[outputs], second[outputs]
            np.maximum(runner_up, np.minimum(leader, entries), out=runner_up)
            np.maximum(leader, entries, out=leader)
        return np.subtract(best, second, out=np.full_like(best, np.inf), where=second > -np.inf)

    def candidates() -> Array:
        within = window.positions()
        return np.where(within < 0, -1, within + plane[:, None]).reshape(*tap.shape, len(shift))

    guard = _competition(site, winner.reshape(tap.shape), candidates, margins)
    return Local(replace(gathered(site, guard.choice), window=window), guards=(guard,))


def grouped_extreme(site: Site, axes: tuple[int, ...], shape: Shape, sign: int = 1) -> Local:
    """Lower the extreme entry along axes: the largest for sign 1, the smallest for -1.

    The result has the given shape: that of x without the axes, or with 1 in their places.
    """
    guard = _group(site, axes, shape, sign, last=False)
    return Local(gathered(site, guard.choice), guards=(guard,))


def group_guard(site: Site, axes: tuple[int, ...], sign: int, *, last: bool = False) -> Guard:
    """Guard of the extreme entry along axes: where it is, in flat positions.

    Args:
        site: the node; its operand 0 is observed.
        axes: that compete.
        sign: 1 for the largest, -1 for the smallest.
        last: whether the last among equals is meant, not the first.
    """
    x = site.shape()
    return _group(site, axes, tuple(size for axis, size in enumerate(x) if axis not in axes), sign, last=last)


def _group(site: Site, axes: tuple[int, ...], shape: Shape, sign: int, *, last: bool) -> Guard:
    x = site.value()

    def candidates() -> Array:
        return _grouped(positions(site), axes, shape)

    values = _grouped(x, axes, shape)
    ordered = values[..., ::-1] if last else values
    best = (ordered.argmax(axis=-1) if sign == 1 else ordered.argmin(axis=-1))[..., None]
    if last:
        best = values.shape[-1] - 1 - best

    def margins() -> Array:
        group = sign * values
        top = np.take_along_axis(group, best, -1)[..., 0]
        np.put_along_axis(group, best, -np.inf, -1)
        return np.asarray(top - group.max(axis=-1))

    winner = np.take_along_axis(candidates(), best, -1)[..., 0]
    return _competition(site, winner, candidates, margins, sign)


def listed_extreme(site: Site, candidates: Array) -> Local:
    """Lower the largest of listed entries, (*out_shape, n) positions in x, -1 for none; of none it is 0."""
    if not candidates.shape[-1]:
        return Local(gathered(site, np.full(candidates.shape[:-1], -1)))
    values = np.where(candidates < 0, -np.inf, site.value().ravel()[candidates])
    best = values.argmax(axis=-1)[..., None]

    def margins() -> Array:
        top = np.take_along_axis(values, best, -1)[..., 0]
        rest = values.copy()
        np.put_along_axis(rest, best, -np.inf, -1)
        second = rest.max(axis=-1)
        return np.asarray(np.subtract(top, second, out=np.full_like(top, np.inf), where=second > -np.inf))

    winner = np.take_along_axis(candidates, best, -1)[..., 0]
    guard = _competition(site, winner, lambda: candidates, margins)
    return Local(gathered(site, winner), guards=(guard,))


def grouped_in_graph(
    site: Site, graph: Builder, axes: tuple[int, ...], shape: Shape, sign: int = 1
) -> tuple[str, ...]:
    """The winners of `grouped_extreme`, as nodes of a graph."""
    candidates = _grouped(positions(site), axes, shape)
    groups = graph.constant(candidates)
    entries = graph.node("Reshape", site.tensor(0), graph.constant([-1]))
    values = graph.node("Gather", entries, groups)  # (*shape, n)
    best = graph.node("ArgMax" if sign > 0 else "ArgMin", values, axis=candidates.ndim - 1, keepdims=1)
    winner = graph.node("GatherElements", groups, best, axis=candidates.ndim - 1)
    return (graph.node("Squeeze", winner, graph.constant([candidates.ndim - 1])),)


def _grouped(entries: Array, axes: tuple[int, ...], shape: Shape) -> Array:
    """Entries along the axes put last, (*shape, n)."""
    order = (*(axis for axis in range(entries.ndim) if axis not in axes), *axes)
    return entries.transpose(order).reshape(*shape, math.prod(entries.shape[axis] for axis in axes))


def _competition(
    site: Site,
    winner: Array,
    candidates: Callable[[], Array],
    margins: Callable[[], Array],
    sign: int = 1,
) -> Guard:
    """Guard of the winners.

    Args:
        site: the node; its operand 0 is observed.
        winner: (*out_shape) flat positions in x; -1 for none.
        candidates: gives the positions that compete, (*out_shape, n); -1 for none (padding).
        margins: gives the distances to the runners-up, out_shape; infinite where there is none.
        sign: 1 for the largest, -1 for the smallest.
    """

    def half_spaces() -> HalfSpaces:
        """Sign · (winner - loser) ≥ 0, one row for each loser of each group."""
        group = candidates()
        losing = (group >= 0) & (group != winner[..., None])
        winners = np.broadcast_to(winner[..., None], group.shape)[losing]
        units = np.flatnonzero(losing) // group.shape[-1]
        return ahead(site, winners, group[losing], units, sign)

    return Guard(winner, margins, half_spaces)


def ahead(site: Site, winners: Array, losers: Array, units: Array, sign: int = 1) -> HalfSpaces:
    """Sign · (winner - loser) ≥ 0 for pairs of flat positions in operand 0, one row for each.

    Args:
        site: the node.
        winners: (rows,) flat positions.
        losers: (rows,) likewise.
        units: (rows,) flat numbers of the units whose choices they keep.
        sign: 1 where the winner is the larger, -1 where it is the smaller.
    """
    signed = np.array(float(sign))
    pair = [(gathered(site, index), factor) for index, factor in ((winners, signed), (losers, -signed))]
    return HalfSpaces(tuple((0, chain(g, Scale(g.out_shape, factor))) for g, factor in pair), units=units)


def _winning_taps(x: Array, window: Window) -> Array:
    """The number of each window's first largest tap, (N, C, *out). Each tap is a strided slice of x."""
    best = np.full((*x.shape[:2], *window.out_size), -np.inf, x.dtype)
    winning = np.zeros(best.shape, np.min_scalar_type(math.prod(window.kernel)))
    for number, outputs, inputs in _taps(window):
        # Read twice, and with strides only once: copied first, that takes a third less time.
        entries, leader, won = np.ascontiguousarray(x[inputs]), best[outputs], winning[outputs]
        # Numbers rise: of the taps that were better than all before them, the last has the largest number.
        np.maximum(won, (entries > leader) * won.dtype.type(number), out=won)
        np.maximum(leader, entries, out=leader)
    return winning


@lru_cache(maxsize=64)
def _taps(window: Window) -> tuple[tuple[int, Index, Index], ...]:
    """Row-major numbers of the taps, with the outputs that each serves and the inputs that it reads there."""
    return tuple(
        (int(np.ravel_multi_index(tap, window.kernel)), (..., *outputs), (..., *inputs))
        for tap, outputs, inputs in window.taps()
    )


@lru_cache(maxsize=64)
def _places(window: Window, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Where windows start in a plane, (windows,), taps from there, (taps,), and windows that read nothing."""
    start, shift = np.zeros((), dtype), np.zeros((), dtype)
    for i, o, k, s, d, p in zip(*window.fields(), strict=True):
        start = np.add.outer(start * i, np.arange(o, dtype=dtype) * s - p)
        shift = np.add.outer(shift * i, np.arange(k, dtype=dtype) * d)
    unread = np.flatnonzero((window.positions() < 0).all(axis=1))
    return start.ravel(), shift.ravel(), unread
