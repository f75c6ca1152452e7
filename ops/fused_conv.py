"""com.microsoft.FusedConv: y = f(w ⋆ x + b + s), a Conv with what onnxruntime's optimiser found behind it.

At x: the Conv, scaled by the slope of the piece of f that each sum lies on. Guards: the side of every kink.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedConv
"""

import numpy as np

from ..runtime.primitives import Reshape
from ..runtime.program import Kind
from ._fused import activated, pieces_of
from ._rule import Local, Site, lowers
from .conv import conv

_MICROSOFT = "com.microsoft"


@lowers(
    "FusedConv",
    domain=_MICROSOFT,
    kind=Kind.PIECEWISE_LINEAR,
    observes=None,
    products=((0, 1),),
    linear_in=(0, 2, 3),
)
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
    return activated(site, z, pieces_of(site, activation, site.attribute("activation_params", ())))
