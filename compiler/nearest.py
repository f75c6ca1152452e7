"""The nearest boundary: which of all half-spaces aᵀ(z - x) + m ≥ 0 is closest to x, without every slope a.

A slope costs a sweep back through the network, a bound on its size nothing. So rows are looked at in the
order of a lower bound on their distance, m / (bound on ‖a‖), until that exceeds the nearest distance found.
The first few are chosen by a guess of ‖a‖ from random directions, which makes that distance small at once.
Where the input is smaller than the rows that are left, all of their norms are summed up instead from one
sweep of tangents for each input entry, block by block, without any slope in memory.
"""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from ..runtime.region import GIVEN_UP, Norm, Radius
from ..runtime.rounding import Arithmetic, growth
from .distances import dual_norms, nearest_step, position_of

if TYPE_CHECKING:
    from .region import Survey

_ROWS = 64  # slopes at once
_GUESSED = 2  # blocks of rows that are chosen by the guess
_DIRECTIONS = 8  # random ones that the guess is made from
_RATE = 1e9  # multiply-adds per second that a sweep in float64 reaches at least
_BLOCK_BYTES = 128 << 20  # of a block of tangents

Box = tuple[Array, Array]


class Budget:
    """What a search may spend."""

    def __init__(self, seconds: float | None, rows: int | None) -> None:
        self._deadline = math.inf if seconds is None else time.perf_counter() + seconds
        self.rows = math.inf if rows is None else rows

    @property
    def seconds(self) -> float:
        """That are left."""
        return self._deadline - time.perf_counter()

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.rows <= 0 or self.seconds <= 0

    def some(self, rows: Array) -> Array:
        """The first of the rows, as many as one block and the budget hold."""
        taken = rows[: int(min(_ROWS, self.rows))]
        self.rows -= len(taken)
        return taken


def nearest(survey: Survey, norm: Norm, box: Box | None, budget: Budget) -> Radius:
    """The distance from x to the nearest boundary, within a box or without one.

    Args:
        survey: the region's half-spaces; norms that are found are kept there.
        norm: 1, 2 or math.inf.
        box: lower and upper ends, (N,) each, or None.
        budget: what it may cost.
    """
    note = ""
    if survey.faces.unknown:
        note = f"where node {survey.faces.unknown[0]!r} jumps next is not known"
    tie, resolved = _tie(survey, budget)
    if tie is not None:
        return Radius(norm, 0.0, 0.0, survey.faces.boundary(tie, 0.0), np.zeros(survey.x.size))
    search = _Search(survey, norm, box, budget)
    search.run()
    distance, least = search.distance, search.at_least
    if not resolved or survey.faces.unknown:
        least = 0.0
    if not note and least < distance:
        note = GIVEN_UP
    ties = sum(guard.ties for _, guard in survey.guarded)
    if search.row < 0:
        return Radius(norm, math.inf, least, None, None, ties, note)
    boundary = survey.faces.boundary(search.row, float(survey.margins[search.row]))
    return Radius(norm, distance, min(least, distance), boundary, search.step, ties, note)


def _tie(survey: Survey, budget: Budget) -> tuple[int | None, bool]:
    """A row that x lies on and that limits, and whether all such rows were looked at.

    A tie whose slope is zero does not limit: what it compares does not depend on z within the region.
    """
    tied = np.flatnonzero(survey.tied & ~survey.flat)
    while len(tied):
        if budget.spent:
            return None, False
        rows = budget.some(tied)
        limits = survey.limits(rows)
        if limits.any():
            return int(rows[limits.argmax()]), True
        tied = tied[len(rows) :]
    return None, True


