"""ArrayFeatureExtractor: z = x at given indices along the last axis; a vector becomes one row.

https://onnx.ai/onnx/operators/onnx_aionnxml_ArrayFeatureExtractor.html
"""

import numpy as np

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("ArrayFeatureExtractor", domain="ai.onnx.ml", linear_in=(0,))
def array_feature_extractor(site: Site) -> Local:
    """Select along the last axis."""
    taken = np.take(positions(site), np.ravel(site.value(1)).astype(np.int64), axis=-1)
    return Local(gathered(site, np.atleast_2d(taken)))
