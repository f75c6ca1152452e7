"""ReduceProd: y = Π x over axes. ReduceSumSquare: y = Σ x². ReduceL2: y = sqrt(Σ x²).

Smooth: dyᵢ = Σⱼ (Π of the others) dxⱼ, zeros among them or not; dy = Σ 2 u dx; dy = Σ (u / y) dx, and no
tangent where all of u is 0. Frozen mode shares a product of n out among its factors, each counts 1/n; of a
square, half each: y = Σ u x. A norm needs no offset in either mode.
https://onnx.ai/onnx/operators/onnx__ReduceProd.html, …ReduceSumSquare.html, …ReduceL2.html
"""

import numpy as np

from ..runtime.primitives import Array, Scale, chain
from ..runtime.program import Kind
from ._lp import norm
from ._reduced import reduced_axes, sum_over
from ._rule import Local, Site, lowers
from ._smooth import tangent


@lowers("ReduceProd", kind=Kind.SMOOTH, observes=(0,), linear_in=(0,))
def reduce_prod(site: Site) -> Local:
    """The tangent at x."""
    u, axes = site.value(), reduced_axes(site)
    total = sum_over(u.shape, axes, keep=bool(site.attribute("keepdims", 1)))
    count = total.in_size // max(total.out_size, 1)
    slope = _others(u, axes)
    if site.reading.frozen:
        share = Scale(u.shape, slope / max(count, 1))
        return Local(chain(share, total), frozen=True, roundings=count)
    y = np.prod(u, axes, keepdims=True).reshape(total.out_shape)
    return tangent(site, y, [(0, chain(Scale(u.shape, slope), total))], roundings=count)


def _others(u: Array, axes: tuple[int, ...]) -> Array:
    """For every entry the product of the others in its group: what stands before it times what follows."""
    kept = [axis for axis in range(u.ndim) if axis not in axes]
    turned = u.transpose([*kept, *axes])
    rows = turned.reshape(*turned.shape[: len(kept)], -1) if u.size else turned
    if not axes or not u.size:
        return np.ones_like(u)
    one = np.ones_like(rows[..., :1])
    before = np.cumprod(np.concatenate([one, rows[..., :-1]], -1), -1)
    after = np.cumprod(np.concatenate([one, rows[..., :0:-1]], -1), -1)[..., ::-1]
    return (before * after).reshape(turned.shape).transpose(np.argsort([*kept, *axes]))


@lowers("ReduceSumSquare", kind=Kind.SMOOTH, observes=(0,), linear_in=(0,))
def reduce_sum_square(site: Site) -> Local:
    """The tangent at x."""
    u = site.value()
    total = sum_over(u.shape, reduced_axes(site), keep=bool(site.attribute("keepdims", 1)))
    if site.reading.frozen:
        return Local(chain(Scale(u.shape, u), total), frozen=True)
    y = total.apply((u**2)[None])[0]
    return tangent(site, y, [(0, chain(Scale(u.shape, 2 * u), total))], roundings=total.fan_in)


@lowers("ReduceL2", kind=Kind.SMOOTH, observes=(0,), linear_in=(0,))
def reduce_l2(site: Site) -> Local:
    """The tangent at x, which goes through 0."""
    total = sum_over(site.shape(), reduced_axes(site), keep=bool(site.attribute("keepdims", 1)))
    return norm(site, 2, total)
