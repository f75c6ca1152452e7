"""Facets: which of the inequalities A z ≤ c are implied by the others, by linear programs.

Rays from an inner point leave the region through facets, which finds many at once; rows beyond a box around
those are implied. The others by Clarkson's algorithm: each is held against the facets found so far only, and
where they do not imply it, the ray to the program's optimum leaves through a facet that was not known yet.
"""

from __future__ import annotations

import math

import numpy as np

from ..runtime.errors import OptionError
from ..runtime.primitives import Array
from ..runtime.region import Progress

_EPSILON = 1e-9  # relative to a row of length 1 and distances from x: what the solver's tolerances leave
_UNBOUNDED = 3  # scipy's status


def facets(A: Array, c: Array, x: Array, progress: Progress | None = None) -> Array:
    """Positions of the rows that none of the others imply, ascending; of equal rows the first.

    Args:
        A: (rows, N), no row zero.
        c: (rows,).
        x: (N,) a point of the region.
        progress: called with the rows decided and their number, before each linear program and at the end.

    Raises:
        OptionError: the region has no inner point, so that none of its inequalities can be told apart.
    """
    if not len(c):
        return np.arange(0)
    length = np.linalg.norm(A, axis=1)
    A, c = A / length[:, None], c / length
    distinct = _distinct(A, c, x)
    if len(distinct) == 1:
        return distinct
    inner = _inner_point(A[distinct], c[distinct], x)
    found = _by_rays(A, c, distinct, inner)
    left = [int(row) for row in _not_outside(A, c, distinct, found, inner)]
    while left:
        if progress:
            progress(len(c) - len(left), len(c))
        row = left[-1]
        beyond = _furthest(A, c, A[row], [*found, row], 1.0)
        assert beyond is not None  # the row itself is an end
        if A[row] @ beyond <= c[row] + _EPSILON * (1 + np.abs(beyond - inner).max(initial=0.0)):
            left.pop()
            continue
        facet = _first_met(A, c, [*left, *found], inner, beyond - inner)
        if facet in found:  # the ray met a known facet and this row at once: the row only touches
            left.pop()
            continue
        found.append(facet)
        left.remove(facet)
    if progress:
        progress(len(c), len(c))
    return np.sort(np.array(found, dtype=np.intp))


def _by_rays(A: Array, c: Array, rows: Array, inner: Array) -> list[int]:
    """Facets that the rays from an inner point towards each row leave through, before any other by far."""
    found: dict[int, None] = {}
    room = c[rows] - A[rows] @ inner
    for block in np.array_split(rows, max(1, len(rows) // 512)):
        speeds = A[rows] @ A[block].T  # (rows, rays)
        times = np.divide(room[:, None], speeds, out=np.full(speeds.shape, math.inf), where=speeds > 0)
        first, second = np.partition(times, 1, axis=0)[:2]
        clear = first < second * (1 - _EPSILON)
        found.update(dict.fromkeys(int(row) for row in rows[times.argmin(axis=0)[clear]]))
    return list(found)


def _not_outside(A: Array, c: Array, rows: Array, found: list[int], inner: Array) -> Array:
    """The rows, but for those found and those beyond a box around the region that these make."""
    others = np.setdiff1d(rows, found)
    if not found or len(others) <= 2 * A.shape[1]:  # the box would take more programs than it saves
        return others
    ends = np.empty((2, A.shape[1]))
    for side, sign in enumerate((-1.0, 1.0)):
        for j, unit in enumerate(sign * np.eye(A.shape[1])):
            furthest = _furthest(A, c, unit, found, 0.0)
            ends[side, j] = sign * math.inf if furthest is None else furthest[j]
    reach = np.zeros(len(others))
    for side, slope in ((0, np.minimum(A[others], 0)), (1, np.maximum(A[others], 0))):
        products = np.multiply(slope, ends[side], out=np.zeros_like(slope), where=slope != 0)
        reach += products.sum(axis=1)
    return others[~(reach < c[others] - _EPSILON * (1 + np.abs(reach)))]


def _distinct(A: Array, c: Array, x: Array) -> Array:
    """The first of each set of equal rows."""
    rounded = np.round(np.column_stack([A, c - A @ x]), 10)
    return np.sort(np.unique(rounded, axis=0, return_index=True)[1])


def _inner_point(A: Array, c: Array, x: Array) -> Array:
    """A point with room on all sides: x itself, or where it lies on a boundary, a ball's centre."""
    if (c - A @ x).min() > _EPSILON:
        return x
    from scipy.optimize import linprog

    goal = np.zeros(A.shape[1] + 1)
    goal[-1] = -1  # the largest ball's radius, up to 1, about x + the others
    bounds = [*([(None, None)] * A.shape[1]), (0, 1)]
    solved = linprog(goal, np.column_stack([A, np.ones(len(c))]), c - A @ x, bounds=bounds, method="highs")
    if solved.x is None or solved.x[-1] <= _EPSILON:
        raise OptionError("the region has no inner point: x lies where two boundaries meet face to face")
    return np.asarray(x + solved.x[:-1])


def _furthest(A: Array, c: Array, way: Array, rows: list[int], slack: float) -> Array | None:
    """The point furthest along a direction within some rows, the last loosened; None without an end."""
    from scipy.optimize import linprog

    limits = c[rows]
    limits[-1] += slack
    solved = linprog(-way, A[rows], limits, bounds=(None, None), method="highs")
    if solved.status == _UNBOUNDED:
        return None
    if solved.x is None:
        raise OptionError(f"the linear program of one inequality was not solved: {solved.message}")
    return np.asarray(solved.x)


def _first_met(A: Array, c: Array, rows: list[int], start: Array, way: Array) -> int:
    """The row that a ray from an inner point crosses first."""
    speed = A[rows] @ way
    room = c[rows] - A[rows] @ start
    t = np.divide(room, speed, out=np.full(len(rows), math.inf), where=speed > 0)
    return rows[int(t.argmin())]
