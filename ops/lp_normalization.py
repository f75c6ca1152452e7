"""LpNormalization: y = x / ‖x‖ along `axis`, with the norm of p = 1 or 2; 0 where x is 0.

Smooth: dy = (dx - y (gᵀ dx)) / ‖x‖ with g = y for p = 2 and sign(x) for p = 1, whose guard is the sign of
each entry. Where x is 0 the result jumps, and there is no tangent. Frozen mode holds the norm.
https://onnx.ai/onnx/operators/onnx__LpNormalization.html
"""

import numpy as np

from ..runtime.primitives import Broadcast, Scale, chain
from ..runtime.program import Kind
from ._reduced import sum_over
from ._rule import Local, Site, lowers, threshold
from ._smooth import TRANSCENDENTAL, tangent


@lowers("LpNormalization", kind=Kind.SMOOTH, observes=(0,))
def lp_normalization(site: Site) -> Local:
    """Divide by the norm."""
    x, p = site.value(), site.attribute("p", 2)
    axis = site.attribute("axis", -1) % x.ndim
    largest = np.max(np.abs(x), axis, keepdims=True, initial=0)  # nothing overflows when it is divided out
    norm = largest * np.linalg.norm(x / np.where(largest > 0, largest, 1), p, axis, keepdims=True)
    inverse = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), 0)
    y = x * inverse
    direct = Scale(x.shape, inverse)
    roundings = x.shape[axis] + TRANSCENDENTAL
    if site.reading.frozen:
        return Local(direct, frozen=True, roundings=roundings)
    if not (norm > 0).all():
        raise site.refuse("has no tangent at x, where a whole group is 0: its result jumps there")
    total = sum_over(x.shape, (axis,), keep=True)
    gradient = y if p == 2 else np.where(x > 0, 1, -1).astype(x.dtype)  # a kink belongs to the piece below
    bend = chain(
        Scale(x.shape, gradient), total, Broadcast(total.out_shape, x.shape), Scale(x.shape, -y * inverse)
    )
    guards = () if p == 2 else (threshold(x),)
    return tangent(site, y, [(0, direct), (0, bend)], guards=guards, roundings=roundings)
