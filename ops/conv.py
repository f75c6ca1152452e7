"""Conv: y = w ⋆ x + b, in any number of spatial axes, with groups, strides, dilations and padding.

Linear in x for a fixed w: a matrix with one row for each output position and channel. Linear in w for a
fixed x: a product of w and the patches of x. Smooth where both depend on x; linear in b.
https://onnx.ai/onnx/operators/onnx__Conv.html
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..runtime.primitives import Array, Contract, Conv, Primitive, Reshape, Scatter, Shape, Window, chain
from ._moves import compact
from ._rule import Local, Site, lowers
from ._smooth import plus, product
from ._windows import transposed_window_of, window_of


def _with_channel_bias(site: Site, factor: Callable[[int], Primitive], shape: Shape) -> Local:
    """A product of x and w with its bias (input 2), one value for each channel of (N, C, *spatial)."""
    multiplied = product(site, factor)
    if not site.has(2):
        return multiplied
    return plus(site, multiplied, 2, shape, aligned=(shape[1],) + (1,) * (len(shape) - 2))


@lowers("Conv", products=((0, 1),), tangent=True)
def conv(site: Site) -> Local:
    """Slide the kernel over x."""
    (batch, _, *spatial), kernel, group = site.shape(0), site.shape(1), site.attribute("group", 1)
    window, _ = window_of(site, tuple(spatial), kernel[2:])
    shape = (batch, kernel[0], *window.out_size)

    def factor(position: int) -> Primitive:
        if position == 0:
            return Conv(batch, site.value(1), window, group)
        return _over_patches(site.value(0), window, group, kernel, shape)

    return _with_channel_bias(site, factor, shape)


def _over_patches(x: Array, window: Window, group: int, kernel: Shape, shape: Shape) -> Primitive:
    """The map of the kernel (M, C/G, *taps) to y (N, M, *out): a matrix times the patches of x."""
    taken = window.positions()  # (outputs, taps)
    images = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    patches = np.where(taken < 0, 0, images[:, :, taken])  # (N, C, outputs, taps)
    patches = patches.reshape(len(x), group, kernel[1], *taken.shape).swapaxes(3, 4)
    rows = kernel[1] * taken.shape[1]
    patches = patches.reshape(len(x), group, rows, len(taken))
    grouped = (group, kernel[0] // group, rows)
    multiply = Contract(grouped, patches, "gmk,ngko->ngmo")
    return chain(Reshape(kernel, grouped), multiply, Reshape(multiply.out_shape, shape))


@lowers("ConvTranspose", products=((0, 1),), tangent=True)
def conv_transpose(site: Site) -> Local:
    """ConvTranspose: the transpose of the Conv that maps y's shape to x's, plus b.

    https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
    """
    (batch, _, *spatial), kernel, group = site.shape(0), site.shape(1), site.attribute("group", 1)
    window = transposed_window_of(site, tuple(spatial), kernel[2:])
    shape = (batch, kernel[1] * group, *window.in_size)

    def factor(position: int) -> Primitive:
        if position == 0:
            return Conv(batch, site.value(1), window, group).T
        return _into_patches(site.value(0), window, group, kernel, shape)

    return _with_channel_bias(site, factor, shape)


def _into_patches(x: Array, window: Window, group: int, kernel: Shape, shape: Shape) -> Primitive:
    """The map of the kernel (M, C/G, *taps) to y (N, C, *out): patches of y, added up where they overlap."""
    places = window.positions().T  # (taps, inputs)
    count, channels = len(x), kernel[1]
    images = x.reshape(count, group, kernel[0] // group, math.prod(x.shape[2:]))
    grouped = (group, kernel[0] // group, channels * len(places))
    multiply = Contract(grouped, images, "gmk,ngmi->ngki")
    planes = np.arange(count * group * channels, dtype=compact(shape)).reshape(-1, 1, 1)
    index = np.where(places < 0, -1, planes * math.prod(shape[2:]) + places)  # (N C, taps, inputs)
    add_up = Scatter(shape, index.astype(compact(shape)))
    return chain(Reshape(kernel, grouped), multiply, Reshape(multiply.out_shape, index.shape), add_up)
