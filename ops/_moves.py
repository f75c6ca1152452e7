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


def compact(shape: Shape) -> np.dtype[Any]:
    """The smallest integer type that flat positions in a tensor are kept in."""
    return np.dtype(np.int32 if math.prod(shape) <= _INT32 else np.int64)
