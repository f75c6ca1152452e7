"""Ties: units exactly on a kink at x, which of them matter, and the maps that meet there.

A value; the work is done by its `Crossroads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from .arrays import Array, Shape
from .errors import OptionError
from .html import table
from .region import Unit, flattened

STILL = "its margin does not move with x"
UNFELT = "no row that was asked for depends on it"


@dataclass(frozen=True)
class Tie(Unit):
    """One unit that sits exactly on a kink at x."""

    convention: str  # by which its choice was made
    harmless: str  # why another choice gives the same W and b; "" where it may give others

    __str__ = Unit.__str__


@dataclass(frozen=True)
class TiedNode:
    """The ties of one choice of a node, counted."""

    node: str
    op_type: str
    guard: int  # number of the choice within its node
    convention: str
    ties: int
    still: int  # of those, harmless as their margin is the same function 0 on all sides of x
    unfelt: int  # others that are harmless as no row depends on what they choose

    @property
    def matter(self) -> int:
        """Ties whose other choice may give another W or b."""
        return self.ties - self.still - self.unfelt


@dataclass(frozen=True)
class Side:
    """How the map of the region on one side of x differs from the reported one."""

    turned: int  # units that choose otherwise there
    rows: tuple[int, ...]  # positions of the rows whose W or b is another there
    change: float | None  # largest |difference of W|; None where not known, or where W does not fit
    offset: float | None  # largest |difference of b|, likewise
    note: str = ""  # why nothing of that is known, if so


@dataclass(frozen=True, eq=False)
class OneSided:
    """z ↦ W z + b: the map of the region that is entered from x along a direction, in float64."""

    W: Array  # (K, N)
    b: Array  # (K,)
    turned: int  # units that choose otherwise than in the reported map


class Crossroads(Protocol):
    """What resolves the ties of one point along directions."""

    def along(self, direction: Array) -> OneSided:
        """See `Ties.along`; the direction flattened and stacked."""


@dataclass(frozen=True, eq=False, repr=False)
class Ties:
    """The ties at x. Counts are of units; a tie matters where it is not shown to be harmless."""

    nodes: tuple[TiedNode, ...]  # that have ties, in execution order
    units: tuple[Tie, ...]  # those that matter first; a bounded number
    sides: tuple[Side, ...]  # along a generic direction and against it; none where no tie matters
    genuine: bool | None  # whether the choices at x are together those of a region; None: not known
    shapes: Mapping[str, Shape] = field(default_factory=dict, repr=False)  # of the inputs
    crossroads: Crossroads | None = field(default=None, repr=False)  # None on a map that was loaded
    witness: Array | None = field(default=None, repr=False)  # (N,): W is the derivative along it, if known

    @property
    def count(self) -> int:
        """All ties."""
        return sum(node.ties for node in self.nodes)

    @property
    def matter(self) -> int:
        """Ties whose other choice may give another W or b."""
        return sum(node.matter for node in self.nodes)

    @property
    def harmless(self) -> int:
        """Ties whose other choice gives the same W and b."""
        return self.count - self.matter

    def along(self, direction: Any) -> OneSided:
        """The map of the region that is entered from x along a direction: W · direction = F'(x; direction).

        Every tie is resolved by the derivative of its margin along the direction, in execution order, as
        later ties depend on earlier choices; what is left undecided by a fixed generic direction.

        Args:
            direction: shaped as x; input name to array where there are several inputs.

        Raises:
            InputError: another shape.
            NonFiniteError: a direction with NaN or infinity.
            OptionError: a direction of zero, or a map that was loaded from a file.
            UnsupportedError: the model jumps at x in this direction, or the sides cannot be told apart.
            MemoryLimitError: W does not fit in float64.
        """
        if self.crossroads is None:
            raise OptionError(
                "this map was loaded from a file, which keeps of its ties only how they came out; "
                "linearize again for along"
            )
        way = flattened(self.shapes, direction, "direction")
        if not way.any():
            raise OptionError("direction is zero, so it leads nowhere")
        return self.crossroads.along(way)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON, with the counts."""
        return {
            "count": self.count,
            "harmless": self.harmless,
            "matter": self.matter,
            "genuine": self.genuine,
            "nodes": [asdict(node) for node in self.nodes],
            "units": [asdict(unit) for unit in self.units],
            "sides": [asdict(side) for side in self.sides],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ties:
        """The inverse of `as_dict`, without what resolves ties."""
        return cls(
            tuple(TiedNode(**one) for one in data["nodes"]),
            tuple(Tie(**{**one, "unit": tuple(one["unit"])}) for one in data["units"]),
            tuple(Side(**{**one, "rows": tuple(one["rows"])}) for one in data["sides"]),
            data["genuine"],
        )

    def facts(self) -> Ties:
        """The same without what resolves ties, for a copy that travels."""
        return replace(self, crossroads=None)

    def __str__(self) -> str:
        if not self.count:
            return "no ties"
        return f"{self.count:,} {'tie' if self.count == 1 else 'ties'}: {verdict(self.matter, self.genuine)}"

    def __repr__(self) -> str:
        return f"Ties({self})"

    def _repr_html_(self) -> str:
        columns = ("node", "op", "convention", "ties", "may matter")
        rows = [(one.node, one.op_type, one.convention, one.ties, one.matter) for one in self.nodes]
        return table(str(self), columns, rows)


def verdict(matter: int | None, genuine: bool | None) -> str:
    """What ties mean for W, in a few words.

    Args:
        matter: how many matter; None where nobody looked.
        genuine: as in `Ties`.
    """
    if matter is None:
        return "not examined"
    if not matter:
        return "all harmless"
    which = {
        True: "W is one of several one-sided maps",
        False: "their choices are those of no region",
        None: "W may be a mixture of one-sided maps",
    }[genuine]
    return f"{matter:,} may matter: {which}"
