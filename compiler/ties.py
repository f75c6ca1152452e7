"""Ties at x: which of them matter, and the map of the region that a direction enters from x.

A unit ties where the value of its own half-space aᵀ(z - x) + m is m = 0. Whether that matters is settled by
two walks through the network in which every tie may go either way. Forward: does its slope a stay 0, whatever
the ties before it choose? Back: can any row that was asked for depend on the unit, whatever those behind it
choose? Directions resolve the others. With s the derivative of a node's inputs along one, the node chooses as
at u + t s for t → 0, so it is lowered anew at values in the order of the pairs (u, s): see `nudged`.

That is the directional derivative of piecewise-differentiable functions, in execution order: S. Scholtes,
Introduction to Piecewise Differentiable Equations (2012), §3; A. Griewank, On stable piecewise linearization
and generalized algorithmic differentiation (2013).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice

import numpy as np

from ..runtime.errors import MemoryLimitError, UnsupportedError
from ..runtime.operator import unstacked, walked
from ..runtime.primitives import Array, Primitive, Shape
from ..runtime.program import Discrete, LinearProgram, Step
from ..runtime.ties import STILL, UNFELT, OneSided, Side, Tie, TiedNode, Ties
from .answer import Asked
from .compose import Composed, compose
from .engine import Engine
from .faces import Face, faces_of, joined
from .lower import relowered
from .plan import plan_of
from .region import Survey, vanishing
from .scope import Scope
from .verdict import Verdict

_DOUBLE = np.dtype(np.float64)
_SEED = 20_260_729
_LISTED = 1000  # ties by name at most
_NOISE = 2.0**-40  # of the largest derivative around: what is smaller may be rounding in float64
_SAME = 2.0**-30  # of a row's largest entry: rows of W that differ by less are the same but for rounding
_TINY = 2.0**-300  # by which a value of 0 is moved: far below every other value
_ROWS, _ENTRIES = 2000, 4_000_000  # of the linear program for `genuine`, at most
_INTERIOR = 1e-6  # the least slope along a witness, of rows of length 1; HiGHS' own tolerance is 1e-7


def examine(survey: Survey, scope: Scope, asked: Asked, engine: Engine, limit: int) -> Ties:
    """The ties of one point.

    Args:
        survey: the geometry at the point, of the choices with ties alone.
        scope: what depends on x there.
        asked: the point, and the rows of W that count.
        engine: for sweeps.
        limit: bytes that W may take in float64.
    """
    resolved = Resolver(survey, scope, asked, engine, limit)
    nodes, units = resolved.nodes(), resolved.units()
    shapes = dict(survey.program.inputs)
    if not any(node.matter for node in nodes):
        return Ties(nodes, units, (), True, shapes, resolved)
    way = resolved.generic[0]
    sides = (resolved.side(way), resolved.side(-way))
    genuine, witness = resolved.genuine(sides)
    return Ties(nodes, units, sides, genuine, shapes, resolved, witness)


@dataclass(frozen=True)
class _Tied:
    """One face's ties."""

    tied: Array  # (units,) bool: those that sit on a kink
    moving: Array  # (units,) bool: those of them that may move with x
    steep: Array  # (rows,) bool: tied rows whose slope is not zero, as the reported choices are


