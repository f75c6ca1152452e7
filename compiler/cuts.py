"""Cuts: sets of tensors that every path from the inputs to the outputs passes through.

Between two steps of a program the tensors that are alive are such a set. A cut of few elements is worth
knowing: W = W_above W_below, and W_below has one row for each element of the cut.
"""

from __future__ import annotations

import math

import numpy as np

from ..runtime.primitives import Array, Scale, Shape
from ..runtime.program import LinearProgram

Tensors = tuple[tuple[str, Shape], ...]


def cuts_of(program: LinearProgram) -> tuple[Tensors, ...]:
    """The tensors alive before each step, and behind the last: cut 0 is the inputs, the last the outputs."""
    shapes = dict(program.inputs) | {step.output: step.shape for step in program.steps}
    alive = dict.fromkeys(name for name, _ in program.outputs)
    found: list[Tensors] = [program.outputs]
    for step in reversed(program.steps):
        alive.pop(step.output, None)
        alive.update(dict.fromkeys(name for name, _ in step.terms))
        found.append(tuple((name, shapes[name]) for name in alive))
    return (program.inputs, *reversed(found[:-1])) if program.steps else (program.inputs,)


def width(cut: Tensors) -> int:
    """Elements of a cut."""
    return sum(math.prod(shape) for _, shape in cut)


def stretch(program: LinearProgram, first: int, last: int, below: Tensors, above: Tensors) -> LinearProgram:
    """The steps from one cut up to another, as a program of their own."""
    if first == 0 and last == len(program.steps):
        return program
    return LinearProgram(below, above, program.steps[first:last])


def live_elements(program: LinearProgram, cut: Tensors) -> Array:
    """Which elements of a cut can be nonzero, as far as the steps that make them tell: (width,) bool."""
    makers = {step.output: step for step in program.steps}
    masks = []
    for name, shape in cut:
        mask = np.ones(shape, bool)
        step = makers.get(name)
        if step is not None and len(step.terms) == 1 and step.offset is None:
            ((_, L),) = step.terms
            if isinstance(L, Scale):
                mask &= L.factor != 0
        masks.append(mask.ravel())
    return np.concatenate(masks) if masks else np.zeros(0, bool)
