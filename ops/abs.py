"""Abs: y = |x|.

At x: a diagonal of ones and minus ones; 0 counts as negative, so that W is the map of a side. Guard: the
sign of each entry.
https://onnx.ai/onnx/operators/onnx__Abs.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, lowers, threshold


@lowers("Abs", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def absolute(site: Site) -> Local:
    """Turn the negative entries."""
    x = site.value()
    return Local(Scale(x.shape, np.where(x > 0, 1, -1).astype(x.dtype)), guards=(threshold(x),))
