"""How far a point is from a half-space aᵀ d + m ≥ 0, in L1, L2 or L∞, within a box or without one."""

from __future__ import annotations

import math

import numpy as np

from ..runtime.primitives import Array
from ..runtime.region import NORMS, Norm


def dual_norms(A: Array) -> Array:
    """The norms that distances in L1, L2 and L∞ are divided by: L∞, L2 and L1 of each row; (3, rows)."""
    return np.stack([np.abs(A).max(axis=1, initial=0.0), np.linalg.norm(A, axis=1), np.abs(A).sum(axis=1)])


def position_of(norm: Norm) -> int:
    """The place of a norm among the three."""
    return NORMS.index(norm)


def nearest_step(a: Array, m: float, norm: Norm, box: tuple[Array, Array] | None = None) -> Array:
    """The shortest d with aᵀ d + m = 0, within a box, (N,); NaN where there is none.

    Without a box: L1 moves the steepest entry alone, L2 along a, L∞ every entry by the same amount. Within
    one, entries that arrive at its side stop there, and the others go on.

    Args:
        a: (N,) slope.
        m: margin, at least 0.
        norm: 1, 2 or math.inf.
        box: ends of d, (N,) each: at most 0, and at least 0.
    """
    size, way = np.abs(a), -np.sign(a)
    if not size.any():
        return np.full(a.shape, math.nan)
    room = np.full(a.shape, math.inf)
    if box is not None:
        room = np.where(way > 0, box[1], -box[0])
    if norm == 1:
        return way * _steepest_first(size, m, room)
    if norm == 2:
        level = _level(size**2, np.divide(room, size, out=np.zeros_like(room), where=size > 0), m)
        return np.asarray(way * np.minimum(level * size, room))
    return np.asarray(way * np.minimum(_level(size, room, m), room))


def _steepest_first(size: Array, m: float, room: Array) -> Array:
    """Amounts t ≤ room of least sum with Σ size t = m: the steepest entries first."""
    moved = np.zeros_like(size)
    for j in np.argsort(-size, kind="stable"):
        if size[j] == 0:
            return np.full(size.shape, math.nan)
        moved[j] = min(room[j], m / size[j])
        m -= moved[j] * size[j]
        if m <= 0:
            return moved
    return np.full(size.shape, math.nan)


def _level(weight: Array, full: Array, m: float) -> float:
    """The level τ at which Σ weight · min(τ, full) = m, as of water in vessels; NaN where all fill before."""
    used = np.flatnonzero(weight)
    order = used[np.argsort(full[used], kind="stable")]
    weight, full = weight[order], full[order]
    rest = np.cumsum(weight[::-1])[::-1]  # of the vessels that are not full yet
    before = np.concatenate([[0.0], np.cumsum(weight * full)[:-1]])  # what the full ones hold
    first = int(np.searchsorted(before + full * rest, m))
    return math.nan if first == len(order) else float((m - before[first]) / rest[first])
