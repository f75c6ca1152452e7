"""Images read between their entries: what GridSample, RoiAlign and DeformConv share.

Each output is a weighted sum of few entries of one channel of one image,

    y[r, c, p] = Σ_t weights[r, p, t] · x[image(r), c, positions[r, p, t]],

the same for all channels: a sparse matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from scipy import sparse

from ..runtime.primitives import Array, Shape, Sparse
from ._moves import compact
from ._rule import Site


def coordinate_type(site: Site) -> type[np.floating[Any]]:
    """The floating type that onnxruntime computes coordinates in: the node's own.

    Floors and ties decide which entries are read, so coordinates are rounded as there. Values come cast up
    where maps are composed in a finer type; if float32 holds all that are known here, they are its own.
    """
    operands = [operand.value for operand in site.inputs if operand is not None]
    known = [value for value in operands if value is not None and value.dtype.kind == "f"]
    with np.errstate(over="ignore"):
        narrow = all(np.array_equal(value, value.astype(np.float32)) for value in known)
    return np.float32 if narrow else np.float64


def corners(x: Array) -> tuple[Array, Array]:
    """The two entries around each coordinate and their weights, linear in the distance; (…) to (…, 2)."""
    low = np.floor(x)
    return low.astype(np.int64)[..., None] + np.arange(2), np.stack([low + 1 - x, x - low], axis=-1)


def inside(positions: Array, length: int) -> Array:
    """Positions along an axis of the given length, -1 for those beyond its ends."""
    return np.where((positions >= 0) & (positions < length), positions, -1)


def crossed_positions(axes: Sequence[Array], spatial: Shape) -> Array:
    """Flat positions of all combinations of taps, from (…, tᵢ) for each axis to (…, Π tᵢ); -1 for none."""

    def cross(outer: Array, along: tuple[Array, int]) -> Array:
        inner, length = along
        outer, inner = outer[..., :, None], inner[..., None, :]
        crossed = np.where((outer < 0) | (inner < 0), -1, outer * length + inner)
        return crossed.reshape(*crossed.shape[:-2], math.prod(crossed.shape[-2:]))

    first, *rest = zip(axes, spatial, strict=True)
    return reduce(cross, rest, first[0])


def crossed_weights(axes: Sequence[Array]) -> Array:
    """Products of the weights of all combinations of taps, in the order of `crossed_positions`."""

    def cross(outer: Array, inner: Array) -> Array:
        crossed = outer[..., :, None] * inner[..., None, :]
        return crossed.reshape(*crossed.shape[:-2], math.prod(crossed.shape[-2:]))

    return reduce(cross, axes)


def sampled(shape: Shape, images: Array, positions: Array, weights: Array, out_shape: Shape) -> Sparse:
    """The map of weighted sums.

    Args:
        shape: x's, (N, C, *spatial).
        images: (R,) the image that each group of outputs reads.
        positions: (R, P, T) flat positions in a channel; -1 for none.
        weights: (R, P, T).
        out_shape: y's, which R · C · P entries fill in this order.
    """
    channels, plane = shape[1], math.prod(shape[2:])
    every = (len(images), channels, *positions.shape[1:])
    kept = np.broadcast_to(((positions >= 0) & (weights != 0))[:, None], every)
    first = (images[:, None] * channels + np.arange(channels)) * plane  # (R, C): where channels start
    columns = (first[..., None, None] + positions[:, None])[kept]
    index = compact((max(math.prod(shape), columns.size),))
    indptr = np.append(0, np.cumsum(kept.sum(axis=-1)))
    matrix = sparse.csr_array(
        (np.broadcast_to(weights[:, None], every)[kept], columns.astype(index), indptr.astype(index)),
        shape=(math.prod(out_shape), math.prod(shape)),
    )
    bound = abs(matrix.copy()) if (weights < 0).any() else None
    matrix.sum_duplicates()  # borders are read more than once
    return Sparse(shape, out_shape, matrix, bound)
