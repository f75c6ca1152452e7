"""Lower: each node at x through its rule, to a LinearProgram."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..ops import Local, Operand, Reading, Site, stays
from ..runtime.primitives import Array, Shape
from ..runtime.program import Discrete, Kind, LinearProgram, Step
from .graph import Node, is_floating
from .scope import Scope
from .trace import Trace, require_kept
from .verdict import Verdict


@dataclass(frozen=True)
class Place:
    """A node among operands of known shapes: all of its lowering that does not depend on the point."""

    use: Verdict
    shapes: tuple[Shape | None, ...]  # of the operands that depend on x and are not held; None for the others
    reading: Reading
    outputs: tuple[str, ...]  # that vary with x; "" for one that is left out, or that is itself an input
    steps: tuple[Step, ...] | None = None  # where they are the same at every point


Cache = MutableMapping[tuple[int | Shape | None, ...], Place]  # by position and shapes


def lower(scope: Scope, trace: Trace, dtype: DTypeLike, cache: Cache) -> LinearProgram:
    """Turn the network at one point into a linear program.

    Args:
        scope: what depends on x.
        trace: the observed values.
        dtype: floating type that the map is composed in.
        cache: what does not depend on the point, kept by the caller from point to point.

    Raises:
        UnsupportedError: a use of an operator that its rule cannot lower.
        NonFiniteError: a constant that leaves the range of the type, or vanishes in it.
    """
    inputs = tuple((name, trace.values[name].shape) for name in scope.inputs)
    shapes: dict[str, Shape] = dict(inputs)
    known = _Known(scope, trace, np.dtype(dtype))
    steps: list[Step] = []
    for use in scope.uses:
        own = [None if i in use.held else shapes.get(name) for i, name in enumerate(use.node.inputs)]
        key = (use.node.position, *own)
        place = cache.get(key)
        if place is None:
            place = cache[key] = _place(use, scope, key[1:], known)
        for step in place.steps if place.steps is not None else _steps(place, known, fixed=False):
            steps.append(step)
            shapes[step.output] = step.shape
    for name in scope.outputs:
        if name not in shapes:  # no path from x: the observed value is the whole answer
            value = known.value(name)
            steps.append(Step(name, value.shape, name, "(held)", Kind.LOCALLY_CONSTANT, (), value))
            shapes[name] = value.shape
    discrete = tuple(_discrete(verdict, scope, known) for verdict in scope.discrete)
    return LinearProgram(
        inputs, tuple((name, shapes[name]) for name in scope.outputs), tuple(steps), discrete
    )


def relowered(use: Verdict, scope: Scope, trace: Trace, inputs: Mapping[str, Array]) -> tuple[Step, ...]:
    """One node with some of its inputs at other values, in float64."""
    known = _Known(scope, Trace(trace.feeds, {**trace.values, **inputs}), np.dtype(np.float64))
    shapes = tuple(
        inputs[name].shape if name in inputs and i not in use.held else None
        for i, name in enumerate(use.node.inputs)
    )
    place = replace(_place(use, scope, shapes, known), steps=None)
    return tuple(_steps(place, known, fixed=False))


class _Known:
    """Values of tensors, in the composition's floating type or their own, whichever is finer.

    Choices are made on these: a value that is cast down could fall on the other side of a kink.
    """

    def __init__(self, scope: Scope, trace: Trace, dtype: np.dtype[Any]) -> None:
        self.constants, self.values, self.dtype = scope.constants, trace.values, dtype

    def value(self, name: str) -> Array:
        constants: Mapping[str, Array] = self.constants
        value = constants[name] if name in constants else self.values[name]
        if value.dtype == self.dtype or not is_floating(value.dtype):
            return value
        finer = value.dtype.itemsize > self.dtype.itemsize
        return value if finer else value.astype(self.dtype, copy=False)


def _place(use: Verdict, scope: Scope, shapes: tuple[Any, ...], known: _Known) -> Place:
    """Prepare a node; finish it where it reads nothing that a point decides."""
    outputs = tuple("" if name in scope.inputs else name for name in use.varying)
    place = Place(use, shapes, scope.reading, outputs)
    fixed = all(
        not name or (name in scope.constants if shape is None else i not in use.observed)
        for i, (name, shape) in enumerate(zip(use.node.inputs, shapes, strict=True))
    )
    return replace(place, steps=tuple(_steps(place, known, fixed=True))) if fixed else place


def _steps(place: Place, known: _Known, *, fixed: bool) -> Iterator[Step]:
    """Call the node's rule."""
    assert place.use.entry is not None
    rule = place.use.entry.rule
    assert rule is not None
    operands = tuple(
        _operand(name, shape, i in place.use.observed, known)
        for i, (name, shape) in enumerate(zip(place.use.node.inputs, place.shapes, strict=True))
    )
    for operand in operands:
        if operand is not None and not operand.active and operand.value is not None:
            require_kept(f"{place.use.node}: its operand {operand.name!r}", operand.value, known.dtype)
    result = rule(_site(place.use.node, operands, place.reading))
    answers = (result,) if isinstance(result, Local) else result
    _require_fit(place, answers)
    for output, local in zip(place.outputs, answers, strict=True):
        if output:
            yield _step(place, output, local, fixed)


