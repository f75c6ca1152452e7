"""LinearProgram: the network at x as data, y = Σ Lₖ xₖ + c step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from .primitives import Array, Primitive, Shape


class Kind(StrEnum):
    """How far an answer holds. Ordered: the kind of a program is the largest of its steps'."""

    AFFINE = "affine"  # everywhere
    PIECEWISE_LINEAR = "piecewise-linear"  # on the region that the guards describe
    LOCALLY_CONSTANT = "locally constant"  # W = 0 around x
    SMOOTH = "smooth"  # at x only


@dataclass(frozen=True)
class HalfSpaces:
    """Affine inequalities Σ Lᵢ uᵢ + c ≥ 0 on a node's inputs uᵢ; rows are flat."""

    terms: tuple[tuple[int, Primitive], ...]  # (input position, primitive); a position may come twice
    offset: Array | float = 0.0
    units: Array | None = None  # (rows,) flat unit that each keeps; None: row r is of unit r mod their number


@dataclass(frozen=True)
class Guard:
    """One discrete choice that a node made at x, for each of its units, and what keeps it.

    `choice` is compared between points: equal choices, same linear piece. The margins and the
    half-spaces are for verification only, so they are worked out when first read.
    """

    choice: Array
    margins: Callable[[], Array]
    half_spaces: Callable[[], HalfSpaces]

    @cached_property
    def margin(self) -> Array:
        """How far each unit is from its nearest change, in the units of the compared values; 0 is a tie.

        NaN where that is not known.
        """
        return self.margins()

    @property
    def ties(self) -> int:
        """Units that sit exactly on a kink."""
        return int(np.count_nonzero(self.margin == 0))


@dataclass(frozen=True)
class Step:
    """output = Σ Lᵢ inputᵢ + offset."""

    output: str
    shape: Shape
    node: str
    op_type: str
    kind: Kind
    terms: tuple[tuple[str, Primitive], ...]
    offset: Array | None = None  # broadcastable to shape; None is zero
    guards: tuple[Guard, ...] = ()
    offset_size: Array | None = None  # Σ |parts| of the offset, which its rounding is measured against
    fixed: bool = False  # whether it is the same at every point
    rounds: bool = False  # whether the output is stored in another floating type than it comes in
    operands: tuple[str | None, ...] = ()  # the node's inputs, which half-spaces refer to by position
    frozen: bool = False  # whether something that depends on x is held: the terms are no derivative
    roundings: int = 0  # further roundings behind one output
    slack: Array | None = None  # how far the node's output may be from this by design, broadcastable to shape

    def apply(self, values: Mapping[str, Array], homogeneous: Array) -> Array:
        """Evaluate the step on blocks of its inputs.

        Args:
            values: tensor name to (B, *shape), the step's inputs among them.
            homogeneous: (B,) weights of the offset, in the floating type of the result.

        Returns:
            (B, *shape).
        """
        block: Array | None = None
        for name, L in self.terms:
            part = L.apply(values[name])  # possibly a view of the input, so that nothing is added in place
            block = part if block is None else block + part
        if block is None:
            block = np.zeros((len(homogeneous), *self.shape), homogeneous.dtype)
        if self.offset is not None and homogeneous.any():
            weights = homogeneous.reshape(-1, *(1,) * len(self.shape))
            block = block + (weights * self.offset).astype(homogeneous.dtype, copy=False)
        return block

    def offset_block(self) -> Array | None:
        """The offset in the output's own shape, (*shape), or None."""
        return None if self.offset is None else np.broadcast_to(self.offset, self.shape)

    @property
    def size(self) -> int:
        """Elements of the output."""
        return math.prod(self.shape)

    @cached_property
    def fan_in(self) -> int:
        """Products summed into one output at most, the offset and further roundings counted in."""
        products = sum(L.fan_in for _, L in self.terms) + len(self.terms) - 1 + (self.offset is not None)
        return products + self.roundings

    @cached_property
    def outline(self) -> Outline:
        """The step without the values that a point decides."""
        return Outline(
            self.output,
            self.shape,
            self.kind,
            tuple((name, L.in_shape if self.fixed else L.structure()) for name, L in self.terms),
            None if self.offset is None else self.offset.shape,
            self.fan_in > 0 or self.rounds or self.slack is not None,
        )


