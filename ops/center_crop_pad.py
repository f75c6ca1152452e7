"""CenterCropPad: y = the centre of x, cropped where x is larger and put into zeros where it is smaller.

An odd entry is left over at the end of its axis.
https://onnx.ai/onnx/operators/onnx__CenterCropPad.html
"""

import numpy as np

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("CenterCropPad", linear_in=(0,))
def center_crop_pad(site: Site) -> Local:
    """Crop, then border, the array of positions."""
    own = positions(site)
    axes = site.integers("axes") or tuple(range(own.ndim))
    for axis, size in zip(axes, site.value(1), strict=True):
        length = own.shape[axis]
        first, before = max(0, length - int(size)) // 2, max(0, int(size) - length) // 2
        widths = [(0, 0)] * own.ndim
        widths[axis] = (before, max(0, int(size) - length) - before)
        kept = np.take(own, np.arange(first, first + min(length, int(size))), axis)
        own = np.pad(kept, widths, constant_values=-1)
    return Local(gathered(site, own))