def _require_fit(place: Place, answers: Sequence[Local]) -> None:
    """Refuse what a rule made of another node than this one: a mistake in the rule.

    Raises:
        ValueError: another number of outputs, or a term of another shape than its operand.
    """
    entry, node = place.use.entry, place.use.node
    assert entry is not None
    if len(answers) != len(place.outputs):
        raise ValueError(
            f"the rule of {node} in {entry.module} gives {len(answers)} outputs, "
            f"but {len(place.outputs)} vary with x"
        )
    for local in answers:
        for position, L in local.by_position:
            if L.in_shape != place.shapes[position]:
                raise ValueError(
                    f"the rule of {node} in {entry.module} gives a term that takes {list(L.in_shape)} "
                    f"for input {position}, which holds {_listed(place.shapes[position])}"
                )


def _listed(shape: Shape | None) -> str:
    return "nothing that depends on x" if shape is None else str(list(shape))


def _site(node: Node, operands: tuple[Operand | None, ...], reading: Reading) -> Site:
    return Site(
        *(node.name, node.op_type, node.domain, node.opset, node.attributes),
        *(operands, node.formal, node.outputs, reading),
    )


def _discrete(verdict: Verdict, scope: Scope, known: _Known) -> Discrete:
    """The guards of a locally constant node; without any of its own, that its outputs stay what they are."""
    node, entry = verdict.node, verdict.entry
    assert entry is not None
    if entry.watch is None:
        values = [known.value(name) for name in verdict.watched if name]
        return Discrete(node.name, node.op_type, tuple(map(stays, values)), ())
    values_at = (None if not name else known.value(name) for name in node.inputs)
    operands = tuple(
        None if value is None else Operand(name, value.shape, name in scope.active, value)
        for name, value in zip(node.inputs, values_at, strict=True)
    )
    return Discrete(node.name, node.op_type, entry.watch(_site(node, operands, scope.reading)), node.inputs)


def _operand(name: str, shape: Shape | None, observed: bool, known: _Known) -> Operand | None:
    if not name:
        return None
    if shape is None:
        held = known.value(name)
        return Operand(name, held.shape, False, held)
    value = known.value(name) if observed else None
    if value is not None and not is_floating(value.dtype):
        value = value.astype(known.dtype)  # integers that stand for numbers: quantised, read straight through
    return Operand(name, shape, True, value)


def _step(place: Place, output: str, local: Local, fixed: bool) -> Step:
    node, kind = place.use.node, place.use.kind
    assert kind is not None
    terms = tuple((node.inputs[i], L) for i, L in local.by_position)
    if kind is Kind.PIECEWISE_LINEAR and not local.guards:
        kind = Kind.AFFINE
    kind = local.kind or kind
    offset = None if local.offset is None else np.asarray(local.offset)
    shape = terms[0][1].out_shape if terms else np.shape(offset if offset is not None else 0.0)
    return Step(
        output,
        shape,
        node.name,
        node.op_type,
        kind,
        terms,
        offset,
        local.guards,
        offset_size=None if local.offset_size is None else np.asarray(local.offset_size),
        fixed=fixed,
        rounds=local.rounds,
        operands=node.inputs,
        frozen=local.frozen or bool(place.use.held),
        roundings=local.roundings,
        slack=None if local.slack is None else np.asarray(local.slack),
    )
