"""Pictures of image inputs: the input, maps of signed numbers in diverging colours, and both in one.

A picture is an indexed or true-colour PNG with one pixel for each entry, or for a square block of entries
where there are many; browsers enlarge it without smoothing.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.arrays import Array
from .spots import Spot

if TYPE_CHECKING:  # a plot, which draws none of these, does without
    from PIL.Image import Image

# ColorBrewer's 11-class RdBu (colorbrewer2.org), which people with any kind of colour vision tell apart,
# from the most negative, blue, over nearly white at zero to the most positive, red.
_ANCHORS = [
    "053061",
    "2166ac",
    "4393c3",
    "92c5de",
    "d1e5f0",
    "f7f7f7",
    "fddbc7",
    "f4a582",
    "d6604d",
    "b2182b",
    "67001f",
]
LEVELS = 127  # on each side of zero
MOST = 512  # pixels a side
_CROWD = 1000  # entries, from which a few outliers may saturate
_FAINT = 0.4  # how much of the input's contrast lies under the colours


@dataclass(frozen=True)
class Frame:
    """A rectangle on a picture, in its pixels."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Picture:
    """A PNG for the page."""

    source: str  # a data URI
    width: int
    height: int
    alt: str
    block: int = 1  # entries a side that one pixel stands for
    frame: Frame | None = None

    def framed(self, spot: Spot) -> Picture:
        """The same with a frame around a box of its entries."""
        size = (spot.right - spot.left, spot.bottom - spot.top)
        return replace(self, frame=Frame(*(n / self.block for n in (spot.left, spot.top, *size))))


def palette() -> Array:
    """(255, 3) colours from -1 to 1: entry 127 is zero's."""
    anchors = np.array([list(bytes.fromhex(anchor)) for anchor in _ANCHORS], np.float64)
    places = np.linspace(0, len(anchors) - 1, 2 * LEVELS + 1)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


def limit_of(*maps: Array) -> float:
    """The size that the deepest colour stands for, in several maps that are to be compared.

    The largest of all; where there are many entries, that of the 995th of a thousand, so that a few
    outliers do not leave the rest blank. 1 where all are zero.
    """
    sizes = np.abs(np.concatenate([np.ravel(each) for each in maps]).astype(np.float64))
    top = float(np.quantile(sizes, 0.995)) if sizes.size > _CROWD else 0.0
    return top or float(sizes.max(initial=0.0)) or 1.0


def block_of(height: int, width: int) -> int:
    """How many entries a side one pixel stands for."""
    return math.ceil(max(height, width) / MOST)


def summed(values: Array, block: int) -> Array:
    """(H, W) with square blocks of entries added up: what is additive stays so."""
    if block == 1:
        return values
    rows, columns = (np.arange(0, size, block) for size in values.shape)
    return np.asarray(np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1))


def averaged(values: Array, block: int) -> Array:
    """(H, W) with the mean of each square block."""
    return summed(values, block) / summed(np.ones_like(values, dtype=np.float64), block)


def signed_map(values: Array, limit: float, alt: str) -> Picture:
    """Signed numbers (H, W) in diverging colours; limit is what the deepest stand for."""
    block = block_of(*values.shape)
    levels = np.clip(np.round(summed(values.astype(np.float64), block) / limit * LEVELS), -LEVELS, LEVELS)
    return _picture(_in_colours(levels + LEVELS), alt, block)


def photograph(channels: Array, alt: str) -> Picture:
    """The input (C, H, W), stretched from its least to its largest value: in colours where C is 3."""
    shown = _stretched(channels)
    image = _image(shown[..., 0] if shown.shape[2] == 1 else shown)
    return _picture(image, alt, block_of(*channels.shape[1:]))


def overlay(channels: Array, values: Array, limit: float, alt: str) -> Picture:
    """The input in faint grey under signed numbers (H, W): the larger they are, the more they cover."""
    block = block_of(*values.shape)
    grey = _stretched(channels).mean(axis=2, keepdims=True)
    ground = 255 - _FAINT * (255 - grey)
    share = np.clip(summed(values.astype(np.float64), block) / limit, -1, 1)[..., None]
    deep = np.where(share > 0, palette()[-LEVELS // 5], palette()[LEVELS // 5])
    blend = ground + np.abs(share) * (deep - ground)
    return _picture(_image(np.round(blend)), alt, block)


def colour_bar() -> Picture:
    """All colours from left to right."""
    return _picture(_in_colours(np.arange(2 * LEVELS + 1)[None]), "", 1)


def _stretched(channels: Array) -> Array:
    """(H, W, 3) or (H, W, 1) bytes; one map of means where the channels are no colours."""
    block = block_of(*channels.shape[1:])
    planes = channels.astype(np.float64)
    planes = planes[:3] if len(planes) in (3, 4) else planes.mean(axis=0, keepdims=True)
    planes = np.stack([averaged(plane, block) for plane in planes], axis=2)
    low, high = planes.min(), planes.max()
    scaled = (planes - low) / (high - low) if high > low else np.zeros_like(planes)
    return np.round(255 * scaled).astype(np.uint8)


def _image(values: Array) -> Image:
    """Grey values (H, W) or colours (H, W, 3), from 0 to 255."""
    from PIL.Image import fromarray

    return fromarray(values.astype(np.uint8))


def _in_colours(indices: Array) -> Image:
    """Places in the palette, (H, W)."""
    image = _image(indices)
    image.putpalette(palette().tobytes())
    return image


def _picture(image: Image, alt: str, block: int) -> Picture:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(source, image.width, image.height, alt, block)
