"""Sums of exponentials over axes, and what their tangents are made of, without overflow."""

from __future__ import annotations

import numpy as np

from ..runtime.primitives import Array, Broadcast, Primitive, Scale, chain
from ._reduced import sum_over


def softmax_of(u: Array, axes: tuple[int, ...]) -> Array:
    """exp(u) / Σ exp(u); zeros where all of a group is -inf, which is a group that is masked out."""
    powers = np.exp(u - _largest(u, axes))
    total = powers.sum(axes, keepdims=True)
    return np.asarray(powers / np.where(total > 0, total, 1))


def log_sum_exp(u: Array, axes: tuple[int, ...]) -> Array:
    """Log Σ exp(u), the axes kept with length 1."""
    largest = _largest(u, axes)
    with np.errstate(divide="ignore"):  # of no entries, the logarithm of 0
        return np.asarray(largest + np.log(np.exp(u - largest).sum(axes, keepdims=True)))


def weighted_mean(s: Array, axes: tuple[int, ...], factor: Array) -> Primitive:
    """Factor ⊙ Σ s dx, copied back to every entry of its group."""
    total = sum_over(s.shape, axes, keep=True)
    parts = (Scale(s.shape, s), total, Broadcast(total.out_shape, s.shape), Scale(s.shape, factor))
    return chain(*parts)


def _largest(u: Array, axes: tuple[int, ...]) -> Array:
    largest = np.max(u, axes, keepdims=True, initial=-np.inf)
    return np.asarray(np.where(np.isneginf(largest), 0, largest), u.dtype)
