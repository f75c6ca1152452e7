"""Lower: each node at x through its rule, to a LinearProgram."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..ops import Entry, Local, Operand, Site
from ..runtime.primitives import Array, Shape
from ..runtime.program import Kind, LinearProgram, Step
from .graph import Node, is_floating
from .scope import Scope, entry_of, observed_inputs, varying_outputs
from .trace import Trace


@dataclass(frozen=True)
class Place:
    """A node among operands of known shapes: all of its lowering that does not depend on the point."""

    node: Node
    entry: Entry
    shapes: tuple[Shape | None, ...]  # of the operands that depend on x; None for the others
    observed: tuple[bool, ...]  # which operands' values at x the rule reads
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
    """
    inputs = tuple((name, trace.values[name].shape) for name in scope.inputs)
    shapes: dict[str, Shape] = dict(inputs)
    known = _Known(scope, trace, np.dtype(dtype))
    steps: list[Step] = []
    for node in scope.nodes:
        key = (node.position, *map(shapes.get, node.inputs))
        place = cache.get(key)
        if place is None:
            place = cache[key] = _place(node, scope, key[1:], known)
        for step in place.steps if place.steps is not None else _steps(place, known, fixed=False):
            steps.append(step)
            shapes[step.output] = step.shape
    for name in scope.outputs:
        if name not in shapes:  # no path from x: the observed value is the whole answer
            value = known.value(name)
            steps.append(Step(name, value.shape, name, "(held)", Kind.LOCALLY_CONSTANT, (), value))
            shapes[name] = value.shape
    return LinearProgram(inputs, tuple((name, shapes[name]) for name in scope.outputs), tuple(steps))


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


def _place(node: Node, scope: Scope, shapes: tuple[Any, ...], known: _Known) -> Place:
    """Prepare a node; finish it where it reads nothing that a point decides."""
    entry = entry_of(node)
    assert entry is not None
    read = observed_inputs(node)
    observed = tuple(name in read for name in node.inputs)
    outputs = tuple("" if name in scope.inputs else name for name in varying_outputs(node))
    place = Place(node, entry, shapes, observed, outputs)
    operands = zip(node.inputs, shapes, observed, strict=True)
    fixed = all(
        not name or (name in scope.constants if shape is None else not seen) for name, shape, seen in operands
    )
    return (
        Place(node, entry, shapes, observed, outputs, tuple(_steps(place, known, fixed=True)))
        if fixed
        else place
    )


def _steps(place: Place, known: _Known, *, fixed: bool) -> Iterator[Step]:
    """Call the node's rule."""
    node, rule = place.node, place.entry.rule
    assert rule is not None
    operands = tuple(map(_operand, node.inputs, place.shapes, place.observed, [known] * len(node.inputs)))
    result = rule(
        Site(
            node.name,
            node.op_type,
            node.domain,
            node.opset,
            node.attributes,
            operands,
            node.formal,
            node.outputs,
        )
    )
    for output, local in zip(place.outputs, (result,) if isinstance(result, Local) else result, strict=True):
        if output:
            yield _step(place, output, local, fixed)


def _operand(name: str, shape: Shape | None, observed: bool, known: _Known) -> Operand | None:
    if not name:
        return None
    if shape is None:
        value = known.value(name)
        return Operand(name, value.shape, False, value)
    return Operand(name, shape, True, known.value(name) if observed else None)


def _step(place: Place, output: str, local: Local, fixed: bool) -> Step:
    node, entry = place.node, place.entry
    terms = tuple((node.inputs[i], L) for i, L in local.by_position.items())
    kind = local.kind or (
        entry.kind if local.guards or entry.kind is not Kind.PIECEWISE_LINEAR else Kind.AFFINE
    )
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
    )
