"""AveragePool, GlobalAveragePool: y = the mean of each window.

Linear: a depthwise convolution with ones, divided by the number of entries. Padding counts as entries
only with count_include_pad, and what ceil_mode adds beyond the padding never does.
https://onnx.ai/onnx/operators/onnx__AveragePool.html, …GlobalAveragePool.html
"""

import math

import numpy as np

from ..runtime.primitives import Conv, Scale, Shape, Window, chain
from ._reduced import sum_over
from ._rule import Local, Site, lowers
from ._windows import pool_window


@lowers("AveragePool")
def average_pool(site: Site) -> Local:
    """Average over every window."""
    batch, channels, *spatial = site.shape()
    window, pads_end = pool_window(site, tuple(spatial))
    total = Conv(batch, np.ones((channels, 1, *window.kernel), np.float32), window, channels)
    counts = _entries(window, pads_end, bool(site.attribute("count_include_pad", 0)))
    return Local(chain(total, Scale(total.out_shape, 1 / np.maximum(counts, 1))))


def _entries(window: Window, pads_end: Shape, padded: bool) -> np.ndarray:
    """Number of entries that each window's sum is divided by, (*out)."""
    counts = np.ones(())
    for i, o, k, s, d, p, e in zip(
        window.in_size,
        window.out_size,
        window.kernel,
        window.strides,
        window.dilations,
        window.pads,
        pads_end,
        strict=True,
    ):
        read = np.arange(o)[:, None] * s + np.arange(k) * d - p  # (o, k)
        inside = (read < i + e) if padded else (read >= 0) & (read < i)
        counts = counts[..., None] * inside.sum(axis=1)
    return counts


@lowers("GlobalAveragePool")
def global_average_pool(site: Site) -> Local:
    """Average over every channel."""
    shape = site.shape()
    return Local(sum_over(shape, tuple(range(2, len(shape))), keep=True, divisor=math.prod(shape[2:])))
