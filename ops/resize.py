"""Resize, Upsample: y = (M₁ ⊗ … ⊗ M_d) x — every axis is resampled by a matrix of its own.

Linear in x for fixed scales: each output is a weighted mean of the inputs around its coordinate, or the input
nearest to it. The offset is the constant that tf_crop_and_resize puts where a coordinate leaves x. Where
onnxruntime departs from the specification (an axis of scale 1 is not touched; what is close to a tie is one;
before opset 11 nearest rounds up where an axis shrinks), this follows onnxruntime.
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
    picks = [nearest(axis, x, _rounding(site, axis)) for axis, x in zip(axes, at, strict=True)]
    index = positions(site)[np.ix_(*picks)]
    return gathered(site, np.where(reduce(np.logical_or.outer, outside), -1, index))


def _weighted(site: Site, axes: list[Axis], at: list[Array], outside: list[Array]) -> Primitive:
    """Weighted means, along one axis after another.

    One sparse map for each axis: 2 or 4 inputs for each output, where a single map of d axes has 2ᵈ or 4ᵈ.
    """
    channels_last = len(axes) == 4 and not axes[1].still
    kind = _filter(site, channels_last)
    if kind.antialias and channels_last and any(beyond.any() for beyond in outside):
        raise site.refuse(
            "onnxruntime puts extrapolation_value at the wrong entries when it crops a channels-last tensor "
            "with antialias or mode cubic; transpose the tensor to channels first before this node"
        )
    shape, parts = site.shape(), []
    for position in _resampled(axes, kind):
        axis, beyond = axes[position], outside[position]
        matrix = axis_matrix(axis, at[position], kind)
        if not axis.still or matrix.nnz > axis.length:  # else it is the identity
            kept = sparse.diags_array((~beyond).astype(np.float32))
            parts.append(_along(shape, position, kept @ matrix))
            shape = parts[-1].out_shape
    return chain(*parts)


def _resampled(axes: list[Axis], kind: Filter) -> list[int]:
    """Positions of the axes that onnxruntime runs its kernel over, those that shrink most first.

    The plain cubic kernel runs over both last axes even where one is still: for most cubic_coeff_a its
    weights there come out of float32 as not quite 1 and 0.
    """
    plain_cubic = kind.cubic and not kind.antialias
    chosen = [i for i, axis in enumerate(axes) if not axis.still or (plain_cubic and i >= len(axes) - 2)]
    return sorted(chosen, key=lambda i: axes[i].scale)


def _along(shape: Shape, position: int, matrix: sparse.csr_array) -> Sparse:
    """I ⊗ M ⊗ I: M applied along one axis of a tensor."""
    outer, inner = math.prod(shape[:position]), math.prod(shape[position + 1 :])
    block = sparse.kron(matrix, sparse.eye_array(inner, dtype=matrix.dtype), format="csr")
    compact = np.int32 if outer * max(*block.shape, block.nnz) < np.iinfo(np.int32).max else np.int64
    copies: Array = np.arange(outer, dtype=compact)[:, None]  # of the block, along the diagonal
    indices = (copies * block.shape[1] + block.indices.astype(compact)).ravel()
    indptr = np.append(0, copies * block.nnz + block.indptr[1:]).astype(compact)
    entries = sparse.csr_array(
        (np.tile(block.data, outer), indices, indptr), shape=(outer * block.shape[0], outer * block.shape[1])
    )
    return Sparse(shape, (*shape[:position], matrix.shape[0], *shape[position + 1 :]), entries)


# -- attributes ----------------------------------------------------------------------------------------


def _legacy(site: Site) -> bool:
    """Whether the operator is older than Resize-11, which brought coordinate and rounding modes."""
    return site.op_type == "Upsample" or site.opset < 11


def _transformation(site: Site) -> str:
    """How output entries are placed among input entries."""
    if _legacy(site):
        return "asymmetric"
    return _choice(site, "coordinate_transformation_mode", "half_pixel", COORDINATES)


def _rounding(site: Site, axis: Axis) -> str:
    """How nearest rounds; before nearest_mode existed, onnxruntime let the scale decide."""
    if _legacy(site):
        return "ceil" if axis.scale < 1 else "floor"
    return _choice(site, "nearest_mode", "round_prefer_floor", ROUNDINGS)


def _choice(site: Site, name: str, default: str, known: Collection[str]) -> str:
    """An attribute that names one of a few modes."""
    value = str(site.attribute(name, default))
    if value not in known:
        raise site.refuse(f"{name} is {value!r}; set it to one of {', '.join(known)}")
    return value


def _filter(site: Site, channels_last: bool) -> Filter:
    """The kernel of mode linear or cubic.

    onnxruntime resizes channels-last tensors by its antialiased cubic kernel even without antialias, but
    then takes no scale below 1, where widening would change it.
    """
    cubic = site.attribute("mode") == "cubic"
    return Filter(
        cubic=cubic,
        coefficient=np.float32(site.attribute("cubic_coeff_a", -0.75)),
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
        # onnxruntime compares axes as they are listed: a negative one is never met, and keeps its length.
        met = np.isin(np.arange(len(sizes)), listed)
        extreme = min if policy == "not_larger" else max
        scales = np.where(met, extreme(scales[met], default=scales[0]), np.float32(1))
        sizes = np.floor((scales * lengths).astype(np.float64) + 0.5)
    return scales, [int(size) for size in sizes]
