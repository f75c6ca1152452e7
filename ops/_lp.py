"""Norms of groups of entries: y = (Σ |x|ᵖ)^(1/p) over a window, a channel or axes.

Smooth for p > 1, away from a group of zeros alone: dy = y^(1-p) Σ |x|^(p-1) sign(x) dx. As y(t x) = t y(x)
for t > 0, its tangent goes through 0: there is no offset, in either mode. At a group of zeros y has a kink in
every direction and no tangent; frozen mode, which holds what weighs x, holds 0 there.
"""

from __future__ import annotations

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Primitive, Scale, chain
from ..runtime.program import Kind
from ._rule import Local, Site, like
from ._smooth import TRANSCENDENTAL


def norm(site: Site, p: int, total: Primitive) -> Local:
    """The p-norm of groups.

    Args:
        site: the node; operand 0 is observed.
        p: 2 or more.
        total: sums entries over each group.

    Raises:
        UnsupportedError: all entries of a group are 0.
    """
    x = site.value()
    size = np.abs(x).astype(np.float64) / max(1, x.size)  # whose sums do not overflow
    empty = total.apply((size == 0)[None].astype(np.float64))[0] > 0
    relative = size / _scale(size, total)
    y = total.apply((relative**p)[None])[0] ** (1 / p)
    if not site.reading.frozen and empty[y == 0].any():
        raise site.refuse("has no tangent at x, where a whole group is 0: its result has a kink there")
    slope = relative ** (p - 1) * np.sign(x)
    divisor = np.where(y > 0, np.where(y > 0, y, 1) ** (1 - p), 0)
    L = chain(Scale(x.shape, slope.astype(x.dtype)), total, Scale(total.out_shape, divisor.astype(x.dtype)))
    return Local(L, kind=Kind.SMOOTH, roundings=L.fan_in + 2 * TRANSCENDENTAL)


def _scale(size: Array, total: Primitive) -> Array:
    """What entries are measured by, so that neither of the slope's factors leaves the range of x's type.

    Group by group, where none shares an entry with another: by the group's sum. Else a number for all, in the
    middle between the smallest group's and the largest one's, as it cancels between the two factors.

    Args:
        size: |x|, or in proportion to it.
        total: sums entries over each group.

    Returns:
        As `size`, or of one entry; positive.
    """
    sums = total.apply(size[None])[0]
    if (total.T.apply(np.ones_like(sums)[None]) <= 1).all():
        scale = total.T.apply(sums[None])[0]
        return np.where(scale > 0, scale, 1)
    logarithms = np.log2(sums[sums > 0])
    middle = (logarithms.min() + logarithms.max()) / 2 if len(logarithms) else 0.0
    return np.exp2([np.round(middle)])


def norm_in_graph(site: Site, graph: Builder, p: int) -> tuple[str, str]:
    """The factor behind the sums, from the node's own output y, and the one before them."""
    node, x, y, zero = graph.node, site.tensor(), site.outputs[0], like(site, graph, 0.0)
    nonzero, one = node("Greater", y, zero), like(site, graph, 1.0)
    divisor = node("Pow", node("Where", nonzero, y, one), like(site, graph, 1.0 - p))
    slope = node("Mul", node("Pow", node("Abs", x), like(site, graph, p - 1.0)), node("Sign", x))
    return node("Where", nonzero, divisor, zero), slope