@dataclass(frozen=True)
class Discrete:
    """A locally constant node that reads what depends on x, and what keeps its outputs as they are."""

    node: str
    op_type: str
    guards: tuple[Guard, ...]
    operands: tuple[str | None, ...]  # the node's inputs, which half-spaces refer to by position


class Outline(NamedTuple):
    """What steps of the same shapes have in common at every point."""

    output: str
    shape: Shape
    kind: Kind
    terms: tuple[tuple[str, Hashable], ...]  # tensor and the structure of the primitive
    offset: Shape | None
    rounds: bool  # whether evaluating the step makes errors of its own, or is off by design


Puts = tuple[tuple[str, Shape], ...]  # tensors and their shapes


@dataclass(frozen=True)
class Layout:
    """What follows from the outlines of a program's steps, worked out once for all points."""

    inputs: Puts
    outputs: Puts
    outlines: tuple[Outline, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.inputs, self.outputs, self.outlines))

    @cached_property
    def in_size(self) -> int:
        """N: elements of all inputs."""
        return sum(math.prod(shape) for _, shape in self.inputs)

    @cached_property
    def out_size(self) -> int:
        """Elements of all outputs."""
        return sum(math.prod(shape) for _, shape in self.outputs)

    @cached_property
    def kind(self) -> Kind:
        """The kind of the whole map."""
        kinds = {outline.kind for outline in self.outlines}
        if Kind.SMOOTH in kinds:
            return Kind.SMOOTH
        if not self._moved:
            return Kind.LOCALLY_CONSTANT
        return Kind.PIECEWISE_LINEAR if Kind.PIECEWISE_LINEAR in kinds else Kind.AFFINE

    @cached_property
    def leading(self) -> str:
        """The output that is explained where nobody names one: the first with a path from an input."""
        return next(iter(self._moved), self.outputs[0][0])

    @cached_property
    def _moved(self) -> tuple[str, ...]:
        """The outputs with a path from an input."""
        reached = {name for name, _ in self.inputs}
        for outline in self.outlines:
            if any(name in reached for name, _ in outline.terms):
                reached.add(outline.output)
        return tuple(name for name, _ in self.outputs if name in reached)

    @cached_property
    def slots(self) -> frozenset[str]:
        """Outputs of the steps that make rounding errors of their own, and the program's."""
        rounding = {outline.output for outline in self.outlines if outline.rounds}
        return frozenset(rounding.union(name for name, _ in self.outputs))

    @cached_property
    def last_uses(self) -> Mapping[int, Sequence[str]]:
        """Step position to the tensors that no later step reads, the outputs left out."""
        last: dict[str, int] = {}
        for position, outline in enumerate(self.outlines):
            for name, _ in outline.terms:
                last[name] = position
        freed: dict[int, list[str]] = {}
        for name, position in last.items():
            if name not in dict(self.outputs):
                freed.setdefault(position, []).append(name)
        return freed


@lru_cache(maxsize=64)
def _layout(inputs: Puts, outputs: Puts, outlines: tuple[Outline, ...]) -> Layout:
    return Layout(inputs, outputs, outlines)


