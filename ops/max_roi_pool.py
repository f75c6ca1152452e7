"""MaxRoiPool: y = the largest entry of x in each cell of a grid laid on each region of interest.

At x: each cell selects its winner; among equals the first. Cells are rounded outwards to whole entries; one
that holds none gives 0. Guard: the winner against every other entry of its cell.
https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html
"""

from __future__ import annotations

import math

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._pooled import listed_extreme
from ._rule import Local, Site, lowers
from ._sampled import coordinate_type, crossed_positions


@lowers("MaxRoiPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,))
def max_roi_pool(site: Site) -> Local:
    """Select every cell's winner."""
    shape, rois = site.shape(), site.value(1)
    cells = site.integers("pooled_shape") or ()
    rois = rois.astype(coordinate_type(site), copy=False)
    ends = _rounded(rois[:, 1:] * rois.dtype.type(site.attribute("spatial_scale", 1.0)))
    down = _covered(ends[:, 1], ends[:, 3], cells[0], shape[2])[:, :, None]  # (R, rows, 1, n)
    across = _covered(ends[:, 0], ends[:, 2], cells[1], shape[3])[:, None]  # (R, 1, columns, m)
    every = (len(rois), *cells)
    axes = [np.broadcast_to(each, (*every, each.shape[-1])) for each in (down, across)]
    within = crossed_positions(axes, shape[2:])[:, None]  # (R, 1, *cells, n · m)
    first = (rois[:, :1].astype(np.int64) * shape[1] + np.arange(shape[1])) * math.prod(shape[2:])
    return listed_extreme(site, np.where(within < 0, -1, first[..., None, None, None] + within))


def _rounded(x: Array) -> Array:
    """To the nearest integer; halves away from zero, as in C."""
    rounded: Array = np.sign(x) * np.floor(np.abs(x) + x.dtype.type(0.5))
    return rounded.astype(np.int64)


def _covered(start: Array, end: Array, cells: int, length: int) -> Array:
    """The entries of each cell along one axis, (R, cells, n); -1 for none."""
    size = np.maximum(end - start + 1, 1).astype(np.float32)[:, None] / np.float32(cells)
    cell = np.arange(cells, dtype=np.float32)
    bounds = (np.floor(cell * size), np.ceil((cell + 1) * size))
    first, after = (np.clip(bound.astype(np.int64) + start[:, None], 0, length) for bound in bounds)
    entries = first[..., None] + np.arange((after - first).max(initial=0))
    return np.where(entries < after[..., None], entries, -1)
