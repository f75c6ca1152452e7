"""What is kept of a certificate's comparison, so that anybody can make it again."""

from __future__ import annotations

import numpy as np

from ..runtime.certificate import Record
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram
from .verify import Evidence

_MOST_BYTES = 16 << 20  # of fresh points that are kept; at least one is


def places_kept(evidence: Evidence) -> int:
    """How many places stay on record: x, and the first fresh points."""
    if not evidence.fresh:
        return 1
    size = sum(value.nbytes for value in evidence.fresh[0].point.values())
    return 1 + min(len(evidence.fresh), max(1, _MOST_BYTES // max(1, size)))


def record_of(program: LinearProgram, evidence: Evidence, bounds: Array) -> Record:
    """The record of a comparison.

    Args:
        program: the network at x.
        evidence: that a map was compared with.
        bounds: (P, K), how far it may be off at x and at the fresh points, or the first of these.
    """
    kept = places_kept(evidence)
    near = evidence.fresh[: kept - 1]
    x = evidence.trace.free(program)
    points = {
        name: np.stack([neighbour.point[name] for neighbour in near])
        if near
        else np.empty((0, *x[name].shape), x[name].dtype)
        for name, _ in program.inputs
    }
    path = evidence.trace.path
    jumps = bool(program.discrete) or (path is not None and path.depends_on_x)
    return Record(points, bounds[:kept], program.kind is not Kind.SMOOTH and not jumps)
