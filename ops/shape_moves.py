"""Flatten, Reshape, Squeeze, Unsqueeze: the same entries in another shape — the identity matrix.

https://onnx.ai/onnx/operators/onnx__Reshape.html, …Flatten.html, …Squeeze.html, …Unsqueeze.html
"""

import math

from ..runtime.primitives import Reshape, Shape
from ._rule import Local, Site, lowers


def _reshaped(site: Site, shape: Shape) -> Local:
    return Local(Reshape(site.shape(), shape))


@lowers("Flatten")
def flatten(site: Site) -> Local:
    """Flatten to a matrix, split at `axis`."""
    shape, axis = site.shape(), site.attribute("axis", 1)
    axis = axis if axis >= 0 else axis + len(shape)
    return _reshaped(site, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@lowers("Reshape", linear_in=(0,))
def reshape(site: Site) -> Local:
    """Reshape; 0 copies a length (unless allowzero), -1 takes what is left."""
    own, asked = site.shape(), site.integers("shape") or ()
    keep_zero = site.attribute("allowzero", 0)
    sizes = [own[axis] if size == 0 and not keep_zero else size for axis, size in enumerate(asked)]
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(own) // known if known else 0
    return _reshaped(site, tuple(sizes))


@lowers("Squeeze", linear_in=(0,))
def squeeze(site: Site) -> Local:
    """Drop axes of length 1: the given ones, or all."""
    own = site.shape()
    axes = site.integers("axes")
    dropped = {axis % len(own) for axis in axes} if axes else {a for a, size in enumerate(own) if size == 1}
    return _reshaped(site, tuple(size for axis, size in enumerate(own) if axis not in dropped))


@lowers("Unsqueeze", linear_in=(0,))
def unsqueeze(site: Site) -> Local:
    """Insert axes of length 1 at the given positions of the result."""
    own, axes = site.shape(), site.integers("axes") or ()
    rank = len(own) + len(axes)
    new = {axis % rank for axis in axes}
    rest = iter(own)
    return _reshaped(site, tuple(1 if axis in new else next(rest) for axis in range(rank)))
