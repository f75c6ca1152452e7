"""Region: how far an answer holds, and what limits it. A value; the work is done by its `Geometry`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from .arrays import Array, Shape
from .errors import InputError, NonFiniteError, OptionError, UnsupportedError
from .html import facts
from .pattern import pattern_sha256
from .program import Kind, LinearProgram

Norm = float  # 1, 2 or math.inf
Progress = Callable[[int, int], None]  # (done, of)
NORMS: tuple[Norm, ...] = (1, 2, math.inf)
SECONDS = 60.0  # that a search may take where nobody says
GIVEN_UP = "the search was given up before every unit was ruled out"  # note of a radius


@dataclass(frozen=True)
class Unit:
    """One thing that chooses."""

    node: str
    op_type: str
    guard: int  # number of the choice within its node: Clip has two
    unit: tuple[int, ...]  # index in the choice's shape: mostly that of the node's output

    def __str__(self) -> str:
        return f"{self.op_type} node {self.node!r} at {list(self.unit)}"


@dataclass(frozen=True)
class Boundary(Unit):
    """One inequality of the region, and the unit that would choose otherwise beyond it."""

    inequality: int  # row of the guard's half-spaces: a pool's window has one for each loser
    margin: float  # value of the inequality at x; 0 where x lies on it

    @property
    def chooser(self) -> Unit:
        """The unit alone."""
        return Unit(self.node, self.op_type, self.guard, self.unit)

    __str__ = Unit.__str__


@dataclass(frozen=True)
class Radius:
    """The distance from x to the nearest boundary of its region.

    Where `exact`, `distance` is it. Otherwise `distance` belongs to the nearest boundary that was found, so
    the region ends there at the latest, and it holds at least as far as `at_least`.
    """

    norm: Norm  # 1, 2 or math.inf
    distance: float  # to the nearest boundary found; infinite where there is none
    at_least: float  # no boundary is nearer than this
    boundary: Boundary | None  # the nearest found
    step: Array | None = None  # (N,): x + step, flattened and stacked, is a nearest point of that boundary
    ties: int = 0  # units on a kink at x that do not limit, as what they compare does not depend on x
    note: str = ""  # why it is not exact

    @property
    def exact(self) -> bool:
        """Whether no boundary is nearer than the one found."""
        return self.at_least >= self.distance

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON; infinities are null. The step is left out."""
        return {
            "norm": name_of(self.norm),
            "distance": _finite(self.distance),
            "at_least": _finite(self.at_least),
            "exact": self.exact,
            "boundary": None if self.boundary is None else asdict(self.boundary),
            "ties": self.ties,
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Radius:
        """The inverse of `as_dict`."""
        found = data["boundary"]
        boundary = None if found is None else Boundary(**{**found, "unit": tuple(found["unit"])})
        distance, least = (
            math.inf if data[name] is None else data[name] for name in ("distance", "at_least")
        )
        return cls(norm_of(data["norm"]), distance, least, boundary, None, data["ties"], data["note"])

    def __str__(self) -> str:
        size = f"L{name_of(self.norm)}"
        if self.boundary is None:
            return (
                f"{size}: unbounded" if self.exact else f"{size}: at least {self.at_least:.6g}, {self.note}"
            )
        if self.exact:
            return f"{size} {self.distance:.6g} to {self.boundary}"
        least = f"at least {self.at_least:.6g}, at most {self.distance:.6g} to {self.boundary}"
        return f"{size} {least} ({self.note})"


@dataclass(frozen=True)
class Crossing:
    """Where a ray from x first meets a boundary: at x + t · direction."""

    t: float  # at least 0; infinite where it never does
    boundary: Boundary | None
    exact: bool = True  # False where some node jumps nobody knows where


@dataclass(frozen=True, eq=False)
class Inequalities:
    """A z ≤ c for flattened, stacked inputs z, in float64, with what each row keeps."""

    A: Array  # (rows, N)
    c: Array  # (rows,)
    naming: Callable[[], tuple[Boundary, ...]] = field(repr=False)  # `boundaries`, when they are first read

    @cached_property
    def boundaries(self) -> tuple[Boundary, ...]:
        """The node and unit whose choice each row keeps."""
        return self.naming()

    def __len__(self) -> int:
        return len(self.c)

    def select(self, rows: Array | slice) -> Inequalities:
        """Some of the rows, by position."""
        return Inequalities(self.A[rows], self.c[rows], partial(self._named, np.arange(len(self))[rows]))

    def _named(self, rows: Array) -> tuple[Boundary, ...]:
        return tuple(self.boundaries[row] for row in rows)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled and copied with its names, as what makes them cannot travel."""
        return {"A": self.A, "c": self.c, "naming": None, "boundaries": self.boundaries}


class Geometry(Protocol):
    """What works the region of one point out."""

    def radius(
        self, norm: Norm, box: tuple[Array, Array] | None, seconds: float | None, rows: int | None
    ) -> Radius:
        """See `Region.radius`; the box in flattened, stacked inputs."""

    def along(self, direction: Array) -> tuple[Crossing, Crossing]:
        """See `Region.along`; the direction flattened and stacked."""

    def changed(self, z: Array) -> tuple[Unit, ...]:
        """See `Region.changed`; z flattened and stacked."""

    def crossed(self, z: Array) -> tuple[Unit, ...]:
        """See `Region.crossed`; z flattened and stacked."""

    def half_spaces(self) -> Inequalities:
        """See `Region.half_spaces`."""

    def blocks(self, rows: int) -> Iterator[Inequalities]:
        """See `Region.blocks`."""

    def minimal(self, every: Inequalities, progress: Progress | None = None) -> Inequalities:
        """See `Region.minimal`; given all half-spaces."""


@dataclass(eq=False)
class Region:
    """The set of inputs around x on which the same choices are made, so that F(z) = W z + b holds.

    It is an intersection of half-spaces, one or several for each unit that chooses. Nothing is worked out
    before it is asked for; radii are kept. Distances are of the network in exact arithmetic: where a boundary
    is nearer than the model's own rounding, onnxruntime may change its choice a little sooner or later.
    """

    kind: Kind
    shapes: Mapping[str, Shape]  # of the inputs
    x: Array  # (N,) flattened and stacked, float64
    survey: Callable[[], Geometry] | None  # None on a map that was loaded from a file
    pattern: Callable[[], str] | None = None  # the hash of the choices at x; likewise
    found: dict[Norm, Radius] = field(default_factory=dict)  # radii without a box
    _hash: str = ""
    _surveyed: Geometry | None = None

    def radius(
        self,
        norm: Any = 2,
        *,
        lower: Any = None,
        upper: Any = None,
        seconds: float | None = SECONDS,
        rows: int | None = None,
    ) -> Radius:
        """The distance from x to the nearest boundary.

        Every unit's margin m and slope a give its distance m / ‖a‖, in the dual norm. Units are looked at in
        the order of a lower bound on that, until the bound exceeds the nearest distance found.

        Args:
            norm: 1, 2 or math.inf (or their names, "1", "2", "inf").
            lower: smallest admitted inputs, each shaped as x or a number: only boundary points inside count.
            upper: the largest likewise.
            seconds: after which the search is given up and the result labelled; None for never.
            rows: slopes, each a sweep through the network, after which it is given up; None for no limit.

        Raises:
            UnsupportedError: the map is smooth, so that it holds at x only.
            OptionError: another norm; a box that x lies outside of; or a map loaded from a file that did not
                keep this radius.
        """
        wanted = norm_of(norm)
        self._require_extent()
        box = None
        if lower is not None or upper is not None:
            box = (self._bound(lower, -math.inf), self._bound(upper, math.inf))
            if not ((box[0] <= self.x) & (self.x <= box[1])).all():
                raise OptionError("x lies outside of the box between lower and upper")
        kept = self.found.get(wanted)
        if box is None and kept is not None and (kept.exact or self.survey is None):
            return kept
        result = self._geometry("radius").radius(wanted, box, seconds, rows)
        if box is None:
            self.found[wanted] = result
        return result

    def along(self, direction: Any) -> tuple[Crossing, Crossing]:
        """Where the rays x + t · direction and x - t · direction leave the region, t ≥ 0.

        Margins change in proportion to t until the first boundary, so one sweep gives both exactly.

        Args:
            direction: shaped as x; input name to array where there are several inputs.
        """
        self._require_extent()
        flat = self._flat(direction, "direction")
        if not flat.any():
            raise OptionError("direction is zero, so it leads nowhere")
        return self._geometry("along").along(flat)

    def contains(self, z: Any) -> bool:
        """Whether the model makes the same choices at z, by one run of it.

        Args:
            z: shaped as x; input name to array where there are several inputs.
        """
        return not self.changed(z)

    def changed(self, z: Any) -> tuple[Unit, ...]:
        """The units that choose otherwise at z than at x, by one run of the model; z as in `contains`.

        Raises:
            NonFiniteError: the model does not compute at z.
        """
        self._require_extent()
        return self._geometry("changed").changed(self._flat(z, "z"))

    def crossed(self, z: Any) -> tuple[Unit, ...]:
        """The units one of whose inequalities does not hold strictly at z; z as in `contains`.

        By the half-spaces at x, in exact arithmetic, without a run of the model. Near a boundary they are
        those that `changed` tells; further out units change because others did.
        """
        self._require_extent()
        return self._geometry("crossed").crossed(self._flat(z, "z"))

    def half_spaces(self) -> Inequalities:
        """All inequalities A z ≤ c that keep the choices; `blocks` where A is too large.

        Rows that do not depend on z are left out.

        Raises:
            MemoryLimitError: A does not fit.
        """
        self._require_extent()
        return self._geometry("half_spaces").half_spaces()

    def blocks(self, rows: int = 1024) -> Iterator[Inequalities]:
        """The same in blocks of so many rows at most, one after the other."""
        self._require_extent()
        if rows < 1:
            raise OptionError(f"a block has at least one row, not {rows}")
        return self._geometry("half_spaces").blocks(rows)

    def minimal(self, progress: Progress | None = None) -> Inequalities:
        """The inequalities that none of the others imply: the region's facets.

        By linear programs, about one for each inequality: for small networks.

        Args:
            progress: called with the inequalities decided so far and their number.
        """
        every = self.half_spaces()
        return self._geometry("minimal").minimal(every, progress)

    @property
    def pattern_sha256(self) -> str:
        """A hash of all choices that the model makes at x: equal for points of one region."""
        if not self._hash:
            if self.pattern is None:
                raise OptionError("this map was loaded from a file that does not tell the pattern at x")
            self._hash = self.pattern()
        return self._hash

    def as_dict(self) -> dict[str, Any]:
        """What is known by now as plain data, for JSON."""
        radii = [self.found[norm].as_dict() for norm in NORMS if norm in self.found]
        return {"radii": radii, "pattern_sha256": self._hash}

    def keep(self, data: Mapping[str, Any]) -> None:
        """Take facts over that `as_dict` gave."""
        radii = [Radius.from_dict(one) for one in data.get("radii", ())]
        self.found.update((one.norm, one) for one in radii)
        self._hash = data.get("pattern_sha256", self._hash)

    def facts(self) -> Region:
        """The same without what computes it, for a copy that travels."""
        known = self._hash if self.pattern is None else self.pattern_sha256
        return replace(self, survey=None, pattern=None, _surveyed=None, _hash=known)

    def _geometry(self, wanted: str) -> Geometry:
        if self.survey is None:
            raise OptionError(
                f"this map was loaded from a file, which keeps of the region only the radii that had been "
                f"asked for; linearize again for {wanted}"
            )
        if self._surveyed is None:
            self._surveyed = self.survey()
        return self._surveyed

    def _require_extent(self) -> None:
        if self.kind is Kind.SMOOTH:
            raise UnsupportedError(
                "the map is smooth, so it holds at x only and has no region; name a tensor before the "
                "first smooth operator in outputs"
            )

    def _flat(self, value: Any, what: str) -> Array:
        return flattened(self.shapes, value, what)

    def _bound(self, value: Any, default: float) -> Array:
        if value is None:
            return np.full(self.x.size, default)
        if np.ndim(value) == 0 and not isinstance(value, Mapping):
            return np.full(self.x.size, float(value))
        if isinstance(value, Mapping):
            value = {
                name: np.broadcast_to(part, self.shapes[name])
                if np.ndim(part) == 0 and name in self.shapes
                else part
                for name, part in value.items()
            }
        return self._flat(value, "a bound of the box")

    def _repr_html_(self) -> str:
        radii = {f"radius L{name_of(norm)}": str(self.found[norm]) for norm in NORMS if norm in self.found}
        return facts(f"Region ({self.kind})", radii or {"radius": "not yet asked for"})

    def __repr__(self) -> str:
        known = "; ".join(str(self.found[norm]) for norm in NORMS if norm in self.found)
        return f"Region({self.kind}, {known or 'radius not yet asked for'})"


def region_of(
    kind: Kind,
    x: Mapping[str, Array],
    survey: Callable[[], Geometry] | None,
    program: LinearProgram | None,
) -> Region:
    """The region of a point.

    Args:
        kind: of the map there.
        x: input name to value.
        survey: what works it out.
        program: the network there, in any type.
    """
    flat = np.concatenate([np.ravel(value) for value in x.values()]).astype(np.float64)
    pattern = None if program is None else partial(pattern_sha256, program)
    return Region(kind, {name: value.shape for name, value in x.items()}, flat, survey, pattern)


def flattened(shapes: Mapping[str, Shape], value: Any, what: str) -> Array:
    """A point or direction flattened and stacked, (N,) in float64.

    Args:
        shapes: of the inputs.
        value: shaped as the input; input name to array where there are several.
        what: it is called in an error.

    Raises:
        InputError: other inputs or shapes.
        NonFiniteError: NaN or infinity.
    """
    given = value if isinstance(value, Mapping) else {next(iter(shapes)): value}
    if set(given) != set(shapes):
        raise InputError(f"{what} takes the inputs {', '.join(shapes)}")
    parts = []
    for name, shape in shapes.items():
        part = np.asarray(given[name], np.float64)
        if part.shape not in (shape, shape[1:]) or part.size != math.prod(shape):
            raise InputError(
                f"input {name!r} has shape {list(shape)}, but {what} has shape {list(part.shape)}"
            )
        if not np.isfinite(part).all():
            raise NonFiniteError(f"{what} holds NaN or an infinity in input {name!r}")
        parts.append(part.ravel())
    return np.concatenate(parts)


def norm_of(norm: Any) -> Norm:
    """1, 2 or math.inf, from a number or its name.

    Raises:
        OptionError: anything else.
    """
    for known in NORMS:
        if norm == known or norm == name_of(known):
            return known
    raise OptionError(f"unknown norm {norm!r}; choose from 1, 2 and inf")


def name_of(norm: Norm) -> str:
    """A norm's name."""
    return "inf" if norm == math.inf else f"{norm:g}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
