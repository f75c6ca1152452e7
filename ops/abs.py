"""Abs: y = |x|.

At x: y = S x with S = diag(sign x), where the sign of 0 is 0. Guard: the sign of each entry.
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
    return Local(Scale(x.shape, np.sign(x)), guards=(threshold(x),))
