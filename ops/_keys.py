"""Operators that look entries up: an entry is one of some keys, or lies between two of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import Guard
from ._rule import between


def neighbours(x: Array, keys: Array) -> tuple[Array, Array]:
    """The largest key up to each entry and the smallest from it on; infinite where there is none."""
    ends = np.concatenate([[-np.inf], np.unique(keys), [np.inf]])
    return ends[np.searchsorted(ends, x, "right") - 1], ends[np.searchsorted(ends, x, "left")]


def among(x: Array, keys: Array) -> Guard:
    """Guard of operand 0's entries: which key each one is, or which two it lies between."""
    low, high = neighbours(x, keys)
    place = np.searchsorted(np.unique(keys), x, "right") * 2 - (low == high)
    return replace(between(x, low, high), choice=place)
