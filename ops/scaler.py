"""Scaler: y = (x - offset) · scale, each one number or one for each feature.

https://onnx.ai/onnx/operators/onnx_aionnxml_Scaler.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ._rule import Local, Site, lowers
from ._scores import floats


@lowers("Scaler", domain="ai.onnx.ml")
def scaler(site: Site) -> Local:
    """A diagonal matrix."""
    scale, shift = floats(site, "scale"), floats(site, "offset")
    if len(site.shape()) > 2 and scale.size > 1:
        raise site.refuse("takes rows of features, (N, F); reshape x before it")
    moved = -shift * scale
    return Local(Scale(site.shape(), scale), moved, offset_size=np.abs(moved))
