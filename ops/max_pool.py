"""MaxPool, GlobalMaxPool: y = the largest entry of each window.

At x: each output selects its window's winner; among equals the first in the window's row-major order, as
onnxruntime does. Guard: the winner against every other entry of its window. The second output, Indices,
does not change around x.
https://onnx.ai/onnx/operators/onnx__MaxPool.html, …GlobalMaxPool.html
"""

from ..runtime.emit import Builder
from ..runtime.primitives import Shape
from ..runtime.program import Kind
from ._pooled import grouped_extreme, grouped_in_graph, windowed_extreme
from ._rule import Local, Site, explains, lowers
from ._windows import pool_window


@lowers("MaxPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,), constant_outputs=(1,))
def max_pool(site: Site) -> Local:
    """Select every window's winner."""
    window, _ = pool_window(site, site.shape()[2:])
    return windowed_extreme(site, window)


@lowers("GlobalMaxPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def global_max_pool(site: Site) -> Local:
    """Select every channel's winner."""
    return grouped_extreme(site, *_channels(site))


@explains("MaxPool")
def max_pool_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The winners are the pool's second output."""
    shaping = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
    given = {name: site.attribute(name) for name in shaping if site.attribute(name) is not None}
    if given.get("auto_pad", "NOTSET") != "NOTSET":
        given.pop("pads", None)
    return (graph.second("MaxPool", site.tensor(0), **given),)


@explains("GlobalMaxPool")
def global_max_pool_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """Every channel's winner."""
    return grouped_in_graph(site, graph, *_channels(site))


def _channels(site: Site) -> tuple[tuple[int, ...], Shape]:
    """The spatial axes, and the result's shape: every channel one group."""
    shape = site.shape()
    spatial = tuple(range(2, len(shape)))
    return spatial, (*shape[:2], *(1 for _ in spatial))
