"""MaxPool, GlobalMaxPool: y = the largest entry of each window.

At x: each output selects its window's winner; among equals the first in the window's row-major order, as
onnxruntime does. Guard: the winner against every other entry of its window. The second output, Indices,
does not change around x.
https://onnx.ai/onnx/operators/onnx__MaxPool.html, …GlobalMaxPool.html
"""

from ..runtime.program import Kind
from ._pooled import grouped_extreme, windowed_extreme
from ._rule import Local, Site, lowers
from ._windows import pool_window


@lowers("MaxPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,), constant_outputs=(1,))
def max_pool(site: Site) -> Local:
    """Select every window's winner."""
    window, _ = pool_window(site, site.shape()[2:])
    return windowed_extreme(site, window)


@lowers("GlobalMaxPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def global_max_pool(site: Site) -> Local:
    """Select every channel's winner."""
    shape = site.shape()
    spatial = tuple(range(2, len(shape)))
    return grouped_extreme(site, spatial, (*shape[:2], *(1 for _ in spatial)))
