"""ArgMax, ArgMin, Hardmax: where the extreme entry along an axis is.

Locally constant. Guard: the extreme entry against every other along the axis. Before opset 13, Hardmax takes
all axes from `axis` on as one.
https://onnx.ai/onnx/operators/onnx__ArgMax.html, …ArgMin.html, …Hardmax.html
"""

import numpy as np

from ..runtime.program import Guard
from ._pooled import group_guard
from ._rule import Site, jumps


@jumps("ArgMax")
def arg_max(site: Site) -> tuple[Guard, ...]:
    """The largest entry; the first among equals, or the last where the node says so."""
    return (_guard(site, 1, last=bool(site.attribute("select_last_index", 0))),)


@jumps("ArgMin")
def arg_min(site: Site) -> tuple[Guard, ...]:
    """The smallest entry; the first among equals, or the last where the node says so."""
    return (_guard(site, -1, last=bool(site.attribute("select_last_index", 0))),)


@jumps("Hardmax")
def hardmax(site: Site) -> tuple[Guard, ...]:
    """The largest entry, the first among equals."""
    rank = len(site.shape())
    axis = site.attribute("axis", 1 if site.opset < 13 else -1) % max(rank, 1)
    axes = (axis,) if site.opset >= 13 else tuple(range(axis, rank))
    return (group_guard(site, axes, 1),)


def _guard(site: Site, sign: int, *, last: bool) -> Guard:
    axis = site.attribute("axis", 0) % max(len(np.shape(site.value())), 1)
    return group_guard(site, (axis,), sign, last=last)
