"""DequantizeLinear: y = (x - zero point) · scale.

Linear in the integers x, which depend on the model's input only where quantisation is read straight through,
and in the scale.
https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
"""

import math

import numpy as np

from ..runtime.primitives import Broadcast, Primitive, Reshape, Scale, Shape, chain
from ._moves import gathered
from ._quantization import per_entry
from ._rule import Local, Site, lowers


@lowers("DequantizeLinear", products=((0, 1),), linear_in=(0, 1))
@lowers("DequantizeLinear", domain="com.microsoft", products=((0, 1),), linear_in=(0, 1))
def dequantize(site: Site) -> Local:
    """Scale the distance to the zero point."""
    shape = site.shape(0)
    zero = per_entry(site, 2, shape)
    if site.active(1):
        integers = np.asarray(site.value(0)).astype(np.float64) - zero
        return Local({1: chain(_spread(site, shape), Scale(shape, integers))})
    scale = per_entry(site, 1, shape)
    return Local(Scale(shape, scale), -zero * scale if np.any(zero) else None)


def _spread(site: Site, shape: Shape) -> Primitive:
    """From the scales to one for each entry."""
    own, axis = site.shape(1), site.attribute("axis", 1)
    if len(own) == 1 and own[0] > 1:
        column = tuple(own[0] if i == axis % len(shape) else 1 for i in range(len(shape)))
        return chain(Reshape(own, column), Broadcast(column, shape))
    if len(own) > 1:  # one scale for each block along the axis
        places, size = np.arange(math.prod(own)).reshape(own), site.attribute("block_size", 0)
        each = np.repeat(places, size, axis=axis % len(shape)).take(
            range(shape[axis]), axis=axis % len(shape)
        )
        return gathered(site, each, 1)
    return chain(Reshape(own, (1,) * len(shape)), Broadcast((1,) * len(shape), shape))
