"""OneHot: y = values[1] at the index along a new axis, values[0] elsewhere.

Linear in the two values for held indices: each entry is one of them.
https://onnx.ai/onnx/operators/onnx__OneHot.html
"""

import numpy as np

from ._moves import gathered
from ._rule import Local, Site, lowers


@lowers("OneHot", linear_in=(2,))
def one_hot(site: Site) -> Local:
    """Select off or on; negative indices count from the end, others out of range are off everywhere."""
    depth = int(np.ravel(site.value(1))[0])
    indices = site.value(0).astype(np.int64)
    indices = np.where(indices < 0, indices + depth, indices)
    axis = site.attribute("axis", -1) % (indices.ndim + 1)
    classes = np.arange(depth).reshape(-1, *(1,) * (indices.ndim - axis))
    return Local({2: gathered(site, np.expand_dims(indices, axis) == classes, 2)})
