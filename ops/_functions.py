"""Special functions that several rules share, stable for any argument and in the argument's own type."""

from __future__ import annotations

import numpy as np

from ..runtime.primitives import Array


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow on either side."""
    small = np.exp(-np.abs(x))  # at most 1
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def erf(x: Array) -> Array:
    """The error function."""
    from scipy.special import erf as of  # takes a while to import

    return np.asarray(of(x))
