"""QLinearConv, ConvInteger: a convolution of quantised numbers.

ConvInteger: y = (x - zₓ) ⋆ (w - z_w). QLinearConv: y = saturate(round((that + b) · sₓ s_w / s_y) + z_y).
Read exactly, the integers x do not move with the model's input, and scales that do only make y jump. Read
straight through: the convolution, within the range of y and off by half a step of it.
https://onnx.ai/onnx/operators/onnx__QLinearConv.html, …ConvInteger.html
"""

import numpy as np

from ..runtime.primitives import Array, Conv, Scale, Shape, chain
from ..runtime.program import Kind
from ._quantization import exact, integer_range, numbers, onto_grid, straight_through, zero_point_type
from ._rule import Local, Site, locally_constant, lowers
from ._windows import window_of

locally_constant(__name__, "QLinearConv", when=exact)


@lowers("QLinearConv", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,), when=straight_through)
def qlinear_conv(site: Site) -> Local:
    """Slide the kernel, in units of y's grid."""
    slide = _slide(site, 3, numbers(site, 5))
    column = (-1,) + (1,) * (len(slide.out_shape) - 2)
    factor = numbers(site, 1) * numbers(site, 4) / numbers(site, 6)
    factor = factor.reshape(column) if factor.size > 1 else factor.reshape(())
    bias = numbers(site, 8).reshape(column) if site.has(8) else np.zeros(())
    offset = (bias - _padded(slide, numbers(site, 2))) * factor + numbers(site, 7)
    scaled = chain(slide, Scale(slide.out_shape, factor))
    at_x = scaled.apply(site.value(0)[None])[0] + offset
    return onto_grid(site, {0: scaled}, offset, at_x, *integer_range(site, zero_point_type(site, 7)))


@lowers("ConvInteger", linear_in=(0,), when=straight_through)
def conv_integer(site: Site) -> Local:
    """Slide the kernel."""
    slide = _slide(site, 1, numbers(site, 3))
    return Local(slide, -_padded(slide, numbers(site, 2)))


def _slide(site: Site, position: int, zero: Array) -> Conv:
    """The convolution with the distances of the kernel to its zero point, one or one for each channel."""
    batch, _, *spatial = site.shape(0)
    kernel = numbers(site, position)
    weight = kernel - (zero.reshape(-1, *(1,) * (kernel.ndim - 1)) if zero.size > 1 else zero)
    window, _ = window_of(site, tuple(spatial), weight.shape[2:])
    return Conv(batch, weight, window, site.attribute("group", 1))


def _padded(slide: Conv, zero: Array) -> Array:
    """What a zero point of x adds to every output; padding counts as the zero point, and adds nothing."""
    constant: Shape = slide.in_shape
    return np.asarray(slide.apply(np.full((1, *constant), zero.reshape(())))[0])
