"""What distances from an input are compared with, for readers who do not know whether 0.0001 is much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..runtime.arrays import Array
from .numbers import number, part


@dataclass(frozen=True, eq=False)
class Yardstick:
    """The input that distances start from."""

    x: Array  # (N,)
    entry: Callable[[int], str]  # names the entries
    alike: bool  # whether all of them are in one unit, so that they have a range

    @property
    def range(self) -> str:
        """The range of the input's values, in words; "" where there is none."""
        low, high = float(self.x.min()), float(self.x.max())
        return f"from {number(low)} to {number(high)}" if self.alike and high > low else ""

    @property
    def header(self) -> str:
        """What stands above several `shares`."""
        return "of the input’s range" if self.range else "changes most for its size"

    def share(self, distance: float, step: Array | None) -> str:
        """How much of something known a distance is: "about one part in 8,300".

        Args:
            distance: of a change of the input, in any norm.
            step: (N,) the change itself, where it is known: of values in several units, that which it
                changes the most for its size is told.

        Returns:
            Words, or "" where there is nothing to compare with.
        """
        if not 0 < distance < math.inf:
            return ""
        if self.range:
            return part(distance / float(np.ptp(self.x)))
        if self.alike or step is None:
            return ""
        shares = np.divide(np.abs(step), np.abs(self.x), out=np.zeros(len(self.x)), where=self.x != 0)
        most = int(np.argmax(shares))
        return f"{self.entry(most)} by {part(float(shares[most]))}" if shares[most] else ""

    def told(self, distance: float, step: Array | None) -> str:
        """A `share` as a phrase: about one part in 8,300 of the input’s range."""
        share = self.share(distance, step)
        if not share:
            return ""
        return f"{share} {self.header}" if self.range else f"most of all {share}"
