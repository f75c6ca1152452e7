"""The region of a point: its half-spaces, how far the nearest is, and which choices it stands for.

Everything is worked out in float64 from the network lowered in float64, whatever the type of the map: where
a region ends is a matter of small differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..runtime.errors import MemoryLimitError
from ..runtime.memory import readable
from ..runtime.operator import unstacked, walked
from ..runtime.primitives import Array
from ..runtime.program import Discrete, Guard, Kind, LinearProgram, Step
from ..runtime.region import NORMS, Boundary, Crossing, Inequalities, Norm, Progress, Radius, Unit
from .distances import dual_norms
from .engine import Engine
from .faces import Faces, faces_of
from .facets import facets
from .jacobians import jacobians, work_of
from .multiplier import matrix_free
from .nearest import Budget, nearest
from .neighbours import Point
from .plan import Leg, plan_of
from .sweep import rows_back
from .trace import Trace

Look = Callable[[Point], LinearProgram]
_DOUBLE, _SINGLE = np.dtype(np.float64), np.dtype(np.float32)
_BLOCK_BYTES = 256 << 20  # of a block's sweep
_DOUBTFUL = 2.0**-30  # of the largest margin: a smaller one may be rounding alone
_VANISHES = 2.0**-20  # what is so much smaller in double precision than in single is rounding alone
_ROWS = 64  # slopes at once


class Survey:
    """The geometry of one region; what was worked out is kept for further questions."""

    def __init__(
        self,
        program: LinearProgram,
        trace: Trace,
        look: Look,
        engine: Engine,
        limit: int,
        *,
        tied: bool = False,
    ) -> None:
        """Prepare it.

        Args:
            program: the network at x, in float64.
            trace: x.
            look: the network at another point, in float64.
            engine: for sweeps.
            limit: bytes that all half-spaces together may take.
            tied: leave out the choices that have no ties at x.
        """
        self._tied_only = tied
        self._program, self._trace, self._look, self._engine = program, trace, look, engine
        self._limit = limit
        self._legs: dict[int, tuple[LinearProgram, Leg]] = {}

    @property
    def program(self) -> LinearProgram:
        """The network at x, in float64."""
        return self._program

    @property
    def guarded(self) -> Iterator[tuple[Step | Discrete, Guard]]:
        """Every choice that was made at x."""
        return self._program.guarded

    # -- what is known at x ----------------------------------------------------------------------------

    @cached_property
    def faces(self) -> Faces:
        """All half-spaces, as one program."""
        return faces_of(self._program, tied=self._tied_only)

    @cached_property
    def x(self) -> Array:
        """(N,) flattened and stacked."""
        return self._trace.stacked(self._program.inputs).astype(_DOUBLE)

    @cached_property
    def tied(self) -> Array:
        """Rows whose value is 0 in the model's own arithmetic: x lies on them, (rows,) bool.

        Those with a slope limit, the others do not.
        """
        tied = []
        for face in self.faces.faces:
            seen = {name: np.asarray(self._trace.values[name], _DOUBLE)[None] for name, _ in face.step.terms}
            tied.append(face.step.apply(seen, np.ones(1)).ravel() == 0)
        return np.concatenate(tied) if tied else np.zeros(0, bool)

    @cached_property
    def margins(self) -> Array:
        """The value of every row at x, (rows,); 0 where the model's rounding put x on the other side."""
        return np.where(self.tied, 0.0, np.maximum(self.values(self.x[None], weight=1.0)[0], 0.0))

    @cached_property
    def constants(self) -> Array:
        """The value of every row at zero, (rows,): c of A z ≤ c."""
        at_zero: Array = self.values(np.zeros((1, self.x.size)), weight=1.0)[0]
        return at_zero

    @cached_property
    def most(self) -> Array:
        """An upper bound on the L1 norm of every row's slope, and so on its L2 and L∞ norms, (rows,).

        Σ over all paths of |products|: the sizes of the steps, walked once. Exactly 0 where a row cannot
        depend on x: behind dead units.
        """
        steps = tuple(
            Step(
                *(step.output, step.shape, step.node, step.op_type, Kind.AFFINE),
                tuple((name, L.magnitude()) for name, L in step.terms),
            )
            for step in self.faces.program.steps
        )
        sizes = LinearProgram(self._program.inputs, self.faces.program.outputs, steps)
        with np.errstate(over="ignore", invalid="ignore"):
            found = self.values(np.ones((1, self.x.size)), weight=0.0, program=sizes)[0]
        return np.where(np.isnan(found), math.inf, found)

    @cached_property
    def norms(self) -> Array:
        """The dual norms of the slopes as far as they are known, (3, rows); NaN elsewhere."""
        return np.full((len(NORMS), self.faces.count), math.nan)

    @cached_property
    def flat(self) -> Array:
        """Rows that do not limit: their slope is zero, or vanishes but for rounding; (rows,) bool."""
        return np.asarray(self.most == 0)

    @cached_property
    def _steep(self) -> Array:
        """Rows whose slope is known to be more than rounding, (rows,) bool."""
        return np.zeros(self.faces.count, bool)

    # -- sweeps ----------------------------------------------------------------------------------------

    def values(self, block: Array, weight: float, program: LinearProgram | None = None) -> Array:
        """All rows' values at a block of points (weight 1) or directions (0): (B, N) to (B, rows)."""
        program = program or self.faces.program
        return walked(program, unstacked(program, block), weight)

    def slopes(self, rows: Array, dtype: np.dtype[Any] = _DOUBLE) -> Array:
        """Slopes of some rows, (k, N), by reverse sweeps from their faces."""
        A = np.empty((len(rows), self.x.size), dtype)
        for face, mine in self.faces.split(rows):
            program, leg = self._swept(face)
            local = rows[mine] - self.faces.starts[face]
            for first in range(0, len(mine), leg.block):
                some = slice(first, first + leg.block)
                if dtype == _DOUBLE:
                    sweep = self._engine.rows(leg, program, local[some], dtype)
                else:
                    sweep = rows_back(program, matrix_free(program), dtype)
                A[mine[some]] = sweep(local[some]).W
        return A

    def limits(self, rows: Array) -> Array:
        """Which of some rows have a slope, and so may end the region, (k,) bool. The norms are kept.

        A slope that should be zero may come out as rounding errors, which are told by their size in two
        precisions: in single they are far larger.
        """
        asked = rows[~self._steep[rows] & ~self.flat[rows]]
        for first in range(0, len(asked), _ROWS):
            block = asked[first : first + _ROWS]
            with np.errstate(over="ignore", invalid="ignore"):
                double, single = self.slopes(block), self.slopes(block, _SINGLE)
            sizes = (np.abs(slopes).sum(axis=1, dtype=_DOUBLE) for slopes in (double, single))
            gone = vanishing(*sizes)
            self.flat[block[gone]] = True
            self._steep[block[~gone]] = True
            self.norms[:, block] = dual_norms(double)
        return ~self.flat[rows]

    def _swept(self, face: int) -> tuple[LinearProgram, Leg]:
        """The program towards a face, and how its rows are swept."""
        if face not in self._legs:
            program = self.faces.towards(face)
            engines = self._engine.in_double(program, _ROWS)
            plan = plan_of(
                *(program, _ROWS, _DOUBLE),
                engines=engines,
                direction="reverse",
                limit=self._limit,
                budget=_BLOCK_BYTES,
            )
            self._legs[face] = (program, plan.legs[0])
        return self._legs[face]

    # -- questions -------------------------------------------------------------------------------------

    def radius(
        self, norm: Norm, box: tuple[Array, Array] | None, seconds: float | None, rows: int | None
    ) -> Radius:
        """The nearest boundary; see `runtime.region.Region.radius`."""
        return nearest(self, norm, box, Budget(seconds, rows))

    def along(self, direction: Array) -> tuple[Crossing, Crossing]:
        """Where the ray leaves the region, ahead and behind: margins are m + t s, s by one sweep."""
        speed = self.values(direction[None], weight=0.0)[0]
        return self._crossing(-speed), self._crossing(speed)

    def _crossing(self, closing: Array) -> Crossing:
        """The first row to be met, whose values fall at the given speeds."""
        known = not self.faces.unknown
        t, row = self.first(self.times(self.margins, closing))
        if row is None:
            return Crossing(math.inf, None, known)
        return Crossing(t, self.faces.boundary(row, float(self.margins[row])), known)

    def times(self, margins: Array, closing: Array) -> Array:
        """When each row is met, (rows,): its margin there over the speed at which its value falls."""
        falls = (closing > 0) & ~self.flat
        return np.asarray(np.divide(margins, closing, out=np.full(closing.shape, math.inf), where=falls))

    def first(self, times: Array) -> tuple[float, int | None]:
        """The earliest time of a row that has a slope, and the row; infinity and None where none is met."""
        times = times.copy()
        while len(times) and math.isfinite(times.min()):
            row = int(times.argmin())
            if self.limits(np.array([row]))[0]:
                return float(times[row]), row
            times[row] = math.inf
        return math.inf, None

    def changed(self, z: Array) -> tuple[Unit, ...]:
        """The units that choose otherwise at z than at x, but for idle ones."""
        point = {
            name: part[0].astype(self._trace.values[name].dtype)
            for name, part in unstacked(self._program, z[None]).items()
        }
        found: list[Unit] = []
        faces = {(id(face.owner), face.number): index for index, face in enumerate(self.faces.faces)}
        for owner, number, here, there in _pairs(self._program, self._look(point)):
            if here.shape != there.shape:
                found.append(Unit(owner.node, owner.op_type, number, ()))
                continue
            units = np.flatnonzero(np.ravel(here != there))
            face = faces.get((id(owner), number))
            if face is not None:
                units = self._busy(face, units)
            indices = (
                zip(*np.unravel_index(units, here.shape), strict=True) if here.shape else [()] * len(units)
            )
            found += [Unit(owner.node, owner.op_type, number, tuple(map(int, index))) for index in indices]
        return tuple(found)

    def _busy(self, face: int, units: Array) -> Array:
        """Those of a face's units whose choice depends on z.

        The others compare what is the same function all over the region, such as the outputs of dead units,
        or the same sum in two orders. What they choose is up to rounding, and makes no difference.
        """
        if not len(units):
            return units
        start = self.faces.starts[face]
        owners = self.faces.faces[face].units
        mine = np.flatnonzero(np.isin(owners, units))
        return units[np.isin(units, owners[mine][self.limits(start + mine)])]

    def crossed(self, z: Array) -> tuple[Unit, ...]:
        """The units with an inequality that does not hold strictly at z."""
        rows = np.flatnonzero((self.values(z[None], weight=1.0)[0] <= 0) & ~self.flat)
        doubtful = self.margins[rows] <= _DOUBTFUL * self.margins.max(initial=0.0)
        kept = ~doubtful
        kept[doubtful] = self.limits(rows[doubtful])
        return tuple(dict.fromkeys(self.faces.boundary(int(row), 0.0).chooser for row in rows[kept]))

    def half_spaces(self) -> Inequalities:
        """A z ≤ c; rows that do not depend on z are left out.

        Raises:
            MemoryLimitError: it says how large they would be.
        """
        if self.faces.count * self.x.size * _DOUBLE.itemsize > self._limit:
            self._require_room()
        return self._inequalities(0, self.faces.count)

    def blocks(self, rows: int) -> Iterator[Inequalities]:
        """The same in blocks of so many rows at most; several are made at once, as memory allows."""
        together = rows * max(1, _BLOCK_BYTES // max(1, rows * self.x.size * _DOUBLE.itemsize))
        for first in range(0, self.faces.count, together):
            every = self._inequalities(first, min(self.faces.count, first + together))
            for start in range(0, len(every), rows):
                yield every.select(slice(start, start + rows))

    def _inequalities(self, first: int, last: int) -> Inequalities:
        """A z ≤ c of consecutive rows of all faces."""
        if self._onward_pays(first, last):
            A, rows = self._onward(first, last), np.arange(first, last)
        else:
            rows = first + np.flatnonzero(self.most[first:last] > 0)
            A = np.negative(self.slopes(rows))
        kept = _sloping(A)
        if len(kept) < len(rows):
            A, rows = A[kept], rows[kept]
        return Inequalities(A, self.constants[rows], partial(self._boundaries, rows))

    def _onward_pays(self, first: int, last: int) -> bool:
        """Whether carrying all columns of x on to some rows is less work than sweeping the rows back."""
        on_each, spans = work_of(self.faces.program), self.faces.spans
        on = back = below = 0  # below: what one row's way back takes at most
        for step in self.faces.program.steps:
            below += sum(max(L.work, L.out_size) for _, L in step.terms)
            on += on_each[step.output]
            low, high = spans.get(step.output, (0, 0))
            back += max(0, min(last, high) - max(first, low)) * below
        return on * self.x.size <= back

    def _onward(self, first: int, last: int) -> Array:
        """A of consecutive rows, (rows, N), in one walk from x on."""
        A = np.empty((last - first, self.x.size))
        for columns, step, found in jacobians(self.faces.program):
            start, end = self.faces.spans.get(step.output, (0, 0))
            low, high = max(first, start), min(last, end)
            if low < high:
                slopes = found.whole(step.size)[low - start : high - start]
                np.negative(slopes, out=A[low - first : high - first, columns])
        return A

    def _boundaries(self, rows: Array) -> tuple[Boundary, ...]:
        """What some rows keep, in words."""
        margins = self.margins[rows]
        return tuple(
            boundary
            for face, mine in self.faces.split(rows)
            for boundary in self.faces.faces[face].boundaries(
                rows[mine] - self.faces.starts[face], margins[mine]
            )
        )

    def _require_room(self) -> None:
        """Refuse to put all half-spaces together where they would not fit."""
        size = int((self.most > 0).sum()) * self.x.size * _DOUBLE.itemsize
        if size > self._limit:
            raise MemoryLimitError(
                f"all half-spaces of the region would take {readable(size)}, over the limit of "
                f"{readable(self._limit)}; take them in blocks (region.blocks()), or raise memory_limit"
            )

    def minimal(self, every: Inequalities, progress: Progress | None = None) -> Inequalities:
        """The facets among all half-spaces."""
        return every.select(facets(every.A, every.c, self.x, progress))


def _sloping(A: Array) -> Array:
    """The rows that are not zero. Few have their first entry zero, and those alone are read."""
    zero = A[:, 0] == 0 if A.shape[1] else np.ones(len(A), bool)
    zero[zero] = ~A[zero].any(axis=1)
    return np.flatnonzero(~zero)


def vanishing(double: Array, single: Array) -> Array:
    """Where numbers are zero but for rounding: computed in single precision they are far larger, or 0 too.

    Where single precision overflows, nobody can tell, and they are taken for what they are.
    """
    return (np.abs(double) <= _VANISHES * np.abs(single)) & np.isfinite(single)


def _pairs(at_x: LinearProgram, at_z: LinearProgram) -> Iterator[tuple[Step | Discrete, int, Array, Array]]:
    """Every guard's owner, its number there, and its choices at both points."""
    for here, there in zip(at_x.choosers, at_z.choosers, strict=True):
        for number, (first, second) in enumerate(zip(here.guards, there.guards, strict=True)):
            yield here, number, np.asarray(first.choice), np.asarray(second.choice)
