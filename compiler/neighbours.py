"""Fresh points in the linear region of x, to test a map where it was not made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import Discrete, Guard, LinearProgram, Step
from ..runtime.rounding import Arithmetic, running_errors
from .trace import Trace, all_finite

Point = Mapping[str, Array]
_TRIALS = 12


@dataclass(frozen=True)
class Neighbour:
    """A fresh point of x's region."""

    point: Point
    trace: Trace
    allowance: Mapping[str, Array]  # step output to what units at the edge of rounding add to the error

    def ends(self, program: LinearProgram) -> Neighbour:
        """The same without the tensors that were observed between what goes in and what comes out."""
        values = {name: self.trace.values[name] for name, _ in (*program.inputs, *program.outputs)}
        return replace(self, trace=replace(self.trace, values=values))


Look = Callable[[Point], tuple[Trace, LinearProgram] | None]
Compare = Callable[[Point, LinearProgram], Mapping[str, Array] | None]


def find_neighbours(
    program: LinearProgram,
    trace: Trace,
    look: Look,
    dtype: np.dtype[Any],
    arithmetic: Arithmetic,
    count: int,
    *,
    behind: int = 0,
) -> list[Neighbour | None]:
    """Find fresh points of x's region by stepping along directions, nearer until the pattern is x's.

    First no unit may choose differently than at x. Where that finds too few points, units whose margin is
    below the rounding error, such as differences of two equal terms, may.

    Args:
        program: the network at x.
        trace: x.
        look: observes and lowers the model at another point; None where a value is not finite there.
        dtype: floating type of the program.
        arithmetic: the coarser of the model's and the program's.
        count: how many points are wanted.
        behind: directions at the beginning that were tried before, to go on behind them.

    Returns:
        The point found along each direction tried, None along one without any.
    """

    def strictly(_: Point, other: LinearProgram) -> Mapping[str, Array] | None:
        return {} if first_change(program, other) == 1 else None

    def within_rounding(z: Point, other: LinearProgram) -> Mapping[str, Array] | None:
        return same_piece(program, other, z, dtype, arithmetic)

    start = _first_length(program)
    looked: list[Neighbour | None] = []
    tried = 0
    for compare, least in ((strictly, 0.0), (within_rounding, 0.2)):
        for direction in directions(trace.free(program), seed=tried):
            tried += 1
            if tried <= behind:
                continue
            looked.append(_along(direction, program, trace, look, compare, least, start))
            count -= looked[-1] is not None
            if not count:
                return looked
    return looked


def _first_length(program: LinearProgram) -> float:
    """A step that probably changes no unit, as a fraction of x's own size: half of one where no unit chooses.

    A change of x by its own size changes what units compare by about its own size. So the unit whose margin
    is the smallest, in parts of its node's, is about the first to change.
    """
    nearest = 1.0
    for _, guard in program.guarded:
        margin = guard.margin.ravel()
        if margin.size and not margin.min() > 0:
            margin = margin[margin > 0]  # neither ties nor what is not known
        if margin.size:
            parts = margin / margin.max()  # whose squares do not vanish where margins are tiny
            usual = float(np.linalg.norm(parts)) / math.sqrt(margin.size)
            nearest = min(nearest, float(parts.min()) / usual)
    return 0.5 * nearest


def _along(
    direction: Point,
    program: LinearProgram,
    trace: Trace,
    look: Look,
    compare: Compare,
    least: float,
    start: float,
) -> Neighbour | None:
    """The first point along a direction that is of x's region, each trial nearer to x than the last.

    The first trial goes as far as `start`. The next one goes half-way to where the first unit would change if
    all of them changed linearly, and at least the fraction `least` of the last.
    """
    x = trace.free(program)
    length = start if _moved(x, direction, start) else 0.5
    for _ in range(_TRIALS):
        z = _moved(x, direction, length)
        if z is None:
            return None  # the region is thinner than the spacing of floating-point numbers this way
        seen = look(z) if all(all_finite(value) for value in z.values()) else None
        if seen is None:
            length *= 0.1
            continue
        there, other = seen
        allowance = compare(z, other)
        if allowance is not None:
            return Neighbour(z, there, allowance)
        length *= max(0.5 * first_change(program, other), least)
    return None


def _moved(x: Point, direction: Point, length: float) -> Point | None:
    """A point along a direction; None where it is x itself."""
    z = {name: (value + length * direction[name]).astype(value.dtype) for name, value in x.items()}
    return None if all(np.array_equal(z[name], x[name]) for name in x) else z


