"""What a comparison with onnxruntime takes to be made again, by somebody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .arrays import Array
from .rounding import Arithmetic


@dataclass(frozen=True, eq=False)
class Interior:
    """Points inside a region by its geometry, to compare a map's slopes with the model in float64."""

    points: Mapping[str, Array]  # input name to (1 + Q, *shape) in float64: the base, mostly x, and z
    bounds: Array  # (Q, K): what rounding may do to W (z - base) - (F(z) - F(base)), F evaluated in float64
    products: int  # multiply-adds that evaluating the model once takes
    windows: int  # windows of pools, likewise
    left_out: str = ""  # why Q = 0, if so


@dataclass(frozen=True, eq=False)
class Record:
    """Points of a region, and how far its map may be from a run of the model there."""

    points: Mapping[str, Array]  # input name to (P, *shape): fresh points; P = 0 where it is smooth
    bounds: Array  # (1 + P, K): what rounding may do to W z + b - F(z), at x and at these points
    convex: bool  # whether what lies between two points of the region is of the region
    interior: Interior | None = None  # None on maps of a file that was written before there were any


def is_near(x: Array, step: Array) -> bool:
    """Whether a step from x is no larger than the spacing of its type's numbers about its largest entry."""
    spacing = 2 * Arithmetic.of(x.dtype).u
    largest = np.abs(x.astype(np.float64)).max(initial=0.0)
    return bool(np.abs(step).max(initial=0.0) <= spacing * largest)
