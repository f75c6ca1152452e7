"""Normalisation over groups of entries: y = scale · (x - mean) · r(v) + bias, v the mean square of x - mean.

Smooth: with c = x - mean (or x itself, where nothing is centred) at u, and r = r(v),

    dy = scale · (r · (dx - mean dx) - c · κ · mean(c ⊙ dx)),   κ = -2 r'(v),

a diagonal and two maps of rank 1 for each group. Frozen mode holds r: the mean stays linear, and the bias is
the only offset. Scale and bias may depend on x as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..runtime.primitives import Array, Broadcast, Primitive, Reshape, Scale, Shape, chain
from ..runtime.program import Kind
from ._reduced import sum_over
from ._rule import Local, Site
from ._smooth import TRANSCENDENTAL, tangent

Inverse = Callable[[Array], tuple[Array, Array]]  # from v to r(v) and κ = -2 r'(v)
Terms = list[tuple[int, Primitive]]


def over_deviation(epsilon: float) -> Inverse:
    """R = 1 / sqrt(v + epsilon), κ = r³; both 0 where that has no value."""

    def inverse(v: Array) -> tuple[Array, Array]:
        total = v + np.asarray(epsilon, v.dtype)
        r = np.where(total > 0, 1 / np.sqrt(np.where(total > 0, total, 1)), 0)
        return r, r**3

    return inverse


@dataclass(frozen=True)
class Groups:
    """The entries of an array in groups along axes, about their mean or about 0."""

    x: Array
    axes: tuple[int, ...]
    centred: bool

    @property
    def count(self) -> int:
        """Entries of a group."""
        return math.prod(self.x.shape[axis] for axis in self.axes)

    @cached_property
    def mean(self) -> Array:
        """The mean of every group, the axes kept with length 1."""
        return self._mean(self.x)

    @cached_property
    def c(self) -> Array:
        """The entries about their mean, or as they are."""
        return self.x - self.mean if self.centred else self.x

    @cached_property
    def v(self) -> Array:
        """The mean of c², the axes kept with length 1."""
        return self._mean(self.c**2)

    def _mean(self, x: Array) -> Array:
        return np.asarray(np.sum(x, self.axes, keepdims=True) / np.asarray(max(self.count, 1), x.dtype))

    def average(self) -> Primitive:
        """The map to every group's mean."""
        return sum_over(self.x.shape, self.axes, keep=True, divisor=max(self.count, 1))

    def linear(self, slope: Array) -> list[Primitive]:
        """Slope ⊙ (dx - mean dx), or without the mean."""
        direct = Scale(self.x.shape, slope)
        return [direct, self._returned(self.average(), -slope)] if self.centred else [direct]

    def bend(self, factor: Array) -> Primitive:
        """Factor ⊙ mean(c ⊙ dx)."""
        return self._returned(chain(Scale(self.x.shape, self.c), self.average()), factor)

    def _returned(self, reduced: Primitive, factor: Array) -> Primitive:
        shape = self.x.shape
        return chain(reduced, Broadcast(reduced.out_shape, shape), Scale(shape, factor))


@dataclass(frozen=True)
class Layout:
    """How x (operand 0), scale (1) and bias (2) meet: all in an inner shape, which has the groups as axes."""

    site: Site
    inner: Shape
    aligned: Shape | None = None  # of scale and bias, to broadcast to the inner shape; None: as they are

    def value(self, position: int, default: float) -> Array:
        """Value of an operand where the others can meet it."""
        if not self.site.has(position):
            return np.array(default, self.site.value().dtype)
        value = self.site.value(position)
        return value.reshape(self._small(position))

    def on_x(self, inside: Primitive) -> tuple[int, Primitive]:
        """A term in x from a map of the inner shape."""
        shape = self.site.shape()
        if shape == self.inner:
            return 0, inside
        return 0, chain(Reshape(shape, self.inner), inside, Reshape(self.inner, shape))

    def parameter_terms(self, normal: Array) -> Terms:
        """The terms in scale and bias, where they depend on x."""
        found = [(1, self._on_parameter(1, Scale(self.inner, normal)))] if self.site.active(1) else []
        return found + ([(2, self._on_parameter(2))] if self.site.active(2) else [])

    def _on_parameter(self, position: int, *inside: Primitive) -> Primitive:
        own, small, shape = self.site.shape(position), self._small(position), self.site.shape()
        return chain(Reshape(own, small), Broadcast(small, self.inner), *inside, Reshape(self.inner, shape))

    def _small(self, position: int) -> Shape:
        if position == 0:
            return self.inner
        return self.site.shape(position) if self.aligned is None else self.aligned

    def outer(self, value: Array | float) -> Array:
        """An array that broadcasts to the inner shape, in the result's shape."""
        return np.broadcast_to(value, self.inner).reshape(self.site.shape())


def normalised(
    layout: Layout,
    axes: tuple[int, ...],
    inverse: Inverse,
    *,
    centred: bool = True,
    by_difference: bool = False,
) -> Local:
    """Normalise operand 0, scale by operand 1 and add operand 2, where they are there.

    Args:
        layout: of the operands; the values of those that are active are observed.
        axes: of a group, in the inner shape.
        inverse: r(v) and κ.
        centred: whether the mean is taken away.
        by_difference: whether onnxruntime takes v as the difference of two means, mean(x²) - mean².
    """
    site = layout.site
    groups = Groups(layout.value(0, 0.0), axes, centred)
    scale, bias = layout.value(1, 1.0), layout.value(2, 0.0)
    r, kappa = inverse(groups.v)
    normal = groups.c * r
    roundings = groups.count + TRANSCENDENTAL
    sizes = np.abs(scale * normal)
    if by_difference:  # a rounding of mean(x²), relative to v
        sizes = sizes * (1 + (groups.mean * r) ** 2) + np.abs(scale * groups.mean * r)
    size = layout.outer(sizes + np.abs(bias))
    terms = layout.parameter_terms(normal)
    if not site.active(0):
        fixed = (0 if site.active(1) else scale * normal) + (0 if site.active(2) else bias)
        return Local(terms, layout.outer(fixed), offset_size=size, kind=Kind.AFFINE, roundings=roundings)
    if site.reading.frozen:
        if site.active(1):  # a product of two that depend on x: each counts half
            scale, terms = scale / 2, layout.parameter_terms(normal / 2)
        terms += [layout.on_x(L) for L in groups.linear(scale * r)]
        offset = None if site.active(2) or not site.has(2) else layout.outer(bias)
        return Local(terms, offset, offset_size=size, frozen=True, roundings=roundings)
    on_x = [*groups.linear(scale * r), groups.bend(-scale * groups.c * kappa)]
    terms += [layout.on_x(L) for L in on_x]
    return tangent(site, layout.outer(scale * normal + bias), terms, size=size, roundings=roundings)
