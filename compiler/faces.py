"""Faces: a program's guards as tensors of a program, so that every engine that gives W gives them too.

The half-spaces Σ Lᵢ uᵢ + c ≥ 0 of a guard are a step like any other. With such a step for each guard, the
values of their outputs at x are the margins m, the rows of their map the slopes a, and aᵀ(z - x) + m ≥ 0 the
region.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import Discrete, Guard, Kind, LinearProgram, Step
from ..runtime.region import Boundary
from ..runtime.transpose import unused


@dataclass(frozen=True)
class Face:
    """The half-spaces of one guard."""

    owner: Step | Discrete
    guard: Guard
    number: int  # of the guard within its node
    step: Step  # its output holds their values
    units: Array  # (rows,) flat unit of each

    def boundary(self, row: int, margin: float) -> Boundary:
        """One of them in words."""
        shape = self.guard.choice.shape
        index = tuple(int(i) for i in np.unravel_index(self.units[row], shape)) if shape else ()
        return Boundary(self.owner.node, self.owner.op_type, self.number, index, row, margin)

    def boundaries(self, rows: Array, margins: Array) -> Iterator[Boundary]:
        """Several of them in words."""
        shape, count = self.guard.choice.shape, len(rows)
        indices = np.unravel_index(self.units[rows], shape) if shape else ()
        places = zip(*(index.tolist() for index in indices), strict=True) if shape else [()] * count
        owner = (self.owner.node, self.owner.op_type, self.number)
        for row, margin, index in zip(rows.tolist(), margins.tolist(), places, strict=True):
            yield Boundary(*owner, index, row, margin)


@dataclass(frozen=True)
class Faces:
    """All half-spaces of a program. A row is counted through all of them."""

    faces: tuple[Face, ...]
    unknown: tuple[str, ...]  # nodes that jump nobody knows where
    program: LinearProgram  # from x to all faces, one behind the other

    @cached_property
    def starts(self) -> Array:
        """The first row of each face, and behind the last: (faces + 1,)."""
        return np.cumsum([0, *(face.step.size for face in self.faces)])

    @cached_property
    def spans(self) -> dict[str, tuple[int, int]]:
        """The first row of each face and the one behind its last, by the face's tensor."""
        ends = pairwise(self.starts.tolist())
        return {face.step.output: span for face, span in zip(self.faces, ends, strict=True)}

    @property
    def count(self) -> int:
        """Rows of all faces."""
        return int(self.starts[-1])

    def place(self, rows: Array) -> Array:
        """The face of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def boundary(self, row: int, margin: float) -> Boundary:
        """One row in words."""
        face = int(self.place(np.array([row]))[0])
        return self.faces[face].boundary(int(row - self.starts[face]), margin)

    def towards(self, face: int) -> LinearProgram:
        """The program from x to one face alone."""
        return self.program.upstream([self.faces[face].step.output])

    def split(self, rows: Array) -> Iterator[tuple[int, Array]]:
        """Rows by face: the face, and the positions in `rows` that are its own."""
        places = self.place(rows)
        for face in np.unique(places):
            yield int(face), np.flatnonzero(places == face)


def faces_of(program: LinearProgram, *, tied: bool = False) -> Faces:
    """The half-spaces of all guards of a program, or of those with ties alone, as one program."""
    taken = {name for name, _ in program.inputs} | {step.output for step in program.steps}
    faces: list[Face] = []
    unknown: dict[str, None] = {}
    for owner, number, guard in ((one, *each) for one in program.choosers for each in enumerate(one.guards)):
        if not guard.choice.size or (tied and not guard.ties):
            continue
        half_spaces = guard.half_spaces()
        if not half_spaces.terms:
            if np.isnan(guard.margin).any():
                unknown[owner.node] = None
            continue
        terms = tuple((owner.operands[position] or "", L) for position, L in half_spaces.terms)
        shape = terms[0][1].out_shape
        offset = np.reshape(np.broadcast_to(half_spaces.offset, shape), shape)
        name = unused(f"{owner.node}/face_{len(faces)}", taken)
        step = Step(name, shape, owner.node, owner.op_type, Kind.AFFINE, terms, offset)
        units = half_spaces.units
        if units is None:
            units = np.arange(step.size) % guard.choice.size
        faces.append(Face(owner, guard, number, step, units))
    outputs = [face.step.output for face in faces]
    return Faces(tuple(faces), tuple(unknown), joined(program, faces).upstream(outputs))


def joined(program: LinearProgram, faces: Sequence[Face]) -> LinearProgram:
    """The program with each face as soon as what it reads is known; with the outputs of both."""
    made = {step.output: position for position, step in enumerate(program.steps)}
    behind: dict[int, list[Step]] = {}
    for face in faces:
        last = max(made.get(name, -1) for name, _ in face.step.terms)
        behind.setdefault(last, []).append(face.step)
    steps = list(behind.get(-1, ()))
    for position, step in enumerate(program.steps):
        exact = replace(step, guards=(), slack=None) if step.guards or step.slack is not None else step
        steps += [exact, *behind.get(position, ())]
    outputs = (*program.outputs, *((face.step.output, face.step.shape) for face in faces))
    return LinearProgram(program.inputs, outputs, tuple(steps))