class Resolver:
    """The ties of one point, and what resolves them."""

    def __init__(self, survey: Survey, scope: Scope, asked: Asked, engine: Engine, limit: int) -> None:
        """Prepare it; see `examine`."""
        self._survey, self._scope, self._engine, self._limit = survey, scope, engine, limit
        self._program, self._trace, self._rows = survey.program, asked.trace, asked.rows
        self._faces, self._starts = survey.faces.faces, survey.faces.starts
        self._made_by: dict[str, list[int]] = {}  # faces of the step that gives a tensor
        for number, face in enumerate(self._faces):
            if isinstance(face.owner, Step):
                self._made_by.setdefault(face.owner.output, []).append(number)

    # -- which ties matter -----------------------------------------------------------------------------

    @cached_property
    def generic(self) -> Array:
        """Two fixed directions in general position, of about x's size, (2, N).

        What has no derivative along either has the slope 0.
        """
        size = float(np.abs(self._survey.x).mean()) or 1.0
        return size * np.random.default_rng(_SEED).standard_normal((2, self._survey.x.size))

    @cached_property
    def found(self) -> list[_Tied]:
        """The ties of each face, by one walk forward.

        It carries of each tensor the derivatives along generic directions in two precisions, as the reported
        choices are; where it may depend on x at all; and where on what a moving tie chooses.
        """
        if not self._faces:
            return []
        program, judged = self._program, dict[int, _Tied]()
        numbers = {face.step.output: number for number, face in enumerate(self._faces)}
        double = unstacked(program, self.generic)
        single = {name: value.astype(np.float32) for name, value in double.items()}
        wide = {name: np.ones((1, *shape)) for name, shape in program.inputs}
        doubt = {name: np.zeros((1, *shape)) for name, shape in program.inputs}
        carried = (double, single, wide, doubt)
        whole = joined(program, self._faces)
        last = whole.last_uses()
        for position, step in enumerate(whole.steps):
            with np.errstate(over="ignore", invalid="ignore"):
                double[step.output] = step.apply(double, np.zeros(2))
                single[step.output] = step.apply(single, np.zeros(2, np.float32))
            sizes = [(name, L.magnitude()) for name, L in step.terms]
            for mask in (wide, doubt):
                mask[step.output] = _touched(sizes, mask, step.shape)
            number = numbers.get(step.output)
            if number is not None:
                judged[number] = self._judged(number, *(values.pop(step.output) for values in carried))
            for mine in self._made_by.get(step.output, ()):
                chosen = _elements(self._faces[mine], judged[mine].moving, step.shape)
                for mask in (wide, doubt):
                    mask[step.output] = np.maximum(mask[step.output], chosen)
            for name in last.get(position, ()):
                for values in carried:
                    values.pop(name, None)
        return [judged[number] for number in range(len(self._faces))]

    def _judged(self, number: int, double: Array, single: Array, wide: Array, doubt: Array) -> _Tied:
        """One face, from what is carried of its half-spaces, (2 or 1, *shape) each."""
        face = self._faces[number]
        on_kink = np.ravel(face.guard.margin == 0)
        rows = self._survey.tied[self._starts[number] : self._starts[number + 1]] & on_kink[face.units]
        sizes = (np.abs(slopes).max(axis=0).ravel() for slopes in (double, single))
        level = vanishing(*sizes)
        moves = rows & (wide.ravel() > 0) & ~(level & (doubt.ravel() == 0))
        moving = np.zeros(on_kink.size, bool)
        moving[face.units[moves]] = True
        return _Tied(on_kink, moving, rows & ~level)

    @cached_property
    def matter(self) -> list[Array]:
        """The units of each face whose tie may matter, (units,) bool: moving, and some row may feel it.

        By one walk back from the rows, on which a tie that may go either way passes what either needs.
        """
        program = self._program
        felt = [one.moving.copy() for one in self.found]  # a jump is taken to be felt
        if not any(moving.any() for moving in felt):
            return felt
        needed: dict[str, Array] = {}
        asked = np.zeros(program.out_size)
        asked[self._rows] = 1
        ends = np.cumsum([math.prod(shape) for _, shape in program.outputs])
        for (name, shape), part in zip(program.outputs, np.split(asked, ends[:-1]), strict=True):
            mask = part.reshape(1, *shape)
            needed[name] = np.maximum(needed[name], mask) if name in needed else mask
        for step in reversed(program.steps):
            reached = needed.pop(step.output, None)
            for number in self._made_by.get(step.output, ()):
                face = self._faces[number]
                felt[number] &= reached is not None and _at_units(face, reached)
                own = felt[number][face.units].reshape(1, *face.step.shape)
                _pass_back(face.step, own.astype(_DOUBLE), needed)
            if reached is not None:
                _pass_back(step, reached, needed)
        return felt

    def nodes(self) -> tuple[TiedNode, ...]:
        """The ties of each node, counted."""
        nodes = []
        for face, found, matter in zip(self._faces, self.found, self.matter, strict=True):
            if found.tied.any():
                counts = (found.tied, found.tied & ~found.moving, found.moving & ~matter)
                name = (face.owner.node, face.owner.op_type, face.number, convention(face))
                nodes.append(TiedNode(*name, *(int(np.count_nonzero(mask)) for mask in counts)))
        return tuple(nodes)

    def units(self) -> tuple[Tie, ...]:
        """The ties by name, those that matter first, up to a number."""
        every = list(zip(self._faces, self.found, self.matter, strict=True))
        listed = chain(
            (tie for face, _, matter in every for tie in _ties(face, matter, "")),
            (tie for face, found, matter in every for tie in _ties(face, found.moving & ~matter, UNFELT)),
            (tie for face, found, _ in every for tie in _ties(face, found.tied & ~found.moving, STILL)),
        )
        return tuple(islice(listed, _LISTED))

    # -- resolved along a direction --------------------------------------------------------------------

    def along(self, direction: Array) -> OneSided:
        """See `runtime.ties.Ties.along`."""
        program, turned = self._entered(direction)
        composed = self._composed(program, self._rows)
        return OneSided(composed.W, composed.b, turned)

    def side(self, direction: Array) -> Side:
        """How W differs from the reported one along a direction."""
        try:
            program, turned = self._entered(direction)
        except UnsupportedError as error:
            return Side(0, (), None, None, str(error))
        there, here = (self._probed(one) for one in (program, self._program))
        changed = np.flatnonzero((there != here).any(axis=0))  # where a row is the same, so is its arithmetic
        rows = tuple(map(int, changed))
        try:
            new, own = (self._composed(one, self._rows[changed]) for one in (program, self._program))
        except MemoryLimitError:
            return Side(turned, rows, None, None)
        entries = np.maximum(np.abs(new.W), np.abs(own.W))
        slopes, offsets = np.abs(new.W - own.W).max(axis=1, initial=0.0), np.abs(new.b - own.b)
        terms = np.maximum(np.abs(new.b), np.abs(own.b)) + entries @ np.abs(self._survey.x)
        others = (slopes > _SAME * entries.max(axis=1, initial=0.0)) | (offsets > _SAME * terms)
        change, offset = (float(size[others].max(initial=0.0)) for size in (slopes, offsets))
        return Side(turned, tuple(map(int, changed[others])), change, offset)

    def _probed(self, program: LinearProgram) -> Array:
        """The rows' derivatives along a generic direction, and their values at x, (2, K)."""
        blocks = ((self.generic[1:], 0.0), (self._survey.x[None], 1.0))
        found = [walked(program, unstacked(program, block), weight) for block, weight in blocks]
        return np.concatenate(found)[:, self._rows]

    def genuine(self, sides: Sequence[Side]) -> tuple[bool | None, Array | None]:
        """Whether the choices at x are those of a region, with a direction that enters it if there is one.

        They are where some direction keeps all of them: a linear program over the slopes of the ties.
        """
        for side, sign in zip(sides, (1.0, -1.0), strict=True):
            if not side.rows and not side.note:
                return True, sign * self.generic[0]
        kept = [
            start + np.flatnonzero(found.steep & matter[face.units])
            for start, face, found, matter in zip(
                self._starts[:-1], self._faces, self.found, self.matter, strict=True
            )
        ]
        rows = np.concatenate(kept)
        if len(rows) > _ROWS or len(rows) * self._survey.x.size > _ENTRIES:
            return None, None
        witness = inner_direction(self._survey.slopes(rows))
        if witness is not None:
            return True, witness
        jumps = any(
            isinstance(face.owner, Discrete) and matter.any()
            for face, matter in zip(self._faces, self.matter, strict=True)
        )
        return (None if jumps else False), None

    def _composed(self, program: LinearProgram, rows: Array) -> Composed:
        """Rows of a program in float64.

        Raises:
            MemoryLimitError: they would not fit.
        """
        engines = self._engine.in_double(program, len(rows))
        plan = plan_of(program, len(rows), _DOUBLE, engines=engines, limit=self._limit)
        plan.require_fit()
        return compose(program, rows, plan, self._engine, _DOUBLE)

    def _entered(self, direction: Array) -> tuple[LinearProgram, int]:
        """The network on the side of x that a direction enters, and how many units choose otherwise there.

        Raises:
            UnsupportedError: it jumps there, or the sides cannot be told apart.
        """
        ways = unstacked(self._program, np.stack([direction, self.generic[1]]))
        steps, turned = [], 0
        for step in self._program.steps:
            there = step
            if any(self.found[number].moving.any() for number in self._made_by.get(step.output, ())):
                there, others = self._resolved(step, ways)
                turned += others
            ways[step.output] = there.apply(ways, np.zeros(2))
            steps.append(there)
        for number, face in enumerate(self._faces):
            if isinstance(face.owner, Discrete) and self.found[number].moving.any():
                self._require_no_jump(number, ways)
        return replace(self._program, steps=tuple(steps)), turned

    def _resolved(self, step: Step, ways: Mapping[str, Array]) -> tuple[Step, int]:
        """A step as its node is lowered on that side, and how many of its units choose otherwise.

        Raises:
            UnsupportedError: the choices made there are not those of the derivatives.
        """
        use = self._uses[step.output]
        moving = {
            name: ways[name] for i, name in enumerate(use.node.inputs) if name in ways and i not in use.held
        }
        values = {name: self._value(name, way.shape[1:]) for name, way in moving.items()}
        lowered = relowered(use, self._scope, self._trace, nudged(values, moving))
        there = next(one for one in lowered if one.output == step.output)
        turned, unlike = 0, False
        for before, after in zip(step.guards, there.guards, strict=True):
            others = np.ravel(before.choice != after.choice)
            turned += int(np.count_nonzero(others))
            unlike |= bool((others & np.ravel(before.margin != 0)).any())
        inputs = tuple((name, value.shape) for name, value in values.items())
        for face in faces_of(LinearProgram(inputs, (), (there,))).faces:
            at_x = face.step.apply({name: value[None] for name, value in values.items()}, np.ones(1))
            unlike |= bool((_leaving(face, moving) & (at_x[0] == 0)).any())
        if unlike:
            raise UnsupportedError(
                f"node {step.node!r} ({step.op_type}): what it chooses next to x cannot be told from the "
                "derivatives of its inputs; linearize at a point a little off x instead"
            )
        return there, turned

    def _value(self, name: str, shape: Shape) -> Array:
        """A tensor at x in float64; zeros where no rule reads it."""
        value = self._trace.values.get(name)
        return np.zeros(shape) if value is None else np.asarray(value, _DOUBLE)

    def _require_no_jump(self, number: int, ways: Mapping[str, Array]) -> None:
        """Refuse a direction along which a locally constant node jumps at x."""
        face, moving = self._faces[number], self.found[number].moving
        on_kink = self._survey.tied[self._starts[number] : self._starts[number + 1]] & moving[face.units]
        read = {name: ways[name] for name, _ in face.step.terms}
        if (_leaving(face, read).ravel() & on_kink).any():
            raise UnsupportedError(
                f"node {face.owner.node!r} ({face.owner.op_type}) jumps at x in this direction, so no map "
                "continues the one at x; linearize at a point a little off x instead"
            )

    @cached_property
    def _uses(self) -> dict[str, Verdict]:
        return {name: use for use in self._scope.uses for name in use.varying if name}


