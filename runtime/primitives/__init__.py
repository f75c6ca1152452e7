"""The closed vocabulary of linear maps that every rule lowers to and every engine is written over.

Closed under transposition: `Scale`, `Reshape`, `Transpose`, `Contract`, `Sparse` and `Chain` transpose
into their own kind; `Gather` into `Scatter`, `Broadcast` into `Sum`, `Conv` into `ConvTranspose`.
"""

from ..arrays import Array, Shape
from .base import Primitive, flat
from .contract import Contract
from .conv import Conv, ConvTranspose
from .explicit import Chain, Sparse, chain
from .move import Gather, Reshape, Scatter, Transpose
from .scale import Scale
from .spread import Broadcast, Sum
from .window import Window

__all__ = [
    "Array",
    "Broadcast",
    "Chain",
    "Contract",
    "Conv",
    "ConvTranspose",
    "Gather",
    "Primitive",
    "Reshape",
    "Scale",
    "Scatter",
    "Shape",
    "Sparse",
    "Sum",
    "Transpose",
    "Window",
    "chain",
    "flat",
]
