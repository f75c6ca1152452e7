"""Col2Im: y = the sum of overlapping blocks, each column of x put back where its block was in the image.

Linear in x: entries are added where they belong, and those in the padding are dropped.
https://onnx.ai/onnx/operators/onnx__Col2Im.html
"""

import math

import numpy as np

from ..runtime.primitives import Scatter
from ._moves import compact
from ._rule import Local, Site, lowers
from ._windows import window_of


@lowers("Col2Im", linear_in=(0,))
def col2im(site: Site) -> Local:
    """Add every entry into its place."""
    image, block = site.integers("image_shape") or (), site.integers("block_shape") or ()
    window, _ = window_of(site, image, block)
    batch, rows, columns = site.shape()
    shape = (batch, rows // math.prod(block), *image)
    taps = window.positions().T  # (taps, blocks)
    first = np.arange(math.prod(shape[:2]))[:, None, None] * math.prod(image)
    index = np.where(taps < 0, -1, first + taps).reshape(batch, rows, columns)
    return Local(Scatter(shape, index.astype(compact(shape))))
