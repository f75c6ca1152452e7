"""Pad: x with a border; of a constant, or of x's own entries (edge, reflect, wrap).

Border entries of a constant are the offset; others are further copies. Negative pads crop.
https://onnx.ai/onnx/operators/onnx__Pad.html
"""

import numpy as np

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("Pad", linear_in=(0,))
def pad(site: Site) -> Local:
    """Crop, then border, the array of positions."""
    rank = len(site.shape())
    pads = site.integers("pads", site.attribute("paddings")) or ()
    axes = [axis % rank for axis in site.integers("axes", tuple(range(rank))) or ()]
    widths = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        widths[axis] = (int(pads[i]), int(pads[i + len(axes)]))
    own = positions(site)
    mode = site.attribute("mode", "constant")
    if mode == "constant":
        index = np.pad(own[_crop(widths, own.shape)], _border(widths), constant_values=-1)
        value = site.parameter("constant_value", site.attribute("value", 0.0))
        fill = float(np.ravel(value)[0]) if np.size(value) else 0.0
        return Local(gathered(site, index), np.where(index < 0, fill, 0.0) if fill else None)
    # numpy's modes carry ONNX's names; what a negative pad crops cannot be copied from.
    index = np.pad(own[_crop(widths, own.shape)], _border(widths), mode=mode)
    return Local(gathered(site, index))


def _crop(widths: list[tuple[int, int]], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, -begin), size - max(0, -end)) for (begin, end), size in zip(widths, shape, strict=True)
    )


def _border(widths: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(max(0, begin), max(0, end)) for begin, end in widths]
