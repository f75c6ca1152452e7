"""The record of a map: fresh points and bounds, for anybody who compares it with the model again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from ..runtime.operator import unstacked
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram
from ..runtime.record import Interior, Record
from ..runtime.rounding import flushed
from .interior import Points, work_of
from .neighbours import Neighbour
from .trace import Trace

_MOST_BYTES = 16 << 20  # of fresh points that are kept; at least one is


def kept(fresh: Sequence[Neighbour]) -> Sequence[Neighbour]:
    """The fresh points that stay on record: as many of the first as are not too large."""
    if not fresh:
        return fresh
    size = sum(value.nbytes for value in fresh[0].point.values())
    return fresh[: max(1, _MOST_BYTES // max(1, size))]


def allowed(
    program: LinearProgram, rows: Array, places: Sequence[Trace], rounding: Array, dtype: DTypeLike
) -> Array:
    """How far W z + b may be from the model's own F(z) at each place, (P, K).

    Where nodes were written out, the model's output and that of what was written out differ as well.

    Args:
        program: the network at x.
        rows: flat output indices behind W's rows.
        places: x and fresh points.
        rounding: (P, K), what rounding may do to W z + b.
        dtype: that W is composed in.
    """
    written = [
        np.abs(place.answered(program.outputs)[rows] - place.stacked(program.outputs)[rows])
        for place in places
    ]
    return np.asarray(rounding + np.asarray(written, np.float64) + flushed(dtype))


def record_of(
    program: LinearProgram,
    trace: Trace,
    fresh: Sequence[Neighbour],
    bounds: Array,
    points: Points,
    inside_bounds: Array,
) -> Record:
    """The record of a map.

    Args:
        program: the network at x.
        trace: x.
        fresh: points of x's region, those that are `kept`.
        bounds: (1 + P, K), how far the map may be off at x and at these points.
        points: those inside the region, for the model in float64.
        inside_bounds: (Q, K), how far W (z - base) may be off there.
    """
    found = {
        name: np.concatenate([x[None][:0], *(near.point[name][None] for near in fresh)])
        for name, x in trace.free(program).items()
    }
    jumps = bool(program.discrete) or trace.decides
    inside = unstacked(program, np.array([points.base, *points.inside]))
    interior = Interior(inside, inside_bounds, *work_of(program), points.left_out)
    return Record(found, bounds, program.kind is not Kind.SMOOTH and not jumps, interior)
