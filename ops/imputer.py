"""Imputer: y = x, but another value where x is the replaced one; each value for all features or for one.

Entries that are replaced are held, the others pass. Guard: the side of the replaced value. Where that is NaN,
nothing is replaced in an x that has a linear map.
https://onnx.ai/onnx/operators/onnx_aionnxml_Imputer.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._keys import among
from ._rule import Local, Site, lowers
from ._scores import floats


@lowers("Imputer", domain="ai.onnx.ml", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def imputer(site: Site) -> Local:
    """Keep what is not replaced."""
    x, missing = site.value(), np.array(site.attribute("replaced_value_float", 0.0))
    if np.isnan(missing):
        return Local(Scale(x.shape, np.array(True)))
    if x.ndim > 2:
        raise site.refuse("takes rows of features, (N, F); reshape x before it")
    values = floats(site, "imputed_value_floats")
    values = values if len(values) == x.shape[-1] else values[:1]
    return Local(
        Scale(x.shape, x != missing), np.where(x == missing, values, 0.0), guards=(among(x, missing),)
    )
