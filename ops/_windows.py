"""Sliding windows as ONNX describes them: auto_pad, pads, strides, dilations and ceil_mode, solved once."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.primitives import Shape, Window
from ._rule import Site


def window_of(
    site: Site, spatial: Shape, kernel: Shape, *, same_extent: Shape | None = None
) -> tuple[Window, Shape]:
    """Return the window of a Conv or a pool over an input of the given spatial shape.

    Args:
        site: the node.
        spatial: the input's spatial shape.
        kernel: the kernel's.
        same_extent: what auto_pad's SAME makes room for, by default the dilated kernel.

    The second value is the padding at the end of each axis, as the attributes give it.
    """
    rank = len(spatial)
    strides = _each(site.attribute("strides"), rank, 1)
    dilations = _each(site.attribute("dilations"), rank, 1)
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    begin, end = _pads(site, spatial, strides, same_extent or extent)
    sizes = []
    for i, b, e, x, s in zip(spatial, begin, end, extent, strides, strict=True):
        room = i + b + e - x
        if site.attribute("ceil_mode", 0) and -(-room // s) * s < i + b:
            sizes.append(-(-room // s) + 1)  # a last window may start inside the input or its left padding
        else:
            sizes.append(max(0, int(room / s) + 1))  # towards zero, as in C
    return Window(spatial, tuple(sizes), kernel, strides, dilations, begin), end


def pool_window(site: Site, spatial: Shape) -> tuple[Window, Shape]:
    """The window of a pool. For SAME onnxruntime pads as if the kernel were not dilated."""
    kernel = site.integers("kernel_shape") or ()
    return window_of(site, spatial, kernel, same_extent=kernel)


def _pads(site: Site, spatial: Shape, strides: Shape, extent: Shape) -> tuple[Shape, Shape]:
    """Padding at the begin and at the end of each axis."""
    rank = len(spatial)
    auto_pad = site.attribute("auto_pad", "NOTSET")
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        pads = (0,) * 2 * rank if auto_pad == "VALID" else _each(site.attribute("pads"), 2 * rank, 0)
        return pads[:rank], pads[rank:]
    total = [(-(-i // s) - 1) * s + e - i for i, s, e in zip(spatial, strides, extent, strict=True)]
    # Where the window is below the stride, onnxruntime's pools crop instead (AveragePool since opset 19).
    if site.op_type not in ("LpPool", "MaxPool") and (site.op_type != "AveragePool" or site.opset < 19):
        total = [max(0, t) for t in total]
    extra = 0 if auto_pad == "SAME_UPPER" else 1
    begin = tuple(int((t + extra) / 2) for t in total)  # towards zero, as in C
    return begin, tuple(t - b for t, b in zip(total, begin, strict=True))


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
