"""Compress: y = the slices of x along an axis, or its flattened entries, for which a condition holds.

https://onnx.ai/onnx/operators/onnx__Compress.html
"""

import numpy as np

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("Compress", linear_in=(0,))
def compress(site: Site) -> Local:
    """Select the slices; those beyond the end of the condition are dropped."""
    return Local(gathered(site, np.compress(site.value(1), positions(site), site.attribute("axis"))))
