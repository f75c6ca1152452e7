"""Sums over axes."""

from __future__ import annotations

import numpy as np

from ..runtime.primitives import Primitive, Reshape, Scale, Shape, Sum, chain
from ._rule import Site


def sum_over(shape: Shape, axes: tuple[int, ...], *, keep: bool, divisor: int = 1) -> Primitive:
    """The sum over axes, divided by `divisor`; reduced axes stay with length 1 where `keep`."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    parts: list[Primitive] = [Sum(shape, kept)]
    if divisor != 1:
        parts.append(Scale(kept, np.array(1 / divisor if divisor else np.nan)))
    if not keep:
        parts.append(Reshape(kept, tuple(size for axis, size in enumerate(shape) if axis not in axes)))
    return chain(*parts)


def reduced_axes(site: Site) -> tuple[int, ...]:
    """The axes that a reduction runs over: the given ones; without any, all or (as asked) none."""
    rank = len(site.shape())
    axes = site.integers("axes")
    if axes:
        return tuple(sorted({axis % rank for axis in axes}))
    return () if site.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
