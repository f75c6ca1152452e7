"""Floor, Ceil, Round, Cast to integers: y jumps between integers.

Locally constant. Guard: the interval between two jumps in which each entry lies. Round goes to the nearest
integer, a tie to the even one; Cast drops what is behind the point, and to booleans it tells 0 from the rest.
With quantisation read straight through, Round and casts to integers are the identity, off by so much.
https://onnx.ai/onnx/operators/onnx__Floor.html, …Ceil.html, …Round.html, …Cast.html
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..runtime.primitives import Array, Reshape
from ..runtime.program import Guard
from ._quantization import HALF, exact, straight_through
from ._rule import Local, Reading, Site, between, jumps, lowers, sign_of, stays, to_other

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


@jumps("Round", when=exact)
def nearest(site: Site) -> tuple[Guard, ...]:
    """The halves on either side."""
    y = np.rint(site.value())
    return (between(site.value(), y - 0.5, y + 0.5),)


@lowers("Round", observes=(0,), when=straight_through)
def straight_on(site: Site) -> Local:
    """Straight through, a rounding to integers is the identity, off by half a step at most."""
    return Local(Reshape(site.shape(), site.shape()), slack=HALF)


def _straight_cast(attributes: Mapping[str, Any], reading: Reading) -> bool:
    """Whether a cast to integers is read straight through."""
    numbers = attributes.get("to") not in (_BOOL, _STRING)
    return reading.straight_through and to_other(attributes, reading) and numbers


def _jumping_cast(attributes: Mapping[str, Any], reading: Reading) -> bool:
    """Whether a cast to integers, booleans or strings is taken for what it is."""
    return to_other(attributes, reading) and not _straight_cast(attributes, reading)


@lowers("Cast", observes=(0,), when=_straight_cast)
def cast_straight_on(site: Site) -> Local:
    """Straight through, integers pass, and what is behind the point of other numbers is dropped."""
    x = site.value()
    return Local(Reshape(x.shape, x.shape), rounds=True, slack=np.where(x == np.trunc(x), 0.0, 1.0))


@jumps("Cast", when=_jumping_cast)
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
