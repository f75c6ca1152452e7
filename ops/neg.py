"""Neg: y = -x.

https://onnx.ai/onnx/operators/onnx__Neg.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ._rule import Local, Site, lowers


@lowers("Neg")
def neg(site: Site) -> Local:
    """Turn the sign."""
    return Local(Scale(site.shape(), np.float32(-1) * np.ones((), np.float32)))
