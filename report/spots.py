"""Where most of a large map lies: a small box of it, to be shown larger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..runtime.arrays import Array

_HELD = 0.9  # of all sizes by the box's rows, and by its columns: at least 0.8 by both
_MARGIN = 0.15  # of the box's own side, on each side of it
_LEAST = 8  # entries a side
_LARGE = 64  # entries on the longer side, from which a picture hides a small spot
_SMALL = 0.25  # of the whole, up to which a box is worth showing larger


@dataclass(frozen=True)
class Spot:
    """A box of a map (H, W), as half-open ranges, and the share of all sizes that it holds."""

    top: int
    bottom: int
    left: int
    right: int
    share: float

    def of(self, values: Array) -> Array:
        """The box of a map, or of several that lie above one another: (..., H, W)."""
        return values[..., self.top : self.bottom, self.left : self.right]


def spot_of(values: Array) -> Spot | None:
    """The box that holds most of a map (H, W), with a margin; None where it is small or spread out.

    The shortest run of rows that holds nine tenths of all sizes crosses that of columns.
    """
    sizes = np.abs(values.astype(np.float64))
    total = float(sizes.sum())
    if max(sizes.shape) < _LARGE or not total:
        return None
    top, bottom = _widened(*_shortest(sizes.sum(axis=1)), sizes.shape[0])
    left, right = _widened(*_shortest(sizes.sum(axis=0)), sizes.shape[1])
    if (bottom - top) * (right - left) > _SMALL * sizes.size:
        return None
    return Spot(top, bottom, left, right, float(sizes[top:bottom, left:right].sum()) / total)


def _shortest(sizes: Array) -> tuple[int, int]:
    """The shortest run of sizes (L,) that holds `_HELD` of their sum, as a half-open range."""
    sums = np.concatenate([[0.0], np.cumsum(sizes)])
    ends = np.searchsorted(sums, sums[:-1] + _HELD * sums[-1])
    starts = np.flatnonzero(ends < len(sums))
    start = int(starts[np.argmin(ends[starts] - starts)])
    return start, int(ends[start])


def _widened(start: int, end: int, length: int) -> tuple[int, int]:
    """A range with its margin, and of some length, as far as there is room."""
    more = max(int(np.ceil(_MARGIN * (end - start))), -(-(_LEAST - (end - start)) // 2))
    return max(0, start - more), min(length, end + more)
