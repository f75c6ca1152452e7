"""Special functions that several rules share, stable for any argument and in the argument's own type."""

from __future__ import annotations

import math

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


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return np.asarray(np.logaddexp(0, x))


def sech2(x: Array) -> Array:
    """1 / cosh(x)², the slope of tanh; 1 - tanh(x)² would cancel, and cosh overflow."""
    return np.asarray(4 * logistic(2 * x) * logistic(-2 * x))


def normal_cdf(x: Array) -> Array:
    """½ (1 + erf(x / √2)), to full accuracy in the lower tail."""
    from scipy.special import ndtr

    return np.asarray(ndtr(x))


def normal_density(x: Array) -> Array:
    """exp(-x²/2) / √(2π)."""
    return np.asarray(np.exp(-x * x / 2) / math.sqrt(2 * math.pi))
