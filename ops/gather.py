"""Gather: y = x taken at given indices along an axis.

https://onnx.ai/onnx/operators/onnx__Gather.html
"""

import numpy as np

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("Gather", linear_in=(0,))
def gather(site: Site) -> Local:
    """Select along one axis; negative indices count from the end."""
    return Local(
        gathered(
            site, np.take(positions(site), site.value(1).astype(np.int64), axis=site.attribute("axis", 0))
        )
    )
