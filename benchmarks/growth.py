"""How time and memory grow with one quantity, for ilin and jacrev, beside the floor of the arithmetic."""

from __future__ import annotations

from typing import Any

from cases import Case, Series
from compare import Limits, Log, compare
from sides import OURS

SIDES = (*OURS, "torch")
LIMITS = Limits(rounds=3, seconds=5.0)


def grow(series: Series, rate: float, engine: str, log: Log) -> dict[str, Any]:
    """Measure a series.

    Args:
        series: the cases.
        rate: multiply-adds per second of a matrix product on this machine.
        engine: ilin's.
        log: called with each line of the report.

    Returns:
        Plain data: the axis, its values, and for each value the sides as `compare` gives them. `floor_s` is
        what ilin's plan multiplies, divided by `rate`.
    """
    points = []
    for value, case in zip(series.values, series.cases, strict=True):
        points.append({"value": value, **with_floors(compare(case, SIDES, LIMITS, engine, log), case, rate)})
    return {"name": series.name, "network": series.network, "axis": series.axis, "points": points}


def with_floors(result: dict[str, Any], case: Case, rate: float) -> dict[str, Any]:
    """A case's results, each side with its floor: what its plan multiplies over the machine's rate."""
    for side in result["sides"]:
        work = side["facts"].get("multiply_adds")
        side["floor_s"] = None if work is None else work * max(case.points, 1) / rate
    return result
