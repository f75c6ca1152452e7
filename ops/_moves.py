"""Operators that only move entries, described by what they do to an array of flat positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..runtime.primitives import Array, Gather, Shape
from ._rule import Site

_INT32 = np.iinfo(np.int32).max


def positions(site: Site, position: int = 0) -> Array:
    """Flat positions of an operand's entries, in its own shape."""
    shape = site.shape(position)
    return np.arange(math.prod(shape)).reshape(shape)


def gathered(site: Site, index: Array, position: int = 0) -> Gather:
    """The map that takes an operand's entries at the given flat positions; -1 gives 0."""
    shape = site.shape(position)
    return Gather(shape, np.asarray(index, compact(shape), order="C"))


def along(site: Site, indices: Array, axis: int) -> Array:
    """Positions in operand 0 that indices along an axis name, the other axes being those of the indices.

    Negative indices count from the end. Other axes may be shorter than the operand's.
    """
    own = positions(site)
    axis %= own.ndim
    cut = tuple(slice(None if a == axis else size) for a, size in enumerate(indices.shape))
    return np.take_along_axis(own[cut], indices.astype(np.int64), axis)


def nested(site: Site, indices: Array, batch: int = 0) -> Array:
    """Positions in operand 0 of the entries or slices that tuples along the last axis of the indices name.

    Negative indices count from the end. The first `batch` axes are shared by the operand and the indices.
    """
    own = positions(site)
    rest = indices.ndim - 1 - batch
    lead = np.ogrid[(*map(slice, own.shape[:batch]), *[slice(1)] * rest)][:batch]
    named: Array = own[(*lead, *np.moveaxis(indices.astype(np.int64), -1, 0))]
    return named


def compact(shape: Shape) -> np.dtype[Any]:
    """The smallest integer type that flat positions in a tensor are kept in."""
    return np.dtype(np.int32 if math.prod(shape) <= _INT32 else np.int64)