class _Search:
    """One search: the nearest row so far, and the rows that are not ruled out yet."""

    def __init__(self, survey: Survey, norm: Norm, box: Box | None, budget: Budget) -> None:
        self._survey, self._norm, self._budget = survey, norm, budget
        self._box = None if box is None else (box[0] - survey.x, box[1] - survey.x)
        self._norms = survey.norms[position_of(norm)]  # a view, which fills
        self._waiting = ~survey.flat  # rows whose distance is not known
        self.distance, self.row = math.inf, -1
        self.step: Array | None = None

    @property
    def at_least(self) -> float:
        """No boundary is nearer than this."""
        return min(self.distance, float(self._lower().min(initial=math.inf)))

    def run(self) -> None:
        """Search until all rows are ruled out or the budget is spent."""
        self._take_known()
        if len(self._left()) and not self._budget.spent:
            guess = self._guess()
            for _ in range(_GUESSED):
                left = self._left()
                self._look_at(left[np.argsort(guess[left], kind="stable")])
        if self._tangents_pay(self._left()):
            self._sum_up()
            self._take_known()
        while not self._budget.spent:
            left = self._left()
            if not len(left):
                break
            self._look_at(left[np.argsort(self._lower()[left], kind="stable")])
        if self.row >= 0:
            self.step = self._step(self.row, self._survey.slopes(np.array([self.row]))[0])

    def _lower(self) -> Array:
        """A lower bound on the distance of every row; infinite where it is known already."""
        sizes = np.where(np.isnan(self._norms), self._survey.most, self._norms)
        bounds = _over(self._survey.margins, sizes)
        return np.where(self._waiting, bounds, math.inf)

    def _left(self) -> Array:
        """Rows that may be nearer than the nearest so far."""
        return np.flatnonzero(self._lower() < self.distance)

    def _take_known(self) -> None:
        """Without a box a norm is all that a distance takes."""
        if self._box is not None:
            return
        known = np.flatnonzero(self._waiting & ~np.isnan(self._norms))
        self._consider(known, _over(self._survey.margins[known], self._norms[known]))

    def _look_at(self, rows: Array) -> None:
        """Work out the slopes and the distances of the first of the rows."""
        if self._budget.spent or not len(rows):
            return
        rows = self._budget.some(rows)
        slopes = self._survey.slopes(rows)
        self._survey.norms[:, rows] = dual_norms(slopes)
        if self._box is None:
            self._take_known()
            return
        steps = [self._step(row, slope) for row, slope in zip(rows, slopes, strict=True)]
        lengths = np.array([np.linalg.norm(step, self._norm) for step in steps])
        self._consider(rows, np.where(np.isnan(lengths), math.inf, lengths))

    def _consider(self, rows: Array, distances: Array) -> None:
        """Take the nearest of some rows, if it is nearer than any before and its slope is not rounding."""
        self._waiting[rows] = False
        for best in np.argsort(distances, kind="stable"):
            if not distances[best] < self.distance:
                return
            if self._survey.limits(rows[best : best + 1])[0]:
                self.distance, self.row = float(distances[best]), int(rows[best])
                return

    def _step(self, row: int, slope: Array) -> Array:
        margin = float(self._survey.margins[row])
        slack = 0.0
        if self._box is not None:  # of |a|ᵀ |x| and |c|, m = aᵀ x + c, beside |a|ᵀ |d| = m
            slack = 2 * self._rounding * (margin + float(np.abs(slope) @ np.abs(self._survey.x)))
        return nearest_step(slope, margin, self._norm, self._box, slack)

    @cached_property
    def _rounding(self) -> float:
        """How far off a half-space in float64 may be, in parts of its terms: sums along the network."""
        terms = sum(step.fan_in for step in self._survey.faces.program.steps)
        return growth(self._survey.x.size + terms, Arithmetic.of(np.float64).u)

    def _guess(self) -> Array:
        """About what every row's distance may be in L2, from its speed along random directions."""
        survey = self._survey
        directions = np.random.default_rng(0).standard_normal((_DIRECTIONS, survey.x.size))
        speeds = np.stack([survey.values(one[None], weight=0.0)[0] for one in directions])
        return _over(survey.margins, np.sqrt((speeds**2).mean(axis=0)))

    def _tangents_pay(self, left: Array) -> bool:
        """Whether one tangent for each input entry is less work than the slopes of the rows left."""
        survey = self._survey
        back = sum(len(mine) * _work(survey.faces.towards(face)) for face, mine in survey.faces.split(left))
        on = survey.x.size * _work(survey.faces.program)
        return on < back and on < _RATE * self._budget.seconds and survey.x.size <= self._budget.rows

    def _sum_up(self) -> None:
        """The norms of all rows, from tangents of unit vectors, while the budget lasts."""
        survey = self._survey
        N, program = survey.x.size, survey.faces.program
        widest = max(step.size for step in program.steps)
        block = max(1, min(N, _BLOCK_BYTES // (8 * (4 * widest + survey.faces.count))))
        sums = np.zeros((3, survey.faces.count))
        for first in range(0, N, block):
            if self._budget.spent:
                return
            units = np.eye(min(block, N - first), N, first)
            size = np.abs(survey.values(units, weight=0.0))
            np.maximum(sums[0], size.max(axis=0), out=sums[0])
            sums[1] += np.einsum("br,br->r", size, size)
            sums[2] += size.sum(axis=0)
        sums[1] = np.sqrt(sums[1])
        survey.norms[:] = np.where(np.isnan(survey.norms), sums, survey.norms)


def _over(margins: Array, sizes: Array) -> Array:
    """Distances m / ‖a‖; infinite where there is no slope."""
    return np.asarray(np.divide(margins, sizes, out=np.full(margins.shape, math.inf), where=sizes > 0))


def _work(program: LinearProgram) -> int:
    """Multiply-adds of one vector's way through a program, or elements where it only moves."""
    return sum(max(L.work, L.out_size) for step in program.steps for _, L in step.terms)
