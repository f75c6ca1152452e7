"""What quantised operators share: grids, scales spread over a tensor, and the two readings.

Read exactly, a rounding to integers is locally constant. Read straight through, it is the identity within the
range of the integers, and off by half a step of the grid at most: `Local.slack`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..runtime.primitives import Array, Primitive, Scale, Shape, chain
from ..runtime.program import Guard, HalfSpaces
from ._rule import Local, Reading, Site, between, threshold

HALF = 0.5  # of a step: how far a rounding to the nearest may be off
_UINT8 = np.dtype(np.uint8)


def exact(_: Mapping[str, Any], reading: Reading) -> bool:
    """Whether quantisation is read as what it is."""
    return not reading.straight_through


def straight_through(_: Mapping[str, Any], reading: Reading) -> bool:
    """Whether quantisation is read as linear."""
    return reading.straight_through


def integer_range(site: Site, dtype: np.dtype[Any]) -> tuple[float, float]:
    """The smallest and the largest number of a grid.

    Raises:
        UnsupportedError: a grid of floating-point numbers.
    """
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return float(info.min), float(info.max)
    bits = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}.get(dtype.name)
    if bits is None:
        raise site.refuse(
            f"rounds to {dtype}, a grid that is not even; name a tensor before it in outputs, or ask with "
            "quantized='exact'"
        )
    return float(bits[0]), float(bits[1])


def per_entry(site: Site, position: int, shape: Shape, default: float = 0.0) -> Array:
    """A scale or zero point for each entry; given are one, one for each index of `axis`, or one a block."""
    if not site.has(position):
        return np.array(default)
    value = _numbers(site.value(position))
    axis = site.attribute("axis", 1)
    if value.ndim == 0 or value.size == 1:
        return value.reshape(())
    if value.ndim == 1:
        column = [1] * len(shape)
        column[axis % len(shape)] = len(value)
        return value.reshape(column)
    axis, size = axis % len(shape), site.attribute("block_size", 0)
    return np.repeat(value, size, axis=axis).take(range(shape[axis]), axis=axis) if size else value


def zero_point_type(site: Site, position: int) -> np.dtype[Any]:
    """The type of the integers: the zero point's, or as an attribute says, or unsigned bytes."""
    if site.has(position):
        return np.asarray(site.value(position)).dtype
    asked = site.attribute("output_dtype", 0)
    return np.dtype(_TYPES.get(asked, _UINT8))


_TYPES = {2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16}  # TensorProto.DataType


def cells(scaled: Array, scale: Array, zero: Array, low: float, high: float) -> Guard:
    """Guard of rounding to the nearest integer within a range, a tie to the even one, on the input."""
    q = np.clip(np.rint(scaled), low - zero, high - zero)
    bottom = np.where(q <= low - zero, -np.inf, q - HALF)
    top = np.where(q >= high - zero, np.inf, q + HALF)
    return between(scaled * scale, bottom * scale, top * scale)


def onto_grid(
    site: Site, terms: Mapping[int, Primitive], offset: Array | float, at_x: Array, low: float, high: float
) -> Local:
    """Straight through: the affine map before the rounding, held at the ends of the range.

    Args:
        site: the node.
        terms: of the map to numbers in units of the grid.
        offset: of the same.
        at_x: its value.
        low: the smallest number of the grid.
        high: the largest.
    """
    inside = (at_x > low) & (at_x <= high)
    held = {position: chain(L, Scale(L.out_shape, inside)) for position, L in terms.items()}
    bound = np.where(at_x > high, high, low)
    guards = (_end(at_x, low, terms, offset), _end(at_x, high, terms, offset))
    return Local(
        held,
        np.where(inside, offset, bound),
        guards,
        offset_size=np.where(inside, np.abs(offset), np.abs(bound)),
        slack=np.where(inside, HALF, 0.0),
    )


def requantized(site: Site, terms: Mapping[int, Primitive], offset: Array, grid: np.dtype[Any]) -> Local:
    """Straight through: `onto_grid` of integers of a type, with the values at x of the terms' operands."""
    at_x = offset
    for position, L in terms.items():
        at_x = at_x + L.apply(site.value(position)[None])[0]
    return onto_grid(site, terms, offset, at_x, *integer_range(site, grid))


def _end(at_x: Array, end: float, terms: Mapping[int, Primitive], offset: Array | float) -> Guard:
    """Guard of one end of the range, on the inputs of the map."""
    plain = threshold(at_x, end)
    sign = np.where(plain.choice, 1, -1).astype(at_x.dtype)

    def half_spaces() -> HalfSpaces:
        rows = tuple((position, chain(L, Scale(L.out_shape, sign))) for position, L in terms.items())
        return HalfSpaces(rows, sign * (np.broadcast_to(offset, at_x.shape) - end))

    return Guard(plain.choice, plain.margins, half_spaces)


def numbers(site: Site, position: int) -> Array:
    """An operand that is held as numbers to compute with; 0 where it is left out."""
    return _numbers(np.asarray(site.value(position))) if site.has(position) else np.zeros(())


def _numbers(value: Array) -> Array:
    """Integers as numbers to compute with; floating types stay."""
    return value if value.dtype.kind == "f" and value.dtype.itemsize >= 4 else value.astype(np.float64)
