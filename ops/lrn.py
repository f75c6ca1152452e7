"""LRN: y = x · d^-beta, d = bias + alpha / size · Σ x² over the `size` channels around each.

Smooth: dy = d^-beta dx - 2 alpha beta / size · x d^-(beta+1) Σ x dx. Frozen mode holds d.
https://onnx.ai/onnx/operators/onnx__LRN.html
"""

import math

import numpy as np

from ..runtime.primitives import Conv, Primitive, Reshape, Scale, Shape, Window, chain
from ..runtime.program import Kind
from ._rule import Local, Site, lowers
from ._smooth import TRANSCENDENTAL, tangent


@lowers("LRN", kind=Kind.SMOOTH, observes=(0,))
def lrn(site: Site) -> Local:
    """Divide by a power of the energy around each channel."""
    x, size = site.value(), int(site.attribute("size"))
    alpha, beta, bias = (
        float(site.attribute(*of)) for of in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    around = _around(x.shape, size)
    d = bias + alpha / size * around.apply((x**2)[None])[0]
    factor = d**-beta
    direct = Scale(x.shape, factor)
    roundings = size + 2 * TRANSCENDENTAL
    if site.reading.frozen:
        return Local(direct, frozen=True, roundings=roundings)
    bend = chain(Scale(x.shape, x), around, Scale(x.shape, -2 * alpha * beta / size * x * d ** -(beta + 1)))
    return tangent(site, x * factor, [(0, direct), (0, bend)], roundings=roundings)


def _around(shape: Shape, size: int) -> Primitive:
    """The sum over the channels around each, (N, C, *spatial) to itself: one column of ones, slid along C."""
    batch, channels, *spatial = shape
    plane = (channels, math.prod(spatial))
    window = Window(plane, plane, (size, 1), (1, 1), (1, 1), ((size - 1) // 2, 0))
    slide = Conv(batch, np.ones((1, 1, size, 1), np.float32), window, 1)
    return chain(Reshape(shape, (batch, 1, *plane)), slide, Reshape((batch, 1, *plane), shape))
