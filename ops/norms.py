"""ReduceL1: y = Σ |x| over axes. LpPool, GlobalLpPool: y = (Σ |x|ᵖ)^(1/p) over each window or channel.

With p = 1, at x: the signs of the entries, summed; 0 counts as negative, as in Abs. Guard: the sign of each
entry. With larger p smooth; at a group of zeros alone there is no tangent.
https://onnx.ai/onnx/operators/onnx__ReduceL1.html, …LpPool.html, …GlobalLpPool.html
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Gather, Primitive, Scale, chain
from ..runtime.program import Kind
from ._lp import norm, norm_in_graph
from ._moves import gathered
from ._reduced import reduced_axes, sum_over
from ._rule import Local, Reading, Site, explains, like, lowers, positive, threshold
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


def _sums(attributes: Mapping[str, Any], _: Reading) -> bool:
    """Whether a pool adds absolute values."""
    return bool(attributes.get("p", 2) == 1)


def _curves(attributes: Mapping[str, Any], reading: Reading) -> bool:
    return not _sums(attributes, reading)


@lowers("LpPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,), when=_sums)
def lp_pool(site: Site) -> Local:
    """Sum over every window; padding adds nothing."""
    return _summed(site, *_over_windows(site))


@lowers("LpPool", kind=Kind.SMOOTH, observes=(0,), when=_curves)
def smooth_lp_pool(site: Site) -> Local:
    """The norm of every window."""
    return norm(site, _power(site), chain(*_over_windows(site)))


@lowers("GlobalLpPool", kind=Kind.PIECEWISE_LINEAR, observes=(0,), when=_sums)
def global_lp_pool(site: Site) -> Local:
    """Sum over every channel."""
    return _summed(site, _over_channels(site))


@lowers("GlobalLpPool", kind=Kind.SMOOTH, observes=(0,), when=_curves)
def smooth_global_lp_pool(site: Site) -> Local:
    """The norm of every channel."""
    return norm(site, _power(site), _over_channels(site))


def _power(site: Site) -> int:
    p = int(site.attribute("p", 2))
    if p < 1:
        raise site.refuse(f"p = {p} makes no norm, and its slope is infinite at 0; use p from 1 on")
    return p


def _over_windows(site: Site) -> tuple[Primitive, Primitive]:
    entries = _windows(site)
    return entries, sum_over(entries.out_shape, (entries.index.ndim - 1,), keep=False)


def _over_channels(site: Site) -> Primitive:
    shape = site.shape()
    return sum_over(shape, tuple(range(2, len(shape))), keep=True)


def _windows(site: Site) -> Gather:
    """What each window reads, (N, C, *spatial) to (N, C, *out, taps)."""
    shape = site.shape()
    window, _ = pool_window(site, shape[2:])
    read = window.positions()  # (windows, taps)
    planes = np.arange(shape[0] * shape[1])[:, None, None] * int(np.prod(window.in_size))
    index: Array = np.where(read < 0, -1, read + planes)
    return gathered(site, index.reshape(*shape[:2], *window.out_size, read.shape[1]))


@explains("ReduceL1")
def signs_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The signs."""
    return (graph.node("Where", positive(site, graph), like(site, graph, 1.0), like(site, graph, -1.0)),)


@explains("GlobalLpPool")
def global_lp_pool_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The signs; or the two factors of a norm's slope."""
    return signs_in_graph(site, graph) if _power(site) == 1 else norm_in_graph(site, graph, _power(site))


@explains("LpPool")
def lp_pool_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """What each window reads, padding behind all entries, between what comes behind and before it."""
    entries = _windows(site)
    index = np.where(entries.index < 0, entries.in_size, entries.index)
    *behind, before = global_lp_pool_in_graph(site, graph)
    return *behind, graph.constant(index), before