def nudged(values: Mapping[str, Array], ways: Mapping[str, Array]) -> dict[str, Array]:
    """Numbers in the order of the tensors' values, and equal ones in that of their derivatives.

    What compares them chooses as at u + t s₁ + t² s₂ for t → 0. An entry moves from its value u by whole
    spacings of float64, as many as there are different derivatives between its own and 0 among the entries of
    value u; so it stays where its derivatives are 0. Different values of float32 are 2²⁹ of those apart.

    Args:
        values: name to the values u at x, float64.
        ways: name to their derivatives (s₁, s₂), (2, *shape).
    """
    u = np.concatenate([value.ravel() for value in values.values()])
    s = np.concatenate([ways[name].reshape(2, -1) for name in values], axis=1)
    levels, level = np.unique(u, return_inverse=True)
    place = np.concatenate([level, np.arange(len(levels))])  # behind, for each level, what does not move
    for way, largest in zip(s, _largest(s), strict=True):
        place = _refined(place, np.concatenate([way, np.zeros(len(levels))]), _NOISE * largest)
    moves = place[: u.size] - place[u.size :][level]
    moved = u + moves * np.where(u == 0, _TINY, np.spacing(np.abs(u)))
    ends = np.cumsum([value.size for value in values.values()])[:-1]
    parts = np.split(moved, ends)
    return {
        name: part.reshape(value.shape) for (name, value), part in zip(values.items(), parts, strict=True)
    }


