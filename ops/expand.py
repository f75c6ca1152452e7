"""Expand, Tile: copies of x along its axes.

https://onnx.ai/onnx/operators/onnx__Expand.html, …Tile.html
"""

import numpy as np

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("Expand", linear_in=(0,))
def expand(site: Site) -> Local:
    """Broadcast to the common shape of x and the asked one."""
    asked = site.integers("shape") or ()
    return Local(site.spread(0, np.broadcast_shapes(site.shape(0), asked)))


@lowers("Tile", linear_in=(0,))
def tile(site: Site) -> Local:
    """Repeat along every axis (opset 1: along one)."""
    if site.opset < 6:
        repeats = np.ones(len(site.shape()), np.int64)
        repeats[int(site.value(2))] = int(site.value(1))
    else:
        repeats = site.value(1).astype(np.int64)
    return Local(gathered(site, np.tile(positions(site), tuple(repeats))))
