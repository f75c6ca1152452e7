"""Interpolation along one axis of Resize: the (out, in) matrix of its weights, or the entries nearest picks.

An output entry o sits at a coordinate x(o) among the input entries. Floors and ties decide which entries it
reads, so coordinates and weights are rounded as onnxruntime rounds them: every step in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..runtime.primitives import Array


@dataclass(frozen=True)
class Axis:
    """One axis of x and of y."""

    length: int  # in x
    resized: int  # in y
    scale: np.float32  # as given, or resized / length
    start: np.float32  # of the region of interest, in parts of the axis
    end: np.float32

    @property
    def still(self) -> bool:
        """Whether entries stay where they are: onnxruntime skips an axis of scale 1, roi or not."""
        return bool(self.scale == 1)


@dataclass(frozen=True)
class Filter:
    """How the weights around a coordinate are made."""

    cubic: bool  # else linear
    coefficient: np.float32  # a of the cubic kernel
    antialias: bool  # widen the kernel as the axis shrinks
    exclude_outside: bool  # entries beyond the border weigh 0; else they repeat the border


# -- coordinates ---------------------------------------------------------------------------------------


def _half_pixel(o: Array, axis: Axis) -> Array:
    return (o + 0.5) / axis.scale - 0.5


def _half_pixel_symmetric(o: Array, axis: Axis) -> Array:
    # The one coordinate that onnxruntime sums up in float64.
    adjustment = np.float32(axis.resized) / (axis.scale * np.float32(axis.length))
    offset = np.float32(axis.length / 2) * (np.float32(1) - adjustment)
    return float(offset) + (o.astype(np.float64) + 0.5) / float(axis.scale) - 0.5


def _align_corners(o: Array, axis: Axis) -> Array:
    return o * (axis.length - 1) / max(axis.resized - 1, 1)


def _crop(o: Array, axis: Axis) -> Array:
    last = np.float32(axis.length - 1)
    if axis.resized == 1:
        return np.asarray(o + 0.5 * (axis.start + axis.end) * last)
    return np.asarray(axis.start * last + o * (axis.end - axis.start) * last / (axis.resized - 1))


COORDINATES: dict[str, Callable[[Array, Axis], Array]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda o, axis: _half_pixel(o, axis) if axis.resized > 1 else o,
    "align_corners": _align_corners,
    "asymmetric": lambda o, axis: o / axis.scale,
    "tf_half_pixel_for_nn": lambda o, axis: (o + 0.5) / axis.scale,
    "tf_crop_and_resize": _crop,
}


def coordinates(axis: Axis, mode: str) -> Array:
    """Where the output entries sit among the input entries, (resized,)."""
    o = np.arange(axis.resized, dtype=np.float32)
    return o if axis.still else COORDINATES[mode](o, axis).astype(np.float32)


# -- nearest -------------------------------------------------------------------------------------------

# onnxruntime 1.32 takes for a tie what is this close to a half; 1.20 and the specification, an exact half.
_TIE = 1e-6

ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5 - _TIE),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5 + _TIE),
    "floor": np.floor,
    "ceil": np.ceil,
}


def nearest(axis: Axis, x: Array, rounding: str) -> Array:
    """The input entry that each coordinate picks, (resized,)."""
    rounded = ROUNDINGS[rounding](x.astype(np.float64))  # in float64, x ± 0.5 is exact
    return np.clip(rounded, 0, axis.length - 1).astype(np.int64)


# -- linear and cubic ----------------------------------------------------------------------------------


def axis_matrix(axis: Axis, x: Array, kind: Filter) -> sparse.csr_array:
    """Weights of the input entries at each coordinate, (resized, length)."""
    if kind.antialias and axis.resized == axis.length:
        return sparse.eye_array(axis.length, dtype=np.float32, format="csr")
    columns, weights = (_widened if kind.antialias else _around)(axis, x, kind)  # (resized, taps)
    if kind.exclude_outside:
        weights = np.where((columns >= 0) & (columns < axis.length), weights, 0)
    if kind.exclude_outside or kind.antialias:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    rows = np.broadcast_to(np.arange(axis.resized)[:, None], columns.shape)
    places = rows.ravel(), np.clip(columns, 0, axis.length - 1).ravel()
    matrix = sparse.coo_array((weights.ravel(), places), shape=(axis.resized, axis.length)).tocsr()
    matrix.eliminate_zeros()
    return matrix


def _around(axis: Axis, x: Array, kind: Filter) -> tuple[Array, Array]:
    """The two entries around each coordinate, or four, with the kernel's weights."""
    if not kind.cubic:
        x = np.clip(x, 0, axis.length - 1)
    left = np.floor(x)
    s, a = (x - left)[:, None], kind.coefficient
    if kind.cubic:
        taps, weights = np.arange(-1, 3), [far(s + 1, a), near(s, a), near(1 - s, a), far(2 - s, a)]
    else:
        taps, weights = np.arange(2), [1 - s, s]
    return left.astype(np.int64)[:, None] + taps, np.hstack(weights)


def _widened(axis: Axis, x: Array, kind: Filter) -> tuple[Array, Array]:
    """The entries under a kernel that is stretched by 1 / scale where the axis shrinks."""
    stretch = max(np.float32(1) / axis.scale, np.float32(1))
    support, center = np.float32(2 if kind.cubic else 1) * stretch, x + np.float32(0.5)
    first, end = np.floor(center - support + 0.5), np.floor(center + support + 0.5)
    columns = first[:, None] + np.arange(int((end - first).max(initial=0)), dtype=np.float32)
    d, a = np.abs((columns - center[:, None] + 0.5) * (np.float32(1) / stretch)), kind.coefficient
    if kind.cubic:
        weights = np.where(d < 1, near(d, a), np.where(d < 2, a * far(d, np.float32(1)), 0))
    else:
        weights = np.maximum(1 - d, 0)
    return columns.astype(np.int64), np.where(columns < end[:, None], weights, 0)


# Keys's cubic convolution kernel (IEEE Trans. ASSP 29, 1981) at distances 0 ≤ d ≤ 1 and 1 ≤ d ≤ 2.


def near(d: Array, a: np.float32) -> Array:
    return ((a + 2) * d - (a + 3)) * d * d + 1


def far(d: Array, a: np.float32) -> Array:
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
