"""Facets: which of the inequalities A z ≤ c are implied by the others, by linear programs.

Rays from an inner point leave the region through facets, which finds many at once; rows beyond a box around
those are implied. The others by Clarkson's algorithm: each is held against the facets found so far only, and
where they do not imply it, the ray to the program's optimum leaves through a facet that was not known yet.

All of it about an inner point, with rows of length 1 and the region's size as unit: the solver's
tolerances are absolute, and 0 is a solution of every program.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ..runtime.errors import OptionError
from ..runtime.primitives import Array
from ..runtime.region import Progress

_EPSILON = 1e-9  # relative to a row of length 1 and the region's size: what the solver's tolerances leave
_TOLERANCE = 1e-10  # of the solver, its least
_OPTIMAL, _UNBOUNDED = 0, 3  # scipy's status
_Method = Literal["highs", "highs-ds", "highs-ipm"]
_ATTEMPTS: tuple[tuple[_Method, bool], ...] = (  # and whether it presolves
    ("highs", True),
    ("highs-ds", False),
    ("highs-ipm", False),
)


def facets(A: Array, c: Array, x: Array, progress: Progress | None = None) -> Array:
    """Positions of the rows that none of the others imply, ascending; of equal rows the first.

    Args:
        A: (rows, N), no row zero.
        c: (rows,).
        x: (N,) a point of the region.
        progress: called with the rows decided and their number, before each linear program and at the end.

    Raises:
        OptionError: the region has no inner point, so that none of its inequalities can be told apart, or a
            linear program is not solved.
    """
    if not len(c):
        return np.arange(0)
    length = np.linalg.norm(A, axis=1)
    A, c = A / length[:, None], c / length
    distinct = _distinct(A, c - A @ x)
    if len(distinct) == 1:
        return distinct
    room = c - A @ _inner_point(A[distinct], c[distinct], x)
    found = _by_rays(A, room, distinct)
    room = room / _size(room[found] if found else room[distinct])
    left = [int(row) for row in _not_outside(A, room, distinct, found)]
    while left:
        if progress:
            progress(len(c) - len(left), len(c))
        row = left[-1]
        beyond = _furthest(A, room, A[row], [*found, row], 1.0)
        if beyond is None:
            raise OptionError(
                f"HiGHS does not solve the program of inequality {row}; half_spaces() has them all"
            )
        if A[row] @ beyond <= room[row] + _EPSILON * (1 + np.abs(beyond).max(initial=0.0)):
            left.pop()
            continue
        facet = _first_met(A, room, [*left, *found], beyond)
        if facet in found:  # the ray met a known facet and this row at once: the row only touches
            left.pop()
            continue
        found.append(facet)
        left.remove(facet)
    if progress:
        progress(len(c), len(c))
    return np.sort(np.array(found, dtype=np.intp))


def _by_rays(A: Array, room: Array, rows: Array) -> list[int]:
    """Facets that the rays from 0 towards each row leave through, before any other by far."""
    found: dict[int, None] = {}
    for block in np.array_split(rows, max(1, len(rows) // 512)):
        speeds = A[rows] @ A[block].T  # (rows, rays)
        times = np.divide(room[rows, None], speeds, out=np.full(speeds.shape, math.inf), where=speeds > 0)
        first, second = np.partition(times, 1, axis=0)[:2]
        clear = first < second * (1 - _EPSILON)
        found.update(dict.fromkeys(int(row) for row in rows[times.argmin(axis=0)[clear]]))
    return list(found)


def _not_outside(A: Array, room: Array, rows: Array, found: list[int]) -> Array:
    """The rows, but for those found and those beyond a box around the region that these make.

    A side of the box that no program finds, as where the region has no end, rules nothing out.
    """
    others = np.setdiff1d(rows, found)
    if not found or len(others) <= 2 * A.shape[1]:  # the box would take more programs than it saves
        return others
    ends = np.empty((2, A.shape[1]))
    for side, sign in enumerate((-1.0, 1.0)):
        for j, unit in enumerate(sign * np.eye(A.shape[1])):
            furthest = _furthest(A, room, unit, found, 0.0)
            ends[side, j] = sign * math.inf if furthest is None else furthest[j]
    reach = np.zeros(len(others))
    for side, slope in ((0, np.minimum(A[others], 0)), (1, np.maximum(A[others], 0))):
        products = np.multiply(slope, ends[side], out=np.zeros_like(slope), where=slope != 0)
        reach += products.sum(axis=1)
    return others[~(reach < room[others] - _EPSILON * (1 + np.abs(reach)))]


def _distinct(A: Array, room: Array) -> Array:
    """The first of each set of equal rows."""
    rounded = np.round(np.column_stack([A, room / _size(room)]), 10)
    return np.sort(np.unique(rounded, axis=0, return_index=True)[1])


def _inner_point(A: Array, c: Array, x: Array) -> Array:
    """A point with room on all sides: x itself, or where it lies on a boundary, a ball's centre."""
    room = np.maximum(c - A @ x, 0.0)
    size = _size(room)
    if room.min() > _EPSILON * size:
        return x
    from scipy.optimize import linprog

    goal = np.zeros(A.shape[1] + 1)
    goal[-1] = -1  # the largest ball's radius, up to 1, about x + the others
    bounds = [*([(None, None)] * A.shape[1]), (0, 1)]
    solved = linprog(goal, np.column_stack([A, np.ones(len(c))]), room / size, bounds=bounds, method="highs")
    if solved.x is None or solved.x[-1] <= _EPSILON:
        raise OptionError("the region has no inner point: x lies where two boundaries meet face to face")
    return np.asarray(x + size * solved.x[:-1])


def _size(room: Array) -> float:
    """About how far a region reaches whose rows leave so much room: their median, but for those x lies on."""
    some = room[room > _EPSILON * room.max()]
    return float(np.median(some)) if len(some) else 1.0


def _furthest(A: Array, room: Array, way: Array, rows: list[int], slack: float) -> Array | None:
    """The point furthest along a direction within some rows, the last loosened; None where none is found.

    0 is within them, so that none is found where there is no end, or where the solver fails: HiGHS calls some
    such programs infeasible, and presolving or another of its methods may help.
    """
    from scipy.optimize import linprog

    limits = room[rows]
    limits[-1] += slack
    for method, presolve in _ATTEMPTS:
        solved = linprog(
            -way,
            A[rows],
            limits,
            bounds=(None, None),
            method=method,
            options={
                "presolve": presolve,
                "primal_feasibility_tolerance": _TOLERANCE,
                "dual_feasibility_tolerance": _TOLERANCE,
            },
        )
        if solved.status == _OPTIMAL:
            return np.asarray(solved.x)
        if solved.status == _UNBOUNDED:
            break
    return None


def _first_met(A: Array, room: Array, rows: list[int], way: Array) -> int:
    """The row that a ray from 0 crosses first."""
    speed = A[rows] @ way
    t = np.divide(room[rows], speed, out=np.full(len(rows), math.inf), where=speed > 0)
    return rows[int(t.argmin())]
