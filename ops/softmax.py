"""Softmax: y = exp(x) / Σ exp(x) along `axis`. LogSoftmax: y = x - log Σ exp(x).

Smooth: with s the softmax at u, dy = s ⊙ (dx - Σ s dx), and dy = dx - Σ s dx. Below opset 13 the sum runs
over all axes from `axis` on. Softmax is a gate: frozen mode holds it in a product, as attention weights.
https://onnx.ai/onnx/operators/onnx__Softmax.html, …LogSoftmax.html
"""

import numpy as np

from ..runtime.primitives import Array, Scale
from ..runtime.program import Kind
from ._exponential import log_sum_exp, softmax_of, weighted_mean
from ._rule import Local, Site, lowers
from ._smooth import TRANSCENDENTAL, tangent


@lowers("Softmax", kind=Kind.SMOOTH, observes=(0,), gate=True)
def softmax(site: Site) -> Local:
    """The tangent at x."""
    u, axes = site.value(), softmax_axes(site, site.opset)
    s = softmax_of(u, axes)
    terms = [(0, Scale(u.shape, s)), (0, weighted_mean(s, axes, -s))]
    return tangent(site, s, terms, roundings=_count(u, axes))


@lowers("LogSoftmax", kind=Kind.SMOOTH, observes=(0,))
def log_softmax(site: Site) -> Local:
    """The tangent at x."""
    return log_softmax_over(site, softmax_axes(site, site.opset))


def log_softmax_over(site: Site, axes: tuple[int, ...]) -> Local:
    """The logarithm of the softmax of operand 0 over axes, by its tangent."""
    u = site.value()
    total = log_sum_exp(u, axes)
    minus = np.asarray(-1, u.dtype)
    terms = [(0, Scale(u.shape, -minus)), (0, weighted_mean(softmax_of(u, axes), axes, minus))]
    return tangent(site, u - total, terms, size=np.abs(u) + np.abs(total), roundings=_count(u, axes))


def softmax_axes(site: Site, opset: int) -> tuple[int, ...]:
    """The axes that are summed over, by an opset of ai.onnx."""
    rank = len(site.shape())
    if opset >= 13:
        return (site.attribute("axis", -1) % rank,)
    axis = site.attribute("axis", 1)
    return tuple(range(axis + rank if axis < 0 else axis, rank))


def _count(u: Array, axes: tuple[int, ...]) -> int:
    return int(np.prod([u.shape[axis] for axis in axes])) + TRANSCENDENTAL
