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


def nearest_step(
    a: Array, m: float, norm: Norm, box: tuple[Array, Array] | None = None, slack: float = 0.0
) -> Array:
    """The shortest d with aᵀ d + m = 0, within a box, (N,); NaN where there is none.

    Without a box: L1 moves the steepest entry alone, L2 along a, L∞ every entry by the same amount. Within
    one, entries that arrive at its side stop there, and the others go on. The box is closed: a boundary that
    only a corner of it lies on counts, in every norm.

    Args:
        a: (N,) slope.
        m: margin, at least 0.
        norm: 1, 2 or math.inf.
        box: ends of d, (N,) each: at most 0, and at least 0.
        slack: by how much rounding may take aᵀ d + m from 0 at a corner of the box that lies on the boundary.
    """
    size, way = np.abs(a), -np.sign(a)
    steepest = float(size.max(initial=0.0))
    if not 0 < steepest < math.inf:
        return np.full(a.shape, math.nan)
    size, m, slack = size / steepest, m / steepest, slack / steepest  # so that squares keep to the range
    room = np.full(a.shape, math.inf)
    if box is not None:
        room = np.where(way > 0, box[1], -box[0])
    held = np.multiply(size, room, out=np.zeros_like(room), where=size > 0)  # what each entry can take of m
    if not held.sum() >= m - slack:
        return np.full(a.shape, math.nan)
    if norm == 1:
        moved = _steepest_first(size, held, m)
    elif norm == 2:
        full = np.divide(room, size, out=np.zeros_like(room), where=size > 0)
        moved = _level(size**2, full, m) * size
    else:
        moved = np.asarray(_level(size, room, m))
    return np.asarray(way * np.minimum(moved, room))


def _steepest_first(size: Array, held: Array, m: float) -> Array:
    """Amounts t of least sum with Σ size t = m, where size t ≤ held: the steepest entries first."""
    order = np.argsort(-size, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(held[order])[:-1]])  # what the steeper ones take
    left = np.empty_like(size)
    left[order] = np.maximum(m - before, 0.0)
    return np.divide(np.minimum(left, held), size, out=np.zeros_like(size), where=size > 0)


def _level(weight: Array, full: Array, m: float) -> float:
    """The level τ at which Σ weight · min(τ, full) = m, as of water in vessels; the last is full at most."""
    used = np.flatnonzero(weight)
    order = used[np.argsort(full[used], kind="stable")]
    weight, full = weight[order], full[order]
    rest = np.cumsum(weight[::-1])[::-1]  # of the vessels that are not full yet
    before = np.concatenate([[0.0], np.cumsum(weight * full)[:-1]])  # what the full ones hold
    first = int(np.searchsorted(before + full * rest, m))
    return float(full[-1] if first == len(order) else (m - before[first]) / rest[first])
