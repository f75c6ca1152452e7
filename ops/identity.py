"""Identity, Dropout (inference), Cast between floating types: y = x.

A cast to integers or booleans is in ops/cast_to_integer.py.
https://onnx.ai/onnx/operators/onnx__Identity.html, …Dropout.html, …Cast.html
"""

import numpy as np

from ..runtime.primitives import Reshape
from ._rule import Local, Site, lowers, to_floating


@lowers("Identity")
def identity(site: Site) -> Local:
    """Pass x."""
    return Local(Reshape(site.shape(), site.shape()))


@lowers("Dropout", linear_in=(0,), constant_outputs=(1,))
def dropout(site: Site) -> Local:
    """Pass x: at inference nothing is dropped."""
    if site.has(2) and bool(np.all(site.value(2))) and float(np.max(site.parameter("ratio", 0.5))) > 0:
        raise site.refuse("training_mode = true drops entries at random; export the model for inference")
    return identity(site)


@lowers("Cast", when=to_floating)
def cast(site: Site) -> Local:
    """Pass x in another floating type; its rounding is part of the stated bound."""
    return Local(Reshape(site.shape(), site.shape()), rounds=True)
