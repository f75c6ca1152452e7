"""A program's linear part, and the transpose of that: programs like any other.

The tangent of y = Σ Lₖ xₖ + c is the same without c. Transposed, a tensor's adjoint is the sum over the
steps that read it, t̄ = Σ Lᵀ s̄, from the outputs' to the inputs'. So whatever walks, emits or measures
a program does that for either direction.
"""

from __future__ import annotations

from .primitives import Primitive, Reshape
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
        steps.append(_linear(step.output, step, terms))
    return LinearProgram(program.inputs, program.outputs, tuple(reversed(steps)))


def transposed(program: LinearProgram) -> LinearProgram:
    """Wᵀ as a program: its inputs are the outputs' adjoints, its outputs the inputs' adjoints.

    A tensor's adjoint goes by the tensor's own name, and what comes in for output i by a name of its own,
    as an output may be read inside the program too.
    """
    forward = tangent(program)
    taken = {name for name, _ in program.inputs} | {step.output for step in program.steps}
    seeds = tuple((_unused(f"seed_{i}", taken), shape) for i, (_, shape) in enumerate(program.outputs))
    readers: dict[str, list[tuple[str, Primitive]]] = {}
    for (name, shape), (seed, _) in zip(program.outputs, seeds, strict=True):
        readers.setdefault(name, []).append((seed, Reshape(shape, shape)))
    for step in reversed(forward.steps):
        for name, L in step.terms:
            readers.setdefault(name, []).append((step.output, L.T))
    back = [_linear(s.output, s, tuple(readers[s.output])) for s in reversed(forward.steps) if s.terms]
    ends = [
        Step(name, shape, name, "(input)", Kind.AFFINE, tuple(readers.get(name, ())))
        for name, shape in forward.inputs
    ]
    return LinearProgram(seeds, forward.inputs, (*back, *ends))


def _linear(output: str, step: Step, terms: tuple[tuple[str, Primitive], ...]) -> Step:
    return Step(output, step.shape, step.node, step.op_type, Kind.AFFINE, terms, fixed=step.fixed)


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