def _refined(place: Array, way: Array, noise: float) -> Array:
    """Ranks in the order of ranks so far and then of derivatives, equal where those are but for noise."""
    order = np.lexsort((way, place))
    rises = (np.diff(place[order]) > 0) | (np.diff(way[order]) > noise)
    ranks = np.empty_like(place)
    ranks[order] = np.concatenate([[0], np.cumsum(rises)])
    return ranks


def inner_direction(A: Array) -> Array | None:
    """A direction d with A d > 0, or None where there is none, (rows, N) to (N,).

    The one along which the least slope is largest, of rows of length 1 and |dⱼ| ≤ 1.
    """
    from scipy.optimize import linprog

    N, length = A.shape[1], np.linalg.norm(A, axis=1)
    A = A[length > 0] / length[length > 0, None]
    goal = np.append(np.zeros(N), -1.0)
    bounds = [*([(-1, 1)] * N), (None, 1)]
    solved = linprog(
        goal, np.column_stack([-A, np.ones(len(A))]), np.zeros(len(A)), bounds=bounds, method="highs"
    )
    return None if solved.x is None or solved.x[-1] <= _INTERIOR else np.asarray(solved.x[:-1])


def convention(face: Face) -> str:
    """By which rule a face's ties were decided."""
    owner, choice = face.owner, face.guard.choice
    if isinstance(owner, Discrete):
        return "a jump: the output is the one at x itself"
    if owner.op_type in _OWN:
        return _OWN[owner.op_type]
    if choice.dtype == bool:
        return "a kink belongs to the piece below it"
    return "the first of equal entries wins"


