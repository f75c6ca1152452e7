"""Add, Sub, Sum, Mean: y = ± x₁ ± x₂ … (/ n) with numpy's broadcasting.

Affine in all operands together: each active one is broadcast, the others are the offset.
https://onnx.ai/onnx/operators/onnx__Add.html, …Sub.html, …Sum.html, …Mean.html
"""

import numpy as np

from ..runtime.primitives import Array, Primitive, Scale, chain
from ._rule import Local, Site, lowers


def _weighted(site: Site, weights: list[float]) -> Local:
    shape = site.broadcast_shape()
    terms: dict[int, Primitive] = {}
    offset: Array | None = None
    size: Array | float = 0.0
    for position, weight in enumerate(weights):
        if site.active(position):
            spread = site.spread(position, shape)
            terms[position] = spread if weight == 1 else chain(spread, Scale(shape, np.array(weight)))
        else:
            share = site.value(position) * weight
            offset = share if offset is None else offset + share
            size = size + np.abs(share)
    return Local(terms, offset, offset_size=size)


@lowers("Add")
def add(site: Site) -> Local:
    """x₁ + x₂."""
    return _weighted(site, [1.0, 1.0])


@lowers("Sub")
def sub(site: Site) -> Local:
    """x₁ - x₂."""
    return _weighted(site, [1.0, -1.0])


@lowers("Sum")
def sum_(site: Site) -> Local:
    """x₁ + … + xₙ."""
    return _weighted(site, [1.0] * len(site.inputs))


@lowers("Mean")
def mean(site: Site) -> Local:
    """(x₁ + … + xₙ) / n."""
    return _weighted(site, [1.0 / len(site.inputs)] * len(site.inputs))
