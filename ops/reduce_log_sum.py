"""ReduceLogSum: y = log Σ x. ReduceLogSumExp: y = log Σ exp(x). Both over axes.

Smooth: dy = Σ dx / Σ x, and dy = Σ s dx with s the softmax at u.
https://onnx.ai/onnx/operators/onnx__ReduceLogSum.html, …ReduceLogSumExp.html
"""

import numpy as np

from ..runtime.primitives import Scale, chain
from ..runtime.program import Kind
from ._exponential import log_sum_exp, softmax_of
from ._reduced import reduced_axes, sum_over
from ._rule import Local, Site, lowers
from ._smooth import TRANSCENDENTAL, tangent


@lowers("ReduceLogSum", kind=Kind.SMOOTH, observes=(0,), linear_in=(0,))
def reduce_log_sum(site: Site) -> Local:
    """The tangent at x."""
    u = site.value()
    total = sum_over(u.shape, reduced_axes(site), keep=bool(site.attribute("keepdims", 1)))
    sums = total.apply(u[None])[0]
    with np.errstate(all="ignore"):  # what is not finite is found by name, in the values at x
        y, inverse = np.log(sums), 1 / sums
        # A rounding of the sum moves its logarithm by as much, relative to the sum.
        size = np.abs(y) + total.apply(np.abs(u)[None])[0] * np.abs(inverse)
    L = chain(total, Scale(sums.shape, inverse))
    return tangent(site, y, [(0, L)], size=size, roundings=total.fan_in + TRANSCENDENTAL)


@lowers("ReduceLogSumExp", kind=Kind.SMOOTH, observes=(0,), linear_in=(0,))
def reduce_log_sum_exp(site: Site) -> Local:
    """The tangent at x."""
    u, axes = site.value(), reduced_axes(site)
    total = sum_over(u.shape, axes, keep=bool(site.attribute("keepdims", 1)))
    y = log_sum_exp(u, axes).reshape(total.out_shape)
    L = chain(Scale(u.shape, softmax_of(u, axes)), total)
    return tangent(site, y, [(0, L)], size=np.abs(y) + 1, roundings=total.fan_in + TRANSCENDENTAL)
