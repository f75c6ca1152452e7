"""ReduceL1: y = Σ |x| over axes. LpPool, GlobalLpPool with p = 1: y = Σ |x| over each window or channel.

At x: the signs of the entries, summed; 0 counts as negative, as in Abs. Guard: the sign of each entry. Other
p are smooth.
https://onnx.ai/onnx/operators/onnx__ReduceL1.html, …LpPool.html, …GlobalLpPool.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Gather, Primitive, Scale, chain
from ..runtime.program import Kind
from ._moves import gathered
from ._reduced import reduced_axes, sum_over
from ._rule import Local, Site, explains, like, lowers, positive, threshold
from ._windows import pool_window


def _summed(site: Site, *total: Primitive) -> Local:
    """The absolute values of x, then their sums."""
    x = site.value()
    sign = threshold(x)
    turned = Scale(x.shape, np.where(sign.choice, 1, -1).astype(x.dtype))
    return Local(chain(turned, *total), guards=(sign,))


@lowers("ReduceL1", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,))
def reduce_l1(site: Site) -> Local:
    """Sum over the axes."""
    return _summed(site, sum_over(site.shape(), reduced_axes(site), keep=bool(site.attribute("keepdims", 1))))


@lowers("LpPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def lp_pool(site: Site) -> Local:
    """Sum over every window; padding adds nothing."""
    _require_p_1(site)
    entries = _windows(site)
    return _summed(site, entries, sum_over(entries.out_shape, (entries.index.ndim - 1,), keep=False))


@lowers("GlobalLpPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def global_lp_pool(site: Site) -> Local:
    """Sum over every channel."""
    _require_p_1(site)
    shape = site.shape()
    return _summed(site, sum_over(shape, tuple(range(2, len(shape))), keep=True))


def _require_p_1(site: Site) -> None:
    """Whether the norm is piecewise-linear."""
    p = site.attribute("p", 2)
    if p != 1:
        raise site.refuse(f"the norm with p = {p} is smooth, not piecewise-linear; only p = 1 is lowered")


def _windows(site: Site) -> Gather:
    """What each window reads, (N, C, *spatial) to (N, C, *out, taps)."""
    shape = site.shape()
    window, _ = pool_window(site, shape[2:])
    read = window.positions()  # (windows, taps)
    planes = np.arange(shape[0] * shape[1])[:, None, None] * int(np.prod(window.in_size))
    index: Array = np.where(read < 0, -1, read + planes)
    return gathered(site, index.reshape(*shape[:2], *window.out_size, read.shape[1]))


@explains("ReduceL1", "GlobalLpPool")
def signs_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The signs."""
    return (graph.node("Where", positive(site, graph), like(site, graph, 1.0), like(site, graph, -1.0)),)


@explains("LpPool")
def lp_pool_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """What each window reads, padding behind all entries; and the signs."""
    entries = _windows(site)
    index = np.where(entries.index < 0, entries.in_size, entries.index)
    return graph.constant(index), *signs_in_graph(site, graph)
