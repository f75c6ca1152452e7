"""Certify: a map against the model, by default or deeply, and the record by which others do so again.

By default W z + b is checked as a whole, at x and at a fresh point. Where that fails, or no fresh point
speaks for W, every step is checked by itself too, so that the first that is wrong is named. What is compared
with what is in `evidence`, how far rounding may take them apart in `bounds`, and the verdict in `verify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime.arrays import overflow_refused_later
from ..runtime.certificate import Certificate, Level
from ..runtime.primitives import Array
from ..runtime.record import Record
from .bounds import last_rounding, rounding_at, rounding_bounds, running_bound, swept_bounds
from .combined import combined_deviations, functional_of, rounding_by_norms, rounding_in_parts
from .compose import Composed
from .evidence import DEEP, FRESH, Case, Evidence
from .interior import Points, points_of
from .interior_bounds import inside_bounds, rounding_along
from .record import allowed, kept, record_of
from .sweep import Magnitudes
from .trace import all_finite
from .verify import Deviation, certificate_of, deviations, says_nothing, visible

_INSIDE = 2  # points inside the region, for float64, that a saved map holds


@overflow_refused_later()
def certificate_for(case: Case, composed: Composed, level: Level) -> Certificate:
    """The certificate of a map in memory.

    Args:
        case: what it answers, and what it is verified with.
        composed: the map.
        level: how deeply.

    Raises:
        ModelError: onnxruntime fails.
        NonFiniteError: a tensor that depends on x is NaN or infinite.
        MemoryLimitError: on the deep level, W in float64 would not fit.
    """
    program, trace, rows = case.asked.program, case.asked.trace, case.asked.rows
    x, y = trace.stacked(program.inputs), trace.answered(program.outputs)[rows]
    if level == "default":
        evidence = case.evidence(FRESH, whole=_by_norms(case))
        if evidence.fresh:
            found = certificate_of(program, evidence, _compared(case, composed, evidence))
            if found.verified and not visible(found.at_x, x, y):
                return found
    else:
        evidence = case.evidence(DEEP)
    evidence = case.audited(evidence)
    rounding = _rounding(case, composed, evidence)
    compared = deviations(composed.W, composed.b, program, rows, evidence, rounding)
    vacuous = says_nothing(composed.W, composed.shares, x, y, compared[0].largest, rounding[0])
    double = None
    if level == "deep":
        from .double import in_double

        double = in_double(case, composed.W, composed.b, composed.shares, evidence, rounding)
    return certificate_of(program, evidence, compared, level=level, vacuous=vacuous, double=double)


@overflow_refused_later()
def certificate_for_operator(case: Case, W: Any, b: Array, level: Level) -> Certificate:
    """The same where W is an operator, whose rows are not known: all are checked at once.

    On the deep level each row has a bound as well, from a forward sweep.
    """
    program, rows = case.asked.program, case.asked.rows
    if level == "default":
        evidence = case.evidence(FRESH)
        return certificate_by_rows(case, evidence, _products_compared(case, W, b, evidence))
    from .double import in_double

    evidence = case.evidence(DEEP)
    rounding = running_bound(program, rows, magnitudes_of(case, evidence))
    compared = deviations(W, b, program, rows, evidence, rounding)
    double = in_double(case, W, b, None, evidence, rounding)
    return certificate_of(program, case.audited(evidence), compared, level=level, double=double)


def certificate_by_rows(case: Case, evidence: Evidence, compared: Sequence[Deviation]) -> Certificate:
    """The default certificate of a map that has been compared with the evidence row by row."""
    found = certificate_of(case.asked.program, evidence, compared)
    if found.verified and evidence.fresh:
        return found
    return certificate_of(case.asked.program, case.audited(evidence), compared)


@overflow_refused_later()
def record_for(case: Case, composed: Composed) -> Record | None:
    """Fresh points and bounds, to compare a map with the model again; made for maps that are saved.

    None where what rounding may do leaves the range of float64, so that nothing can be compared.
    """
    program, trace, rows = case.asked.program, case.asked.trace, case.asked.rows
    evidence, points = case.evidence(DEEP), interior_of(case)
    magnitudes = magnitudes_of(case, evidence)
    both = with_interior(case, points, magnitudes)
    rounding = swept_bounds(program, rows, case.asked.plan, case.engine, case.dtype, both)
    here, inside = np.split(rounding, [magnitudes.count])
    here += last_rounding(program, composed, magnitudes, case.dtype)
    bounds, fresh = allowed(program, rows, evidence.places, here, case.dtype), kept(evidence.fresh)
    within = inside_bounds(inside, composed.W, points, rows)
    if not (all_finite(bounds) and all_finite(within)):
        return None
    return record_of(program, trace, fresh, bounds[: 1 + len(fresh)], points, within)


def interior_of(case: Case) -> Points:
    """Points inside the region, where whoever reads a saved map evaluates the model in float64."""
    return points_of(case.graph, case.asked.program, case.asked.trace, case.survey, _INSIDE)


@overflow_refused_later()
def with_interior(case: Case, points: Points, magnitudes: Magnitudes) -> Magnitudes:
    """What rounding may do at each step, with that on the way to points inside the region behind."""
    if not len(points.inside):
        return magnitudes
    return magnitudes.and_at(rounding_along(case.asked.program, points, case.ours, case.asked.plan))


def magnitudes_of(case: Case, evidence: Evidence) -> Magnitudes:
    """What rounding may do at each step; values of the plan's joints are held besides."""
    asked = case.asked
    return rounding_at(asked.program, evidence, case.dtype, case.model + case.ours, asked.plan.joints)


