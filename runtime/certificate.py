"""What was checked of an answer, how far off it was, and against which bound: docs/certificate.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from .html import facts
from .program import Kind
from .ties import verdict

Level = Literal["default", "deep"]
LISTED = 16  # nodes or units that a certificate names at most; it counts them all
ENOUGH = 100.0  # bounds that the outputs must move by for W to be tested: a W off by a hundredth shows

_NARROW = "the region is narrower than rounding"


@dataclass(frozen=True)
class Check:
    """One comparison. `worst` is the largest deviation over its own bound: at most 1 where it holds."""

    passed: bool
    worst: float
    worst_node: str = ""
    first_bad_node: str = ""
    compared: int = 0


@dataclass(frozen=True)
class StepCheck:
    """One step at x, at the entry that uses most of its bound."""

    node: str
    op_type: str
    output: str
    deviation: float  # |step - onnxruntime|, each from the inputs that onnxruntime gave it
    bound: float
    over_bound: float  # deviation / bound


@dataclass(frozen=True)
class Uncertain:
    """A unit whose margin at x is below what rounding may do to it, so that float32 cannot tell its side."""

    node: str
    op_type: str
    unit: tuple[int, ...]
    margin: float  # by which x is on the side taken, in float64; negative on the other side
    bound: float  # on the rounding error of that margin in the model's arithmetic


@dataclass(frozen=True)
class Double:
    """The map against the same composed in float64, with the pattern that was observed, and the model in it.

    What compares a map with its float64 is None where it was composed in float64, and what asks for entries
    of W where W is an operator.
    """

    W: float | None = None  # largest |W - its float64|
    W_largest: float | None = None  # largest |W|, to measure it against
    b: float | None = None  # largest |b - its float64|
    over_bound: float | None = None  # largest |W z + b - its float64| at any place, over its rounding bound
    uncertain: int = 0  # units whose side rounding may decide
    otherwise: int = 0  # those of them that float64 puts on the other side
    units: tuple[Uncertain, ...] = ()  # the first of the uncertain ones, those on the other side before
    W_over_bound: float | None = (
        None  # largest |W d - its float64| of any row and direction d, over its bound
    )
    evaluator: str = ""  # what evaluated the model in float64
    points: int = 0  # z inside the region, where it did
    in_region: float = 0.0  # largest |W (z - x) - (F(z) - F(x))| there, all in float64
    in_region_over_bound: float = 0.0
    moved_over_bound: float = 0.0  # largest |F(z) - F(x)| there over the bound: how far off W = 0 would be
    left_out: str = ""  # why there are no such points, if so


@dataclass(frozen=True, repr=False)
class Certificate:
    """Verification of one map against onnxruntime.

    Deviations are absolute, in the units of the outputs; every `…_over_bound` is a deviation divided by
    a bound on the rounding errors, derived from the arithmetic: at most 1 where the map holds. It is the
    largest of any row, or on the default level, of a W in memory, that of a random combination of all rows.
    """

    steps: Check | None  # at x, every step by itself; None where that was not asked for
    at_x: float  # largest |W x + b - F(x)|
    at_x_over_bound: float
    in_region: float  # the same at fresh points with x's activation pattern
    in_region_over_bound: float
    points_tried: int  # directions in which one was looked for
    points_held: int  # fresh points found, all with x's activation pattern
    ties: int  # units and windows exactly on a kink at x
    guards: int  # all units and windows with a choice
    reason: str = ""  # why it is not verified, if so
    slopes: Check | None = None  # of smooth steps, against differences of their equations; None without any
    ties_that_matter: int | None = None  # of the ties; None where they were not examined (`AffineMap.ties`)
    ties_genuine: bool | None = None  # then: whether the choices at x are those of a region, if known
    moved_over_bound: float = 0.0  # largest |F(z) - F(x)| there over the bound: how far off W = 0 would be
    level: Level = "default"
    kind: str = ""  # of the network at x
    decided_by: tuple[str, ...] = ()  # the first nodes that make it smooth or locally constant
    by_step: tuple[StepCheck, ...] = ()  # one row for each step, on the deep level
    double: Double | None = None  # on the deep level

    @property
    def verified(self) -> bool:
        """Whether everything that was checked holds."""
        return not self.reason

    @property
    def untested(self) -> str:
        """Why W itself is not tested by what agrees, if so: at x alone any W agrees, with a b made up for it.

        A piecewise-linear map is tested by points at which the outputs move by far more than rounding. The
        region may be too narrow for such points in float32; those of the deep level are in float64.
        """
        inside = self.double.moved_over_bound if self.double is not None else 0.0
        if self.kind != Kind.PIECEWISE_LINEAR or max(self.moved_over_bound, inside) >= ENOUGH:
            return ""
        if self.double is None:
            return _NARROW if self.points_held else "no fresh point of the region was found"
        return self.double.left_out or "the outputs do not move inside the region"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data for JSON, by docs/certificate.schema.json."""
        plain: dict[str, Any] = _plain({"verified": self.verified, "untested": self.untested, **asdict(self)})
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """The inverse of `as_dict`; fields that an older version did not have keep their defaults."""
        known = {field.name for field in fields(cls)}
        found = {name: value for name, value in data.items() if name in known}
        found |= {name: Check(**found[name]) for name in ("steps", "slopes") if found.get(name)}
        found["decided_by"] = tuple(found.get("decided_by", ()))
        found["by_step"] = tuple(StepCheck(**row) for row in found.get("by_step", ()))
        if found.get("double"):
            units = tuple(
                Uncertain(**{**one, "unit": tuple(one["unit"])}) for one in found["double"]["units"]
            )
            found["double"] = Double(**{**found["double"], "units": units})
        return cls(**found)

    def _repr_html_(self) -> str:
        compared = {"at x": f"within {self.at_x:.1e}, {self.at_x_over_bound:.2g} of the bound"}
        if self.points_held:
            compared[f"at {self.points_held} fresh points of the region"] = (
                f"within {self.in_region:.1e}, {self.in_region_over_bound:.2g} of the bound"
            )
        if self.steps is not None:
            compared[f"{self.steps.compared} steps"] = f"{self.steps.worst:.2g} of the bound"
        if self.slopes is not None:
            compared[f"slopes of {self.slopes.compared} smooth steps"] = (
                f"{self.slopes.worst:.2g} of the bound"
            )
        if self.double is not None and self.double.points:
            compared[f"W at {self.double.points} points in float64"] = (
                f"within {self.double.in_region:.1e}, {self.double.in_region_over_bound:.2g} of the bound"
            )
        if self.untested:
            compared["W itself"] = f"not tested: {self.untested}"
        examined = f", {verdict(self.ties_that_matter, self.ties_genuine)}" if self.ties else ""
        ties = {"ties": f"{self.ties:,} of {self.guards:,} units that choose{examined}"}
        title = "verified against onnxruntime" if self.verified else f"NOT verified: {self.reason}"
        return facts(title, compared | ties)

    def __repr__(self) -> str:
        return f"Certificate({self})"

    def __str__(self) -> str:
        if not self.verified:
            return f"NOT verified: {self.reason}"
        if self.points_held:
            points = "one fresh point" if self.points_held == 1 else f"{self.points_held} fresh points"
            region = f"{points} of the region within {self.in_region:.1e}"
        elif self.points_tried:
            region = "no fresh point of the region could be reached"
        else:
            region = "smooth, so valid at x only"
        if self.slopes is not None:
            region += f"; slopes of {self.slopes.compared} smooth steps"
        if self.double is not None:
            over = self.double.over_bound
            again = "" if over is None else f"; float64 within {over:.1e} of the bound"
            region += again
            if self.double.points:
                region += ", " if again else "; in float64 "
                region += f"W within {self.double.in_region_over_bound:.1e} at {self.double.points} points"
        ties = ""
        if self.ties:
            count = f"{self.ties:,} {'tie' if self.ties == 1 else 'ties'}"
            ties = f"; {count}, {verdict(self.ties_that_matter, self.ties_genuine)}"
        steps = "" if self.steps is None else f"{self.steps.compared} steps; "
        untested = f"; W not tested: {self.untested}" if self.untested else ""
        return f"verified: {steps}at x within {self.at_x:.1e}; {region}{untested}{ties}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
