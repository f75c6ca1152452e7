"""Trilu: y = the upper or lower triangle of each matrix of x, zeros elsewhere.

https://onnx.ai/onnx/operators/onnx__Trilu.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ._rule import Local, Site, lowers


@lowers("Trilu", linear_in=(0,))
def trilu(site: Site) -> Local:
    """Mask the other triangle."""
    shape = site.shape()
    *_, rows, columns = shape
    k = int(np.ravel(site.value(1))[0]) if site.has(1) else 0
    upper = site.attribute("upper", 1)
    lower = np.tri(rows, columns, k - 1 if upper else k, dtype=bool)
    return Local(Scale(shape, ~lower if upper else lower))
