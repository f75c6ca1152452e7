"""Operators that only move entries, described by what they do to an array of flat positions."""

from __future__ import annotations

import numpy as np

from ..runtime.primitives import Array, Gather
from ._rule import Site


def positions(site: Site, position: int = 0) -> Array:
    """Flat positions of an operand's entries, in its own shape."""
    shape = site.shape(position)
    return np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)


def gathered(site: Site, index: Array, position: int = 0) -> Gather:
    """The map that takes an operand's entries at the given flat positions; -1 gives 0."""
    size = np.prod(site.shape(position), dtype=np.int64)
    compact = np.int32 if size < np.iinfo(np.int32).max else np.int64
    return Gather(site.shape(position), np.asarray(index, compact, order="C"))