def _rounding(case: Case, composed: Composed, evidence: Evidence) -> Array:
    """What rounding may do to W z + b at each place, row by row, (P, K)."""
    asked, magnitudes = case.asked, magnitudes_of(case, evidence)
    return rounding_bounds(
        asked.program, asked.rows, composed, asked.plan, case.engine, case.dtype, magnitudes
    )


def _products_compared(case: Case, W: Any, b: Array, evidence: Evidence) -> list[Deviation]:
    """Deviations of W z + b where W is an operator, by the combination of all rows."""
    program, rows = case.asked.program, case.asked.rows
    magnitudes = rounding_in_parts(program, evidence, case.dtype, case.model, case.ours)
    functional = functional_of(program, rows)
    inside = float(case.engine.functional_bounds(program, functional, case.dtype, magnitudes).max())
    sums = [np.abs(place.answered(program.outputs)[rows].astype(np.float64)) for place in evidence.places]
    last = case.ours.u * (np.max(sums, axis=0) + 2 * np.abs(b.astype(np.float64)))  # |W z| + |b| at most
    return combined_deviations(W, b, program, rows, evidence, inside, last)


def _by_norms(case: Case) -> bool:
    """Whether all rows are checked at once: where they are found row by row, so that one is cheap."""
    legs = case.asked.plan.legs
    return len(legs) == 1 and legs[0].direction == "reverse"


def _compared(case: Case, composed: Composed, evidence: Evidence) -> list[Deviation]:
    """Deviations of W z + b on the default level."""
    program, rows = case.asked.program, case.asked.rows
    if not _by_norms(case):
        rounding = _rounding(case, composed, evidence)
        return deviations(composed.W, composed.b, program, rows, evidence, rounding)
    magnitudes = rounding_by_norms(program, evidence, case.dtype, case.model + case.ours)
    functional = functional_of(program, rows)
    inside = float(case.engine.functional_bounds(program, functional, case.dtype, magnitudes)[0, 0])
    last = last_rounding(program, composed, magnitudes, case.dtype)[0]
    return combined_deviations(composed.W, composed.b, program, rows, evidence, inside, last)
