"""com.microsoft.FusedConv: y = f(w ⋆ x + b + s), a Conv with what onnxruntime's optimiser found behind it.

At x: the Conv, scaled by the slope of f at each sum. Guards: those of f, such as the side of every kink.
Where f is smooth, so is the node; frozen mode holds what f weighs its argument by.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedConv
"""

from functools import partial

import numpy as np

from ..runtime.primitives import Reshape
from ..runtime.program import Kind
from ._fused import activated, curved, gates, named, other
from ._rule import Local, Site, lowers
from .conv import conv

_fused = partial(
    lowers, "FusedConv", domain="com.microsoft", observes=None, products=((0, 1),), linear_in=(0, 2, 3)
)


@_fused(kind=Kind.PIECEWISE_LINEAR, when=other)
@_fused(kind=Kind.SMOOTH, when=gates, gate=True)
@_fused(kind=Kind.SMOOTH, when=curved)
def fused_conv(site: Site) -> Local:
    """Convolve, add, activate."""
    z = conv(site)
    if site.active(3):
        shape = site.shape(3)
        z = Local((*z.by_position, (3, Reshape(shape, shape))), z.offset, offset_size=z.offset_size)
    elif site.has(3):
        share, size = site.value(3), 0.0 if z.offset_size is None else z.offset_size
        z = Local(z.terms, share if z.offset is None else z.offset + share, offset_size=size + np.abs(share))
    activation = site.attribute("activation", "")
    parameters = named(site, activation, site.attribute("activation_params", ()))
    return activated(site, z, activation, parameters)
