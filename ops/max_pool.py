"""MaxPool, GlobalMaxPool: y = the largest entry of each window.

At x: each output selects its window's winner; among equals the first in the window's row-major order, as
onnxruntime does. Guard: the winner against every other entry of its window. The second output, Indices,
does not change around x.
https://onnx.ai/onnx/operators/onnx__MaxPool.html, …GlobalMaxPool.html
"""

import math

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ._moves import positions
from ._pooled import extreme_in_graph, extreme_of
from ._rule import Local, Site, explains, lowers
from ._windows import pool_window


@lowers("MaxPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,), constant_outputs=(1,))
def max_pool(site: Site) -> Local:
    """Select every window's winner."""
    shape = site.shape()
    window, _ = pool_window(site, shape[2:])
    within = window.positions()  # (windows, taps)
    images = np.arange(math.prod(shape[:2]))[:, None, None] * math.prod(shape[2:])
    candidates = np.where(within < 0, -1, within + images).reshape(
        *shape[:2], *window.out_size, math.prod(window.kernel)
    )
    return extreme_of(site, candidates, window=window)


@lowers("GlobalMaxPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def global_max_pool(site: Site) -> Local:
    """Select every channel's winner."""
    return extreme_of(site, _channels(site))


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
    return extreme_in_graph(site, graph, _channels(site))


def _channels(site: Site) -> Array:
    """Positions of every channel's entries, (batch, channels, 1, …, 1, entries)."""
    shape = site.shape()
    return positions(site).reshape(*shape[:2], *(1,) * (len(shape) - 2), -1)
