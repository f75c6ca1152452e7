"""Units whose side rounding may decide: is the pattern at x that of the network in exact arithmetic?

A unit's margin, computed in float64 with the pattern that was observed, is compared with a running bound on
what the model's arithmetic may do to it (Higham, §3.3). The bound grows with depth, so below it is a doubt
and not an error; a margin that float64 finds negative is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime.certificate import LISTED, Uncertain
from ..runtime.operator import unstacked
from ..runtime.primitives import Array, flat
from ..runtime.program import LinearProgram
from ..runtime.rounding import Arithmetic, running_errors
from .faces import Faces, faces_of


def uncertain_units(
    program: LinearProgram, x: Array, arithmetic: Arithmetic
) -> tuple[int, int, tuple[Uncertain, ...]]:
    """Units whose side rounding may decide: how many, how many are on the other side, and the first.

    Args:
        program: the network at x, lowered in float64.
        x: (N,).
        arithmetic: of the model.
    """
    faces = faces_of(program)
    if not faces.count:
        return 0, 0, ()
    sides = _sides(faces, x, arithmetic)
    uncertain = otherwise = 0
    units: list[tuple[bool, Uncertain]] = []
    for face in faces.faces:
        values, bounds = sides[face.step.output]
        rows = np.flatnonzero(np.abs(values) <= bounds)
        rows = rows[np.argsort(values[rows], kind="stable")]
        _, firsts = np.unique(face.units[rows], return_index=True)  # the nearest half-space of each unit
        rows = rows[np.sort(firsts)]
        uncertain += len(rows)
        otherwise += int(np.count_nonzero(values[rows] < 0))
        for row in rows[:LISTED]:
            found = face.boundary(int(row), float(values[row]))
            unit = Uncertain(found.node, found.op_type, found.unit, found.margin, float(bounds[row]))
            units.append((bool(values[row] >= 0), unit))
    units.sort(key=lambda each: each[0])
    return uncertain, otherwise, tuple(unit for _, unit in units[:LISTED])


def _sides(faces: Faces, x: Array, arithmetic: Arithmetic) -> dict[str, tuple[Array, Array]]:
    """The value of each face's half-spaces at x in float64, and the bound on its rounding error."""
    wanted: dict[str, Any] = dict.fromkeys(face.step.output for face in faces.faces)
    block = unstacked(faces.program, x[None])
    for step, values, errors in running_errors(faces.program, block, arithmetic):
        if step.output in wanted:
            wanted[step.output] = flat(values[step.output])[0], flat(errors[step.output])[0]
    return wanted
