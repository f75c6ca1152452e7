"""Resize, Upsample: y = (M₁ ⊗ … ⊗ M_d) x — every axis is resampled by a matrix of its own.

Linear in x for fixed scales: each output is a weighted mean of the inputs around its coordinate, or the nearest
input. tf_crop_and_resize puts a constant, which is the offset, where the coordinate leaves x. Where onnxruntime
and the specification differ (coordinates in float32; an axis of scale 1 is not touched), this follows onnxruntime.
https://onnx.ai/onnx/operators/onnx__Resize.html, …Upsample.html
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import reduce

import numpy as np
from scipy import sparse

from ..runtime.primitives import Array, Primitive, Reshape, Shape, Sparse, chain
from ._interpolation import COORDINATES, ROUNDINGS, Axis, Filter, axis_matrix, coordinates, nearest
from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("Resize", "Upsample", linear_in=(0,))
def resize(site: Site) -> Local:
    """Resample axis after axis."""
    shape, axes = site.shape(), _axes(site)
    if all(axis.resized == axis.length for axis in axes):
        return Local(Reshape(shape, shape))  # onnxruntime copies x then, whatever mode and roi say
    transformation = _transformation(site)
    at = [coordinates(axis, transformation) for axis in axes]
    outside = [np.zeros(len(x), bool) for x in at]
    if transformation == "tf_crop_and_resize":
        outside = [(x < 0) | (x > axis.length - 1) for x, axis in zip(at, axes, strict=True)]
    if _choice(site, "mode", "nearest", ("nearest", "linear", "cubic")) == "nearest":
        resampled = _picked(site, axes, at, outside)
    else:
        resampled = _weighted(site, axes, at, outside)
    value = float(site.attribute("extrapolation_value", 0.0))
    if not value or not any(beyond.any() for beyond in outside):
        return Local(resampled)
    return Local(resampled, np.where(reduce(np.logical_or.outer, outside), value, 0.0))


# -- the map -------------------------------------------------------------------------------------------


def _picked(site: Site, axes: list[Axis], at: list[Array], outside: list[Array]) -> Primitive:
    """The nearest entry of x."""
    picks = []
    for axis, x in zip(axes, at, strict=True):
        # Before nearest_mode, onnxruntime rounds up along an axis that shrinks and down along one that grows.
        rounding = "ceil" if axis.scale < 1 else "floor"
        if not _legacy(site):
            rounding = _choice(site, "nearest_mode", "round_prefer_floor", ROUNDINGS)
        picks.append(nearest(axis, x, rounding))
    index = positions(site)[np.ix_(*picks)]
    return gathered(site, np.where(reduce(np.logical_or.outer, outside), -1, index))


def _weighted(site: Site, axes: list[Axis], at: list[Array], outside: list[Array]) -> Primitive:
    """Weighted means, along one axis after another; the axis that shrinks most comes first."""
    channels_last = len(axes) == 4 and not axes[1].still
    kind = _filter(site, channels_last)
    if kind.antialias and channels_last and any(beyond.any() for beyond in outside):
        raise site.refuse(
            "where it crops a channels-last tensor with mode cubic or antialias, onnxruntime puts "
            "extrapolation_value at the wrong entries; transpose the tensor to channels first before this node"
        )
    shape, parts = site.shape(), []
    for position in sorted(range(len(axes)), key=lambda i: axes[i].scale):
        if axes[position].still:
            continue
        kept = sparse.diags_array((~outside[position]).astype(np.float32))
        along = _along(shape, position, kept @ axis_matrix(axes[position], at[position], kind))
        parts.append(along)
        shape = along.out_shape
    return chain(*parts)


def _along(shape: Shape, position: int, matrix: sparse.csr_array) -> Sparse:
    """I ⊗ M ⊗ I: M applied along one axis of a tensor."""
    outer, inner = math.prod(shape[:position]), math.prod(shape[position + 1 :])
    block = sparse.kron(matrix, sparse.eye_array(inner, dtype=matrix.dtype), format="csr")
    rows, columns, count = outer * block.shape[0], outer * block.shape[1], outer * block.nnz
    compact = np.int32 if max(rows, columns, count) < np.iinfo(np.int32).max else np.int64
    copies = np.arange(outer, dtype=compact)[:, None]  # of the block, along the diagonal
    indices = (block.indices.astype(compact) + copies * block.shape[1]).ravel()
    indptr = np.append(np.zeros(1, compact), block.indptr[1:].astype(compact) + copies * block.nnz)
    entries = sparse.csr_array((np.tile(block.data, outer), indices, indptr), shape=(rows, columns))
    return Sparse(shape, (*shape[:position], matrix.shape[0], *shape[position + 1 :]), entries)


# -- attributes ----------------------------------------------------------------------------------------


def _legacy(site: Site) -> bool:
    """Whether the operator is older than Resize-11, which brought coordinate and rounding modes."""
    return site.op_type == "Upsample" or site.opset < 11


def _transformation(site: Site) -> str:
    if _legacy(site):
        return "asymmetric"
    return _choice(site, "coordinate_transformation_mode", "half_pixel", COORDINATES)


def _choice(site: Site, name: str, default: str, known: Collection[str]) -> str:
    """An attribute that names one of a few modes."""
    value = str(site.attribute(name, default))
    if value not in known:
        raise site.refuse(f"{name} is {value!r}; give one of {', '.join(known)}")
    return value


def _filter(site: Site, channels_last: bool) -> Filter:
    cubic = site.attribute("mode") == "cubic"
    return Filter(
        cubic=cubic,
        coefficient=np.float32(site.attribute("cubic_coeff_a", -0.75)),
        # onnxruntime has no other cubic kernel for channels last, and there takes only scales ≥ 1 without antialias
        antialias=bool(site.attribute("antialias", 0)) or (cubic and channels_last),
        exclude_outside=bool(site.attribute("exclude_outside", 0)),
    )


def _axes(site: Site) -> list[Axis]:
    """Length, scale and region of interest along each axis of x."""
    rank = len(site.shape())
    listed = site.integers("axes") or tuple(range(rank))
    scales, sizes = _extents(site, listed)
    starts, ends = np.zeros(rank, np.float32), np.ones(rank, np.float32)
    roi = site.parameter("roi")
    if roi is not None and np.size(roi):
        at = [axis % rank for axis in listed]
        starts[at], ends[at] = np.reshape(roi, (2, -1))
    return [Axis(*axis) for axis in zip(site.shape(), sizes, scales, starts, ends, strict=True)]


def _extents(site: Site, listed: Shape) -> tuple[Array, list[int]]:
    """Scale and resized length of every axis; those that are not listed keep theirs."""
    sizes = np.array(site.shape())
    lengths = sizes.astype(np.float32)
    at = [axis % len(sizes) for axis in listed]
    scales = np.ones(len(sizes), np.float32)
    given = site.parameter("scales")
    if given is not None and np.size(given):
        scales[at] = given
        return scales, [int(size) for size in scales * lengths]
    sizes[at] = site.integers("sizes")
    np.divide(sizes.astype(np.float32), lengths, out=scales, where=lengths > 0)
    policy = _choice(site, "keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller"))
    if policy != "stretch":
        # onnxruntime compares the axes as they are listed: a negative one is never met, and keeps its length.
        met = np.isin(np.arange(len(sizes)), listed)
        extreme = min if policy == "not_larger" else max
        scales = np.where(met, extreme(scales[met], default=scales[0]), np.float32(1))
        sizes = np.floor((scales * lengths).astype(np.float64) + 0.5)
    return scales, [int(size) for size in sizes]
