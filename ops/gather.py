"""Gather, GatherElements, GatherND: y = x taken at given indices; negative ones count from the end.

https://onnx.ai/onnx/operators/onnx__Gather.html, …GatherElements.html, …GatherND.html
"""

import numpy as np

from ._moves import along, gathered, nested, positions
from ._rule import Local, Site, lowers


@lowers("Gather", linear_in=(0,))
def gather(site: Site) -> Local:
    """Select along one axis."""
    return Local(
        gathered(
            site, np.take(positions(site), site.value(1).astype(np.int64), axis=site.attribute("axis", 0))
        )
    )


@lowers("GatherElements", linear_in=(0,))
def gather_elements(site: Site) -> Local:
    """Select along one axis, at indices of their own for each entry."""
    return Local(gathered(site, along(site, site.value(1), site.attribute("axis", 0))))


@lowers("GatherND", linear_in=(0,))
def gather_nd(site: Site) -> Local:
    """Select the entries or slices that tuples of indices name."""
    return Local(gathered(site, nested(site, site.value(1), site.attribute("batch_dims", 0))))
