"""GridSample: y = x read at the coordinates of a grid, between its entries.

Linear in x for a fixed grid: each output is the entry of x nearest to its coordinate, or a weighted mean of
the entries around it, along every axis. What lies beyond the border is 0, the border itself, or x reflected
there. Coordinates and weights are rounded as onnxruntime rounds them.
https://onnx.ai/onnx/operators/onnx__GridSample.html
"""

from __future__ import annotations

import math

import numpy as np

from ..runtime.primitives import Array
from ._interpolation import far, near
from ._moves import gathered
from ._rule import Local, Site, lowers
from ._sampled import coordinate_type, corners, crossed_positions, crossed_weights, inside, sampled

_LINEAR, _CUBIC = ("linear", "bilinear"), ("cubic", "bicubic")  # bilinear and bicubic before opset 20
_COEFFICIENT = -0.75  # of the cubic kernel


@lowers("GridSample", linear_in=(0,))
def grid_sample(site: Site) -> Local:
    """Read x at the grid's coordinates."""
    (batch, channels, *spatial), grid = site.shape(0), site.value(1)
    if not np.isfinite(grid).all():
        raise site.refuse("its grid holds NaN or infinite coordinates, for which no result is defined")
    grid = grid.astype(coordinate_type(site), copy=False)
    taps, weights = [], []
    for axis, length in enumerate(spatial):
        x = _coordinates(site, grid[..., -1 - axis], length)  # the grid lists axes from the last to the first
        around, weight = _around(site, x.reshape(batch, math.prod(x.shape[1:])))
        taps.append(_within(site, around, length))
        weights.append(weight)
    positions = crossed_positions(taps, tuple(spatial))  # (N, P, T)
    out_shape = (batch, channels, *grid.shape[1:-1])
    if positions.shape[-1] == 1:
        first = np.arange(batch * channels).reshape(batch, channels, 1) * math.prod(spatial)
        index = np.where(positions[:, None, :, 0] < 0, -1, first + positions[:, None, :, 0])
        return Local(gathered(site, index.reshape(out_shape)))
    return Local(sampled(site.shape(0), np.arange(batch), positions, crossed_weights(weights), out_shape))


def _coordinates(site: Site, n: Array, length: int) -> Array:
    """Where -1 … 1 lies among the entries of an axis: between the outer ones, or their outer edges."""
    if site.attribute("align_corners", 0):
        return np.asarray((n + 1) / 2 * (length - 1))
    return np.asarray(((n + 1) * length - 1) / 2)


def _around(site: Site, x: Array) -> tuple[Array, Array]:
    """The entries that each coordinate is read from, and their weights, (…, t)."""
    mode = site.attribute("mode")
    if mode == "nearest":
        return np.rint(x).astype(np.int64)[..., None], np.ones((*x.shape, 1), x.dtype)
    if mode in _LINEAR:
        return corners(x)
    if mode not in _CUBIC:
        raise site.refuse(f"mode is {mode!r}; set it to nearest, linear or cubic")
    low, a = np.floor(x), x.dtype.type(_COEFFICIENT)
    d = x - low
    weights = [far(d + 1, a), near(d, a), near(1 - d, a), far(2 - d, a)]
    return low.astype(np.int64)[..., None] + np.arange(-1, 3), np.stack(weights, axis=-1)


def _within(site: Site, taps: Array, length: int) -> Array:
    """Positions by the padding mode: those beyond the border give 0 (-1), repeat it or are reflected."""
    padding = site.attribute("padding_mode")
    if padding == "zeros":
        return inside(taps, length)
    if padding == "border":
        return np.clip(taps, 0, length - 1)
    if padding != "reflection":
        raise site.refuse(f"padding_mode is {padding!r}; set it to zeros, border or reflection")
    if not site.attribute("align_corners", 0):  # the border is the outer edge: its entry comes twice
        turned = taps % (2 * length)
        return np.asarray(np.minimum(turned, 2 * length - 1 - turned))
    if length == 1 and taps.any():
        raise site.refuse(
            "onnxruntime reads outside of an axis of length 1 when it reflects with align_corners; "
            "set padding_mode to border, which is meant"
        )
    turned = taps % max(2 * (length - 1), 1)
    return np.asarray(np.minimum(turned, 2 * (length - 1) - turned))
