"""Slice: y = x[start:end:step, …], with steps of either sign.

https://onnx.ai/onnx/operators/onnx__Slice.html
"""

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("Slice", linear_in=(0,))
def slice_(site: Site) -> Local:
    """Select the sliced entries."""
    rank = len(site.shape())
    starts, ends = site.integers("starts") or (), site.integers("ends") or ()
    axes = site.integers("axes", tuple(range(len(starts)))) or ()
    steps = site.integers("steps", (1,) * len(starts)) or ()
    cut = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        length = site.shape()[axis]
        cut[axis % rank] = _bounded(start, end, step, length)
    return Local(gathered(site, positions(site)[tuple(cut)]))


def _bounded(start: int, end: int, step: int, length: int) -> slice:
    """ONNX clamps to [0, n] (forwards) or [-1, n-1] (backwards) after adding n once to negative bounds."""
    start, end = (v + length if v < 0 else v for v in (start, end))
    if step > 0:
        return slice(min(max(start, 0), length), min(max(end, 0), length), step)
    start, end = min(max(start, 0), length - 1), min(max(end, -1), length - 1)
    return slice(start, None if end < 0 else end, step)
