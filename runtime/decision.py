"""Where two outputs of an affine map are equally large, and how far that is from x."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arrays import Array, overflow_refused_later, unstack
from .errors import NonFiniteError, UnsupportedError
from .program import Kind
from .region import Norm, Region, name_of, norm_of

_DUAL: dict[Norm, Norm] = {1: math.inf, 2: 2, math.inf: 1}


@dataclass(frozen=True, eq=False)
class Nearest:
    """The point nearest to x at which the map gives both outputs the same value."""

    norm: Norm  # 1, 2 or math.inf
    distance: float  # infinite where there is no such point
    step: Array | None  # (N,): x + step, flattened and stacked, is that point
    inside: bool | None  # whether it lies in x's region, so that the network agrees there; None: not known


@dataclass(frozen=True, eq=False)
class DecisionBoundary:
    """{z : F_a(z) = F_b(z)} of the affine map: the hyperplane g·(z - x) + m = 0, with g = W_a - W_b.

    It is the map's. The network's own boundary is the same within x's region, so a nearest point that lies
    inside is one of the network's as well; beyond the region it says nothing of the network.
    """

    margin: float  # m = F_a(x) - F_b(x), of the map
    slopes: Array  # g, (N,) float64
    region: Region
    _found: dict[Norm, Nearest] = field(default_factory=dict, repr=False)

    def nearest(self, norm: Any = 2) -> Nearest:
        """The distance |m| / ‖g‖ in the dual norm, and the point that has it.

        Whether it lies in the region takes one run of the model. Found once and then kept.

        Args:
            norm: 1, 2 or math.inf (or their names, "1", "2", "inf").

        Raises:
            OptionError: another norm.
        """
        wanted = norm_of(norm)
        if wanted not in self._found:
            self._found[wanted] = self._nearest(wanted)
        return self._found[wanted]

    def _nearest(self, norm: Norm) -> Nearest:
        if self.margin == 0:
            return Nearest(norm, 0.0, np.zeros_like(self.slopes), self._inside(np.zeros_like(self.slopes)))
        largest = float(np.abs(self.slopes).max(initial=0.0))
        if largest == 0:
            return Nearest(norm, math.inf, None, None)
        g = self.slopes / largest  # so that squares neither overflow nor vanish
        size = float(np.linalg.norm(g, _DUAL[norm]))
        # The unit vector of the norm along which g falls or rises fastest: g·u = ‖g‖ in the dual norm.
        u: Array
        if norm == 1:
            u = np.zeros_like(g)
            steepest = int(np.abs(g).argmax())
            u[steepest] = np.sign(g[steepest])
        else:
            u = g / size if norm == 2 else np.sign(g)
        with overflow_refused_later():
            distance = float(np.abs(self.margin) / size / largest)
            step = -math.copysign(1.0, self.margin) * distance * u
        if not math.isfinite(distance):  # farther away than numbers go
            return Nearest(norm, math.inf, None, None)
        return Nearest(norm, distance, step, self._inside(step))

    def _inside(self, step: Array) -> bool | None:
        if self.region.survey is None or self.region.kind is Kind.SMOOTH:
            return None
        try:
            return self.region.contains(unstack(self.region.x + step, self.region.shapes))
        except (UnsupportedError, NonFiniteError):  # no region is known, or the model does not compute there
            return None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON; infinities are null. The steps are left out."""
        found = [self.nearest(norm) for norm in _DUAL]
        distances = [
            {
                "norm": name_of(one.norm),
                "distance": one.distance if math.isfinite(one.distance) else None,
                "inside": one.inside,
            }
            for one in found
        ]
        return {"margin": self.margin, "nearest": distances}