_OWN = {
    "Mod": "an exact multiple belongs to the piece that it starts",
    "Shrink": "both ends belong to the piece between them",
}


def _ties(face: Face, units: Array, harmless: str) -> Iterator[Tie]:
    """Some units of a face by name."""
    shape = face.guard.choice.shape
    for unit in np.flatnonzero(units):
        index = tuple(int(i) for i in np.unravel_index(unit, shape)) if shape else ()
        yield Tie(face.owner.node, face.owner.op_type, face.number, index, convention(face), harmless)


def _touched(terms: Sequence[tuple[str, Primitive]], masks: Mapping[str, Array], shape: Shape) -> Array:
    """Which elements of Σ |Lᵢ| uᵢ can be nonzero where the uᵢ can be, 1 or 0 each, (1, *shape)."""
    total = np.zeros((1, *shape))
    for name, L in terms:
        total = total + (L.apply(masks[name]) > 0)
    return (total > 0).astype(_DOUBLE)


def _pass_back(step: Step, mask: Array, needed: dict[str, Array]) -> None:
    """Add to `needed` what the masked elements of a step's output depend on."""
    for name, L in step.terms:
        part = (L.magnitude().T.apply(mask) > 0).astype(_DOUBLE)
        needed[name] = np.maximum(needed[name], part) if name in needed else part


def _elements(face: Face, units: Array, shape: Shape) -> Array:
    """The elements of a node's output that some of a face's units decide, (1, *shape), 1 or 0 each.

    All of them where the choice is not shaped as the output.
    """
    if face.guard.choice.shape == shape:
        return units.reshape(1, *shape).astype(_DOUBLE)
    return np.full((1, *shape), float(units.any()))


def _at_units(face: Face, mask: Array) -> Array:
    """The units of a face that decide masked elements, (units,) bool; the inverse of `_elements`."""
    if face.guard.choice.shape == mask.shape[1:]:
        return mask.ravel() > 0
    return np.full(face.guard.choice.size, bool(mask.any()))


def _leaving(face: Face, ways: Mapping[str, Array]) -> Array:
    """The rows of a face whose values fall along s₁, or stay along s₁ and fall along s₂, (*shape) bool.

    Derivatives are 0 where they are but for rounding, as in `nudged`.
    """
    slopes = face.step.apply(ways, np.zeros(2))
    sizes = np.zeros_like(slopes)
    largest = _largest(np.concatenate([way.reshape(2, -1) for way in ways.values()], axis=1))
    for _, L in face.step.terms:
        sizes += L.magnitude().apply(np.ones((2, *L.in_shape)) * largest.reshape(2, *(1,) * len(L.in_shape)))
    first, second = slopes * (np.abs(slopes) > _NOISE * sizes)
    return np.asarray((first < 0) | ((first == 0) & (second < 0)))


def _largest(ways: Array) -> Array:
    """The size of derivatives that others are rounding beside, (2, size) to (2,)."""
    return np.asarray(np.abs(ways).max(axis=1, initial=0.0))
