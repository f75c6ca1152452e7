"""The transposed program: a forward sweep is the reverse sweep of the transpose.

So every engine that carries rows back also carries columns on, and there is one sweep to write.
"""

from __future__ import annotations

import numpy as np

from ..runtime.primitives import Broadcast, Primitive, Reshape, Scale, Shape, chain
from ..runtime.program import Kind, LinearProgram, Step

Term = tuple[str, Primitive, bool]  # the tensor it reads, the map, whether it is the same at every point


def transposed(program: LinearProgram) -> LinearProgram:
    """The program of Wᵀ, with one more output element for each step that has an offset.

    Its tensors are the program's, each standing for its adjoint; its inputs are adjoints of the program's
    outputs; its outputs are the adjoints of the inputs and, in the order of the steps, of the weights that
    the offsets are multiplied by: b's shares come out as further columns.
    """
    readers: dict[str, list[Term]] = {name: [] for name, _ in program.inputs}
    shapes: dict[str, Shape] = dict(program.inputs)
    weights: list[tuple[str, Term]] = []
    for step in program.steps:
        shapes[step.output] = step.shape
        readers.setdefault(step.output, [])
        for name, L in step.terms:
            readers[name].append((step.output, L.T, step.fixed))
        if step.offset is not None:
            column = Broadcast((1,), step.shape) if step.shape else Reshape((1,), ())
            scaled = chain(column, Scale(step.shape, np.asarray(step.offset)))
            weights.append((f"{step.output}/weight", (step.output, scaled.T, step.fixed)))
    seeds = tuple((f"{name}/seed_{i}", shape) for i, (name, shape) in enumerate(program.outputs))
    for (name, shape), (seed, _) in zip(program.outputs, seeds, strict=True):
        readers[name].append((seed, Reshape(shape, shape), True))
    steps: list[Step] = []
    for name in [*(step.output for step in reversed(program.steps)), *(name for name, _ in program.inputs)]:
        steps += _sum(name, shapes[name], readers[name])
    for name, term in weights:
        steps += _sum(name, (1,), [term])
    outputs = (*program.inputs, *((name, (1,)) for name, _ in weights))
    return LinearProgram(seeds, outputs, tuple(steps))


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
