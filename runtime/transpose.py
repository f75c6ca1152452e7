"""A program's linear part, and the transpose of that: programs like any other.

The tangent of y = Σ Lₖ xₖ + c is the same without c. Transposed, a tensor's adjoint is the sum over the
steps that read it, t̄ = Σ Lᵀ s̄, from the outputs' to the inputs'. So whatever walks, sweeps, emits or
measures a program does that for either direction: columns on are rows back through the transpose.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .primitives import Broadcast, Primitive, Reshape, Scale, Shape, chain
from .program import Kind, LinearProgram, Step


def tangent(program: LinearProgram) -> LinearProgram:
    """The linear part W of a program: no offsets, and only the steps between its inputs and its outputs."""
    reached = {name for name, _ in program.inputs}
    for step in program.steps:
        if any(name in reached for name, _ in step.terms):
            reached.add(step.output)
    needed = {name for name, _ in program.outputs}
    steps: list[Step] = []
    for step in reversed(program.steps):
        if step.output not in needed:
            continue
        terms = tuple((name, L) for name, L in step.terms if name in reached)
        needed.update(name for name, _ in terms)
        linear = Step(step.output, step.shape, step.node, step.op_type, Kind.AFFINE, terms, fixed=step.fixed)
        steps.append(linear)
    return LinearProgram(program.inputs, program.outputs, tuple(reversed(steps)))


Term = tuple[str, Primitive, bool]  # the tensor it reads, the map, whether it is the same at every point


def transposed(program: LinearProgram, *, offsets: bool = False) -> LinearProgram:
    """Wᵀ as a program: its inputs are the outputs' adjoints, its outputs the inputs' adjoints.

    Args:
        program: the network at x.
        offsets: add one output element for each step that has an offset, in the order of the steps: the
            adjoint of a weight that the offset is multiplied by, so that b's shares come out as further
            columns of Wᵀ.

    A tensor's adjoint goes by the tensor's own name, and what comes in for output i by a name of its own,
    as an output may be read inside the program too.
    """
    forward = program if offsets else tangent(program)
    shapes: dict[str, Shape] = dict(forward.inputs) | {step.output: step.shape for step in forward.steps}
    readers: dict[str, list[Term]] = {name: [] for name in shapes}
    weights: list[tuple[str, Term]] = []
    for step in forward.steps:
        for name, L in step.terms:
            readers[name].append((step.output, L.T, step.fixed))
        if step.offset is not None:
            column = Broadcast((1,), step.shape) if step.shape else Reshape((1,), ())
            scaled = chain(column, Scale(step.shape, np.asarray(step.offset)))
            weights.append((unused(f"{step.output}/weight", shapes), (step.output, scaled.T, step.fixed)))
    seeds = tuple((unused(f"seed_{i}", shapes), shape) for i, (_, shape) in enumerate(forward.outputs))
    for (name, shape), (seed, _) in zip(forward.outputs, seeds, strict=True):
        if name in readers:  # else a constant, of which the linear part is zero
            readers[name].append((seed, Reshape(shape, shape), True))
    steps: list[Step] = []
    for name in [*(step.output for step in reversed(forward.steps)), *(name for name, _ in forward.inputs)]:
        steps += _sum(name, shapes[name], readers[name])
    for name, term in weights:
        steps += _sum(name, (1,), [term])
    return LinearProgram(seeds, (*forward.inputs, *((name, (1,)) for name, _ in weights)), tuple(steps))


def _sum(name: str, shape: Shape, terms: list[Term]) -> list[Step]:
    """Steps whose last gives Σ L x; parts that a point decides are kept apart from those that are fixed."""
    if len({fixed for _, _, fixed in terms}) < 2:
        fixed = all(fixed for _, _, fixed in terms)
        return [_step(name, shape, tuple((source, L) for source, L, _ in terms), fixed)]
    parts = [
        _step(f"{name}/part_{i}", shape, ((source, L),), fixed) for i, (source, L, fixed) in enumerate(terms)
    ]
    joined = tuple((part.output, Reshape(shape, shape)) for part in parts)
    return [*parts, _step(name, shape, joined, True)]


def _step(name: str, shape: Shape, terms: tuple[tuple[str, Primitive], ...], fixed: bool) -> Step:
    return Step(name, shape, name, "", Kind.AFFINE, terms, fixed=fixed)


def unused(name: str, taken: Collection[str]) -> str:
    """A name that is not taken yet: the given one, if need be with underscores behind it."""
    while name in taken:
        name += "_"
    return name
