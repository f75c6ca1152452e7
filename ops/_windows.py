"""Sliding windows as ONNX describes them: auto_pad, pads, strides, dilations and ceil_mode, solved once."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.primitives import Shape, Window
from ._rule import Site


def window_of(site: Site, spatial: Shape, kernel: Shape) -> tuple[Window, Shape]:
    """Return the window of a Conv or a pool over an input of the given spatial shape.

    The second value is the padding at the end of each axis, as the attributes give it.
    """
    rank = len(spatial)
    strides = _each(site.attribute("strides"), rank, 1)
    dilations = _each(site.attribute("dilations"), rank, 1)
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    auto_pad = site.attribute("auto_pad", "NOTSET")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        out = tuple(-(-i // s) for i, s in zip(spatial, strides, strict=True))
        total = [
            max(0, (o - 1) * s + e - i) for o, s, e, i in zip(out, strides, extent, spatial, strict=True)
        ]
        small = [t // 2 for t in total]
        large = [t - s for t, s in zip(total, small, strict=True)]
        begin, end = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        return Window(spatial, out, kernel, strides, dilations, tuple(begin)), tuple(end)
    pads = (0,) * 2 * rank if auto_pad == "VALID" else _each(site.attribute("pads"), 2 * rank, 0)
    begin, end = list(pads[:rank]), list(pads[rank:])
    sizes = []
    for i, b, e, x, s in zip(spatial, begin, end, extent, strides, strict=True):
        room = i + b + e - x
        if site.attribute("ceil_mode", 0) and -(-room // s) * s < i + b:
            sizes.append(-(-room // s) + 1)  # a last window may start inside the input or its left padding
        else:
            sizes.append(room // s + 1)
    return Window(spatial, tuple(sizes), kernel, strides, dilations, tuple(begin)), tuple(end)


def transposed_window_of(site: Site, spatial: Shape, kernel: Shape) -> Window:
    """Return the window of the Conv whose transpose a ConvTranspose is; its *output* has shape `spatial`."""
    rank = len(spatial)
    strides = _each(site.attribute("strides"), rank, 1)
    dilations = _each(site.attribute("dilations"), rank, 1)
    extra = _each(site.attribute("output_padding"), rank, 0)
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    auto_pad = site.attribute("auto_pad", "NOTSET")
    asked = site.attribute("output_shape")
    free = tuple((i - 1) * s + p + e for i, s, p, e in zip(spatial, strides, extra, extent, strict=True))
    if asked or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        # auto_pad only ever takes away: where the kernel is shorter than the stride the output stays short.
        same = tuple(min(i * s, f) for i, s, f in zip(spatial, strides, free, strict=True))
        sizes = tuple(int(v) for v in asked[-rank:]) if asked else same
        total = [max(0, f - o) for f, o in zip(free, sizes, strict=True)]
        half = [t // 2 for t in total]
        begin = half if auto_pad == "SAME_UPPER" else [t - h for t, h in zip(total, half, strict=True)]
        return Window(sizes, spatial, kernel, strides, dilations, tuple(begin))
    pads = (0,) * 2 * rank if auto_pad == "VALID" else _each(site.attribute("pads"), 2 * rank, 0)
    sizes = tuple(f - b - e for f, b, e in zip(free, pads[:rank], pads[rank:], strict=True))
    return Window(sizes, spatial, kernel, strides, dilations, tuple(pads[:rank]))


def _each(values: Sequence[int] | None, count: int, default: int) -> Shape:
    return tuple(int(v) for v in values) if values else (default,) * count
