"""CumSum: y = the sums of x along an axis up to each entry, with or without it, from either end.

Linear: a triangular matrix of ones along the axis.
https://onnx.ai/onnx/operators/onnx__CumSum.html
"""

import numpy as np

from ..runtime.primitives import Contract, Reshape
from ._rule import Local, Site, lowers

_LABELS = "abcdefghijklmnopqrstuvwxy"


@lowers("CumSum", linear_in=(0,))
def cum_sum(site: Site) -> Local:
    """Multiply by the triangle."""
    shape = site.shape()
    if 0 in shape:
        return Local(Reshape(shape, shape))
    axis = int(np.ravel(site.value(1))[0]) % len(shape)
    triangle = np.tri(shape[axis], k=-1 if site.attribute("exclusive", 0) else 0, dtype=np.float32)
    if site.attribute("reverse", 0):
        triangle = triangle.T
    x = _LABELS[: len(shape)]
    y = x.replace(x[axis], "z")
    return Local(Contract(shape, triangle, f"{x},z{x[axis]}->{y}"))
