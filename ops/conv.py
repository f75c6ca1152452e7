"""Conv: y = w ⋆ x + b, in any number of spatial axes, with groups, strides, dilations and padding.

Linear in x for a fixed w: a matrix with one row for each output position and channel.
https://onnx.ai/onnx/operators/onnx__Conv.html
"""

import numpy as np

from ..runtime.primitives import Array, Broadcast, Conv, Primitive, Reshape, chain
from ._rule import Local, Site, lowers
from ._windows import transposed_window_of, window_of


def with_channel_bias(site: Site, slide: Primitive) -> Local:
    """Complete a convolution by its bias (input 2), one value for each channel of (N, C, *spatial)."""
    shape = slide.out_shape
    terms: dict[int, Primitive] = {}
    offset: Array | None = None
    size: Array | float = 0.0
    if site.active(0):
        terms[0] = slide
    else:  # only the bias depends on x
        offset = slide.apply(site.value(0)[None])[0]
        size = slide.fan_in * slide.magnitude().apply(np.abs(site.value(0))[None])[0]
    if site.has(2):
        column = (shape[1],) + (1,) * (len(shape) - 2)
        if site.active(2):
            terms[2] = chain(Reshape(site.shape(2), column), Broadcast(column, shape))
        else:
            share = site.value(2).reshape(column)
            offset = share if offset is None else offset + share
            size = size + np.abs(share)
    return Local(terms, offset, offset_size=size)


@lowers("Conv", products=((0, 1),), linear_in=(0, 2))
def conv(site: Site) -> Local:
    """Slide the kernel over x."""
    (batch, _, *spatial), weight = site.shape(0), site.value(1)
    window, _ = window_of(site, tuple(spatial), weight.shape[2:])
    slide = Conv(batch, weight, window, site.attribute("group", 1))
    return with_channel_bias(site, slide)


@lowers("ConvTranspose", products=((0, 1),), linear_in=(0, 2))
def conv_transpose(site: Site) -> Local:
    """ConvTranspose: the transpose of the Conv that maps y's shape to x's, plus b.

    https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
    """
    (batch, _, *spatial), weight = site.shape(0), site.value(1)
    window = transposed_window_of(site, tuple(spatial), weight.shape[2:])
    spread = Conv(batch, weight, window, site.attribute("group", 1)).T
    return with_channel_bias(site, spread)
