"""MaxUnpool: y[indices[i]] = x[i], and 0 elsewhere.

Linear in x for fixed indices, which those that MaxPool reports are around x. Where an index comes twice, the
last entry stays. Indices are flat positions in y; onnxruntime takes them so with output_shape too, where the
specification counts in the shape that the kernel alone would give.
https://onnx.ai/onnx/operators/onnx__MaxUnpool.html
"""

import math

import numpy as np

from ..runtime.primitives import Shape
from ._moves import gathered
from ._rule import Local, Site, lowers


@lowers("MaxUnpool", linear_in=(0,))
def max_unpool(site: Site) -> Local:
    """Put the entries where they came from."""
    shape = site.integers("output_shape") or _unpooled(site)
    source = np.full(math.prod(shape), -1, np.int64)
    source[site.value(1).ravel()] = np.arange(math.prod(site.shape()))
    return Local(gathered(site, source.reshape(shape)))


def _unpooled(site: Site) -> Shape:
    """The shape that the pool's windows cover."""
    batch, channels, *spatial = site.shape()
    kernel = site.integers("kernel_shape") or ()
    strides = site.integers("strides") or (1,) * len(kernel)
    pads = site.integers("pads") or (0,) * 2 * len(kernel)
    begin, end = pads[: len(kernel)], pads[len(kernel) :]
    sizes = zip(spatial, strides, begin, end, kernel, strict=True)
    return (batch, channels, *((i - 1) * s - b - e + k for i, s, b, e, k in sizes))