@dataclass(frozen=True)
class LinearProgram:
    """Steps in execution order, from the inputs' tensors to the outputs'."""

    inputs: Puts
    outputs: Puts
    steps: tuple[Step, ...]
    discrete: tuple[Discrete, ...] = ()  # nodes on the way that x moves only by jumps

    @cached_property
    def layout(self) -> Layout:
        """What the program has in common with those at other points; the same object for all of them."""
        return _layout(self.inputs, self.outputs, tuple(step.outline for step in self.steps))

    @property
    def in_size(self) -> int:
        """N: elements of all inputs."""
        return self.layout.in_size

    @property
    def out_size(self) -> int:
        """Elements of all outputs."""
        return self.layout.out_size

    @property
    def kind(self) -> Kind:
        """The kind of the whole map."""
        kind = self.layout.kind
        return Kind.PIECEWISE_LINEAR if kind is Kind.AFFINE and self.discrete else kind

    @property
    def leading(self) -> str:
        """The output that is explained where nobody names one: the first that depends on x."""
        return self.layout.leading

    @property
    def choosers(self) -> tuple[Step | Discrete, ...]:
        """All that may make choices."""
        return (*self.steps, *self.discrete)

    @property
    def guarded(self) -> Iterator[tuple[Step | Discrete, Guard]]:
        """Every choice that was made at x, with what made it."""
        for owner in self.choosers:
            for guard in owner.guards:
                yield owner, guard

    def has_slot(self, step: Step) -> bool:
        """Whether a step makes rounding errors of its own, or ends the program."""
        return step.output in self.layout.slots

    def structure(self) -> Hashable:
        """What an emitted graph depends on: everything but what a point decides."""
        return self.layout

    def upstream(self, outputs: Sequence[str]) -> LinearProgram:
        """The part that some of its tensors depend on, with those as outputs."""
        shapes = dict(self.inputs) | {step.output: step.shape for step in self.steps}
        needed = set(outputs)
        steps: list[Step] = []
        for step in reversed(self.steps):
            if step.output in needed:
                needed.update(name for name, _ in step.terms)
                steps.append(step)
        return LinearProgram(
            self.inputs, tuple((name, shapes[name]) for name in outputs), tuple(reversed(steps))
        )

    def by_output(self, rows: Array) -> Iterator[tuple[str, Shape, Array, Array]]:
        """Flat indices into the stacked outputs, (k,), by the output that they lie in.

        Yields:
            Each output's name and shape, the positions in `rows` of its own, and these as flat indices into
            it alone.
        """
        first = 0
        for name, shape in self.outputs:
            size = math.prod(shape)
            mine = np.flatnonzero((rows >= first) & (rows < first + size))
            yield name, shape, mine, rows[mine] - first
            first += size

    def walk(
        self, inputs: Mapping[str, Array], homogeneous: Sequence[float]
    ) -> Iterator[tuple[Step, Mapping[str, Array]]]:
        """Run the program forward on a block of B points, step by step.

        Args:
            inputs: input tensor name to (B, *shape).
            homogeneous: B weights of the offsets: 1 for a point, 0 for a direction (a tangent).

        Yields:
            Each step, once it is evaluated, with the tensors that are alive: its inputs, its output and
            what later steps read, (B, *shape) each.
        """
        weights = np.asarray(homogeneous, next(iter(inputs.values())).dtype)
        values = dict(inputs)
        last = self.last_uses()
        for position, step in enumerate(self.steps):
            values[step.output] = step.apply(values, weights)
            yield step, values
            for name in last.get(position, ()):
                values.pop(name, None)

    def last_uses(self) -> Mapping[int, Sequence[str]]:
        """Step position to the tensors that no later step reads, the outputs left out."""
        return self.layout.last_uses

    def __str__(self) -> str:
        lines = [f"{name}{list(shape)}" for name, shape in self.inputs]
        for step in self.steps:
            terms = " + ".join(f"{type(L).__name__}·{name}" for name, L in step.terms) or "0"
            offset = "" if step.offset is None else " + c"
            lines.append(f"{step.output}{list(step.shape)} = {terms}{offset}   # {step.op_type}, {step.kind}")
        lines += [f"# {one.node}: {one.op_type} is locally constant" for one in self.discrete]
        return "\n".join(lines)
