"""Floor, Ceil, Round, Cast to integers: y jumps between integers.

Locally constant. Guard: the interval between two jumps in which each entry lies. Round goes to the nearest
integer, a tie to the even one; Cast drops what is behind the point, and to booleans it tells 0 from the rest.
https://onnx.ai/onnx/operators/onnx__Floor.html, …Ceil.html, …Round.html, …Cast.html
"""

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import Guard
from ._rule import Site, between, jumps, sign_of, stays, to_other

_BOOL = 9  # TensorProto.DataType
_STRING = 8


@jumps("Floor")
def floor(site: Site) -> tuple[Guard, ...]:
    """The integers on either side."""
    low = np.floor(site.value())
    return (between(site.value(), low, low + 1),)


@jumps("Ceil")
def ceil(site: Site) -> tuple[Guard, ...]:
    """The integers on either side."""
    high = np.ceil(site.value())
    return (between(site.value(), high - 1, high),)


@jumps("Round")
def nearest(site: Site) -> tuple[Guard, ...]:
    """The halves on either side."""
    y = np.rint(site.value())
    return (between(site.value(), y - 0.5, y + 0.5),)


@jumps("Cast", when=to_other)
def cast(site: Site) -> tuple[Guard, ...]:
    """The integers on either side, or the side of 0."""
    x, to = site.value(), site.attribute("to")
    if to == _BOOL:
        return (sign_of(x),)
    if to == _STRING:
        return (stays(x),)
    return (towards_zero(x),)


def towards_zero(x: Array) -> Guard:
    """Guard of the integer part of each entry of operand 0."""
    y = np.trunc(x)
    return between(x, np.where(y > 0, y, y - 1), np.where(y < 0, y, y + 1))
