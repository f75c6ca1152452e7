"""What was checked of an answer, how far off it was, and against which bound."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .ties import verdict


@dataclass(frozen=True)
class Check:
    """One comparison. `worst` is the largest deviation over its own bound: at most 1 where it holds."""

    passed: bool
    worst: float
    worst_node: str = ""
    first_bad_node: str = ""
    compared: int = 0


@dataclass(frozen=True)
class Certificate:
    """Verification of one map against onnxruntime.

    Deviations are absolute, in the units of the outputs; every `…_over_bound` is the deviation divided by
    a bound on the rounding errors, derived from the arithmetic: at most 1 where the map holds.
    """

    steps: Check  # at x, every step by itself
    at_x: float  # largest |W x + b - F(x)|
    at_x_over_bound: float
    in_region: float  # the same at fresh points with x's activation pattern
    in_region_over_bound: float
    points_tried: int  # points stepped to
    points_held: int  # those of them with x's activation pattern
    ties: int  # units and windows exactly on a kink at x
    guards: int  # all units and windows with a choice
    reason: str = ""  # why it is not verified, if so
    slopes: Check | None = None  # of smooth steps, against differences of their equations; None without any
    ties_that_matter: int | None = None  # of the ties; None where they were not examined (`AffineMap.ties`)
    ties_genuine: bool | None = None  # then: whether the choices at x are those of a region, if known

    @property
    def verified(self) -> bool:
        """Whether everything that was checked holds."""
        return not self.reason

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return {"verified": self.verified, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Certificate:
        """The inverse of `as_dict`."""
        fields = {name: value for name, value in data.items() if name != "verified"}
        checks = {name: Check(**fields[name]) for name in ("steps", "slopes") if fields.get(name)}
        return cls(**{**fields, **checks})

    def __str__(self) -> str:
        if not self.verified:
            return f"NOT verified: {self.reason}"
        if self.points_held:
            region = f"{self.points_held} fresh points of the region within {self.in_region:.1e}"
        elif self.points_tried:
            region = "no fresh point of the region could be reached"
        else:
            region = "smooth, so valid at x only"
        if self.slopes is not None:
            region += f"; slopes of {self.slopes.compared} smooth steps"
        ties = ""
        if self.ties:
            count = f"{self.ties:,} {'tie' if self.ties == 1 else 'ties'}"
            ties = f"; {count}, {verdict(self.ties_that_matter, self.ties_genuine)}"
        return f"verified: {self.steps.compared} steps; at x within {self.at_x:.1e}; {region}{ties}"
