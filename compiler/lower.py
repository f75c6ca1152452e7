"""Lower: each node at x through its rule, to a LinearProgram."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..ops import Local, Operand, Site
from ..runtime.primitives import Array, Shape
from ..runtime.program import Kind, LinearProgram, Step
from .graph import Node, is_floating
from .scope import Scope, entry_of, observed_inputs, varying_outputs
from .trace import Trace

Cache = MutableMapping[tuple[int, tuple[Shape, ...]], tuple[Local, ...]]


def lower(scope: Scope, trace: Trace, dtype: DTypeLike, cache: Cache) -> LinearProgram:
    """Turn the network at one point into a linear program.

    Args:
        scope: what depends on x.
        trace: the observed values.
        dtype: floating type that the map is composed in.
        cache: lowered nodes that do not depend on the point, kept by the caller from point to point.

    Raises:
        UnsupportedError: a use of an operator that its rule cannot lower.
    """
    inputs = tuple((name, trace.values[name].shape) for name in scope.inputs)
    shapes: dict[str, Shape] = dict(inputs)
    chosen = frozenset(scope.inputs)
    known = _Known(scope, trace, np.dtype(dtype))
    steps: list[Step] = []
    for node in scope.nodes:
        locals_, fixed = _locals(node, shapes, known, cache)
        for name, local in zip(varying_outputs(node), locals_, strict=True):
            if not name or name in chosen:  # left out; or an intermediate input, which stays free
                continue
            step = _step(node, name, local, fixed)
            steps.append(step)
            shapes[name] = step.shape
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
        self.scope, self.trace, self.dtype = scope, trace, dtype

    def value(self, name: str) -> Array:
        constants: Mapping[str, Array] = self.scope.constants
        value = constants[name] if name in constants else self.trace.values[name]
        if not is_floating(value.dtype):
            return value
        finer = value.dtype.itemsize > self.dtype.itemsize
        return value if finer else value.astype(self.dtype, copy=False)

    def constant(self, name: str) -> bool:
        return name in self.scope.constants


def _locals(
    node: Node, shapes: Mapping[str, Shape], known: _Known, cache: Cache
) -> tuple[tuple[Local, ...], bool]:
    """A node lowered, and whether it is lowered like that at every point of these shapes."""
    observed = observed_inputs(node)
    fixed = all(not name or name in shapes or known.constant(name) for name in node.inputs)
    fixed = fixed and not any(name in shapes for name in observed)
    key = (node.position, tuple(shapes.get(name, ()) for name in node.inputs))
    if fixed and key in cache:
        return cache[key], True
    operands = tuple(
        None if not name else _operand(name, shapes, known, observe=name in observed) for name in node.inputs
    )
    entry = entry_of(node)
    assert entry is not None
    assert entry.rule is not None
    result = entry.rule(
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
    outcome = (result,) if isinstance(result, Local) else result
    if fixed:
        cache[key] = outcome
    return outcome, fixed


def _operand(name: str, shapes: Mapping[str, Shape], known: _Known, *, observe: bool) -> Operand:
    if name not in shapes:
        value = known.value(name)
        return Operand(name, value.shape, False, value)
    return Operand(name, shapes[name], True, known.value(name) if observe else None)


def _step(node: Node, output: str, local: Local, fixed: bool) -> Step:
    entry = entry_of(node)
    assert entry is not None
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
