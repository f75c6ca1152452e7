"""LabelEncoder: y = the value of the key that x is, or a default.

Locally constant in floating-point x. Guard: the keys on either side; an entry that is a key sits on its edge.
https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html
"""

import numpy as np

from ..runtime.program import Guard
from ._keys import among
from ._rule import Site, jumps


@jumps("LabelEncoder", domain="ai.onnx.ml")
def label_encoder(site: Site) -> tuple[Guard, ...]:
    """The keys next to each entry."""
    keys = np.ravel(site.attribute("keys_floats", site.attribute("keys_tensor")))
    return (among(site.value(), keys[~np.isnan(keys)]),)
