"""RoiAlign: y = x pooled over the cells of a grid laid on each region of interest.

In every cell some points are read between the entries of x. Mode avg averages them, which is linear in x for
fixed regions. Mode max takes, as onnxruntime does, the largest of all weighted entries around all points
rather than the largest of their sums: at x each cell passes its winner, scaled by its weight; among equals
the first wins. Guard: the winner against every other weighted entry.
https://onnx.ai/onnx/operators/onnx__RoiAlign.html
"""

from __future__ import annotations

import math

import numpy as np

from ..runtime.primitives import Array, Scale, Shape, chain
from ..runtime.program import Guard, HalfSpaces, Kind
from ._moves import gathered
from ._rule import Local, Site, lowers
from ._sampled import coordinate_type, crossed_positions, crossed_weights, sampled


@lowers("RoiAlign", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,))
def roi_align(site: Site) -> Local:
    """Average what is read in each cell, or take the largest."""
    cells = (int(site.attribute("output_height", 1)), int(site.attribute("output_width", 1)))
    images, rois = site.value(2).astype(np.int64), site.value(1)
    rois = rois.astype(coordinate_type(site), copy=False)
    spatial = site.shape()[2:]
    points = [_points(site, rois[:, [1 - i, 3 - i]], cells[i], spatial[i]) for i in range(2)]
    count = np.maximum(points[0][2] * points[1][2], 1)  # (R,) points in a cell
    positions, weights = _crossed(points, spatial)
    if site.attribute("mode", "avg") == "max":
        return _largest(site, images, positions, weights, cells)
    shares = weights / count[:, None, None].astype(weights.dtype)
    return Local(sampled(site.shape(), images, positions, shares, (len(rois), site.shape()[1], *cells)))


Points = tuple[Array, Array, Array]  # (R, cells, n, 2) entries and weights, (R,) how many of the n there are


def _points(site: Site, ends: Array, cells: int, length: int) -> Points:
    """Where each cell is read along one axis: the two entries around each point.

    Regions are (R, 2), from start to end. Points farther than 1 beyond x weigh 0, others are moved into x.
    """
    real = ends.dtype.type
    half_pixel = site.attribute("coordinate_transformation_mode", "output_half_pixel") == "half_pixel"
    start, end = (ends * real(site.attribute("spatial_scale", 1.0)) - real(0.5 if half_pixel else 0)).T
    extent = end - start if half_pixel else np.maximum(end - start, real(1))
    bins = (extent / real(cells))[:, None, None]
    ratio = int(site.attribute("sampling_ratio", 0))
    counts = np.full(len(ends), ratio) if ratio > 0 else np.maximum(np.ceil(bins[:, 0, 0]), 0).astype(int)
    number = np.arange(counts.max(initial=0))
    cell = np.arange(cells, dtype=ends.dtype)[:, None]
    within = (
        (number.astype(ends.dtype) + real(0.5))
        * bins
        / np.maximum(counts, 1).astype(ends.dtype)[:, None, None]
    )
    x = start[:, None, None] + cell * bins + within  # (R, cells, n)
    read = (x >= -1) & (x <= length)
    x = np.clip(x, 0, length - 1)
    low = np.floor(x)
    around = np.minimum(low.astype(np.int64)[..., None] + np.arange(2), length - 1)
    weights = np.stack([1 - (x - low), x - low], axis=-1) * read[..., None]
    exists = number < counts[:, None, None]
    return np.where(exists[..., None], around, -1), weights, counts


def _crossed(points: list[Points], spatial: Shape) -> tuple[Array, Array]:
    """Entries and weights of all points of all cells, (R, cells, points · 4), point after point."""
    (down, height, _), (across, width, _) = points
    R, rows, n = down.shape[:3]
    columns, m = across.shape[1:3]
    every = (R, rows, columns, n, m, 2)
    pair = [
        (np.broadcast_to(a[:, :, None, :, None], every), np.broadcast_to(b[:, None, :, None, :], every))
        for a, b in ((down, across), (height, width))
    ]
    flat = (R, rows * columns, n * m * 4)
    return crossed_positions(pair[0], spatial).reshape(flat), crossed_weights(pair[1]).reshape(flat)


def _largest(site: Site, images: Array, positions: Array, weights: Array, cells: Shape) -> Local:
    """The largest weighted entry of each cell and channel."""
    shape = site.shape()
    out_shape = (len(images), shape[1], *cells)
    if not positions.shape[-1]:
        return Local(gathered(site, np.full(out_shape, -1)))
    first = (images[:, None] * shape[1] + np.arange(shape[1])) * math.prod(shape[2:])
    index = np.where(positions[:, None] < 0, -1, first[..., None, None] + positions[:, None])
    index = index.reshape(*out_shape, -1)  # (R, C, *cells, n)
    weights = np.broadcast_to(weights[:, None], (*first.shape, *weights.shape[1:])).reshape(index.shape)
    values = np.where(index < 0, -np.inf, site.value().ravel()[index] * weights)
    best = values.argmax(axis=-1)[..., None]
    winner, weight = (np.take_along_axis(each, best, -1) for each in (index, weights))
    same = (weights == weight) & ((index == winner) | (weight == 0))  # as functions of x
    rivals = (index >= 0) & ~same

    def margins() -> Array:
        top = np.take_along_axis(values, best, -1)[..., 0]
        second = np.where(rivals, values, -np.inf).max(axis=-1)
        return np.asarray(np.subtract(top, second, out=np.full_like(top, np.inf), where=second > -np.inf))

    def half_spaces() -> HalfSpaces:
        """Winner - loser ≥ 0, one row for each rival of each winner."""
        pairs = (
            (np.broadcast_to(winner, index.shape), np.broadcast_to(weight, index.shape)),
            (index, -weights),
        )
        gathers = [(gathered(site, at[rivals]), factor[rivals]) for at, factor in pairs]
        return HalfSpaces(tuple((0, chain(taken, Scale(taken.out_shape, by))) for taken, by in gathers))

    choice = np.where(weight == 0, -1, winner)[..., 0]
    picked = gathered(site, np.where(winner < 0, -1, winner)[..., 0])
    passed = chain(picked, Scale(out_shape, np.where(winner < 0, 0, weight)[..., 0]))
    return Local(passed, guards=(Guard(choice, margins, half_spaces),))
