"""ReduceSum, ReduceMean: sums and means over axes. ReduceMax, ReduceMin: the extreme entry along axes.

The first two are linear. The extremes select their winner at x, the first among equals; guard: the winner
against every other entry of its group.
https://onnx.ai/onnx/operators/onnx__ReduceSum.html, …ReduceMean.html, …ReduceMax.html, …ReduceMin.html
"""

import math

from ..runtime.emit import Builder
from ..runtime.primitives import Shape
from ..runtime.program import Kind
from ._pooled import grouped_extreme, grouped_in_graph
from ._reduced import reduced_axes, sum_over
from ._rule import Local, Site, explains, lowers


@lowers("ReduceSum", linear_in=(0,))
def reduce_sum(site: Site) -> Local:
    """Sum over the axes."""
    return Local(sum_over(site.shape(), reduced_axes(site), keep=bool(site.attribute("keepdims", 1))))


@lowers("ReduceMean", linear_in=(0,))
def reduce_mean(site: Site) -> Local:
    """Average over the axes."""
    shape, axes = site.shape(), reduced_axes(site)
    divisor = math.prod(shape[axis] for axis in axes)
    return Local(sum_over(shape, axes, keep=bool(site.attribute("keepdims", 1)), divisor=divisor))


def _groups(site: Site) -> tuple[tuple[int, ...], Shape]:
    """The axes, and the result's shape."""
    shape, axes = site.shape(), reduced_axes(site)
    if site.attribute("keepdims", 1):
        out = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    else:
        out = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return axes, out


@lowers("ReduceMax", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,))
def reduce_max(site: Site) -> Local:
    """Select the largest entry."""
    return grouped_extreme(site, *_groups(site))


@lowers("ReduceMin", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,))
def reduce_min(site: Site) -> Local:
    """Select the smallest entry."""
    return grouped_extreme(site, *_groups(site), -1)


@explains("ReduceMax")
def reduce_max_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The winners."""
    return grouped_in_graph(site, graph, *_groups(site))


@explains("ReduceMin")
def reduce_min_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The winners."""
    return grouped_in_graph(site, graph, *_groups(site), -1)
