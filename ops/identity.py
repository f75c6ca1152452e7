"""Identity, Dropout (inference), Cast and CastLike between floating types: y = x.

Casts to integers or booleans are among what rounds: ops/rounding.py.
https://onnx.ai/onnx/operators/onnx__Identity.html, …Dropout.html, …Cast.html, …CastLike.html
"""

import numpy as np

from ..runtime.primitives import Reshape
from ._rule import Local, Site, lowers, to_floating

_NOT_FLOATING = (
    "casts a value that depends on x to a type that is not floating point; name a tensor before it in outputs"
)


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


@lowers("CastLike")
def cast_like(site: Site) -> Local:
    """Pass x in the floating type of the other operand, on whose values nothing depends."""
    if not site.active(0):
        return Local({}, np.asarray(site.value(0), float))
    if not site.active(1) and site.value(1).dtype.kind != "f":
        raise site.refuse(_NOT_FLOATING)
    return Local({0: Reshape(site.shape(), site.shape())}, rounds=True)


@lowers("BitCast")
def bit_cast(site: Site) -> Local:
    """Refuse: the bits of a number are no affine function of it."""
    raise site.refuse(
        "reads the bits of a value that depends on x, which are not affine in x; "
        "name a tensor before it in outputs"
    )