def first_change(at_x: LinearProgram, at_z: LinearProgram) -> float:
    """Fraction of the way from x to z at which the first unit changes its choice, if its margin is linear.

    1 where none changes. Ties at x count only where nothing else changes: a window of dead units is a tie
    that ends when one of them comes alive, which has a margin of its own; 0 where they do count.
    """
    ways: list[float] = []
    changes = False
    for (_, here), (_, there) in zip(at_x.guarded, at_z.guarded, strict=True):
        if np.array_equal(here.choice, there.choice):
            continue
        changes = True
        if here.choice.shape != there.choice.shape or np.isnan(here.margin).any():
            ways.append(0.5)  # nobody knows where: half-way
            continue
        changed = (here.choice != there.choice) & (here.margin > 0)
        if changed.any():
            before, after = here.margin[changed], there.margin[changed]
            ways.append(float((before / (before + after)).min()))
    return min(ways, default=0.0) * 0.999 if changes else 1.0


def _mean_size(value: Array) -> float:
    """Mean of the absolute values; 0 of none."""
    return float(np.abs(value.astype(np.float64)).mean()) if value.size else 0.0


def directions(x: Point, seed: int) -> Iterator[Point]:
    """Directions of several families, along and against, as some regions are flat in most of them.

    Where x is zero over a wide area, pre-activations often sit exactly on a kink there, and only a change
    of the other entries stays inside. Families: every entry moves; entries move in proportion to x; x as a
    whole is scaled. Lengths are such that a step of 1 changes x by about its own size.
    """
    random = np.random.default_rng(seed)
    noise = {name: random.standard_normal(value.shape) for name, value in x.items()}
    families: list[Callable[[str], Array]] = [
        lambda name: noise[name] * (_mean_size(x[name]) or 1.0),
        lambda name: noise[name] * x[name],
        lambda name: np.asarray(x[name], float),
    ]
    for family in families:
        direction = {name: family(name) for name in x}
        yield direction
        yield {name: -value for name, value in direction.items()}


def same_piece(
    at_x: LinearProgram, at_z: LinearProgram, z: Point, dtype: np.dtype[Any], arithmetic: Arithmetic
) -> dict[str, Array] | None:
    """Compare the choices that the model made at x and at z.

    Returns:
        None where they differ. Units whose margin at z is below the rounding error there may differ, as
        neither choice is certain; what the other choice would change of their step's output is returned,
        by step output, (1, *shape).
    """
    pairs = list(zip(at_x.guarded, at_z.guarded, strict=True))
    changed = [
        owner for (owner, first), (_, second) in pairs if not np.array_equal(first.choice, second.choice)
    ]
    allowance: dict[str, Array] = {}
    if not changed:
        return allowance
    shapes = ((one.shape, other.shape) for one, other in zip(at_x.steps, at_z.steps, strict=True))
    if any(isinstance(owner, Discrete) for owner in changed) or any(here != there for here, there in shapes):
        return None  # a jump, or another number of entries, is no error of rounding
    differing = {owner.output for owner in changed if isinstance(owner, Step)}
    block = {name: value[None].astype(dtype) for name, value in z.items()}
    walk = zip(running_errors(at_x, block, arithmetic), at_z.steps, strict=True)
    for (step, values, errors), other in walk:
        if step.output not in differing:
            continue
        if not all(
            _in_doubt(step, first, second, errors)
            for first, second in zip(step.guards, other.guards, strict=True)
        ):
            return None
        apart = np.abs(values[step.output] - other.apply(values, np.ones(1, dtype)))
        allowance[step.output] = apart + _wavering(step, other, errors)
        if not all_finite(allowance[step.output]):
            return None  # nothing is known of rounding that leaves the type's range
    return allowance


def _wavering(step: Step, other: Step, errors: Mapping[str, Array]) -> Array:
    """What errors of the operands may add to the distance of two choices, where they differ, (1, *shape).

    The distance is taken at values that are ours; onnxruntime's differ from them by rounding.
    """
    pairs = zip(step.guards, other.guards, strict=True)
    changed = [np.asarray(first.choice != second.choice) for first, second in pairs]
    if all(one.size == step.size for one in changed):
        where = np.logical_or.reduce([one.reshape(step.shape) for one in changed])
    else:  # such as one bound for all entries
        where = np.ones(step.shape, bool)
    sizes = [L.magnitude().apply(errors[name]) for one in (step, other) for name, L in one.terms]
    return np.asarray(where * sum(sizes, np.zeros((1, *step.shape))))


def _in_doubt(step: Step, first: Guard, second: Guard, errors: Mapping[str, Array]) -> bool:
    """Whether every unit that chose differently has a margin within rounding, where one can tell."""
    changed = np.ravel(first.choice != second.choice)
    if not changed.any():
        return True
    doubt = np.zeros(())
    for position, L in first.half_spaces().terms:
        name = step.operands[position]
        assert name is not None
        doubt = doubt + L.magnitude().apply(errors[name])[0]
    if doubt.size != changed.size:  # pairs within windows, not one half-space for each unit
        return False
    return bool((np.ravel(second.margin)[changed] <= np.ravel(doubt)[changed]).all())
