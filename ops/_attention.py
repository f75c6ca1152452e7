"""Attention: Y = P V, P = softmax(scale · Q Kᵀ + mask), in G groups of R query heads for each head of keys.

Smooth: with S the scores, dY = P dV + Σₛ (P ⊙ dS) (V - Y): the softmax's Jacobian applied to V. A score that
is masked out by -inf moves nothing, and a row that is masked out altogether gives 0. Frozen mode holds P.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..runtime.primitives import (
    Array,
    Broadcast,
    Contract,
    Primitive,
    Reshape,
    Scale,
    Shape,
    Sum,
    Transpose,
    chain,
)
from ..runtime.program import Kind
from ._exponential import softmax_of, weighted_mean
from ._rule import Local, Site
from ._smooth import TRANSCENDENTAL, tangent

Terms = Sequence[tuple[int, Primitive]]


@dataclass(frozen=True)
class Part:
    """A tensor inside of attention, affine in the operands."""

    value: Array
    terms: Terms = ()
    fixed: Array | float = 0.0  # its value without the terms
    size: Array | float | None = None  # Σ |parts| of that, where they may cancel


def split_heads(x: Array, heads: int) -> Array:
    """(B, L, H·E) to (B, H, L, E); what has four axes is like that already."""
    if x.ndim == 4:
        return x
    return x.reshape(*x.shape[:2], heads, x.shape[2] // max(heads, 1)).transpose(0, 2, 1, 3)


def merged_heads(shape: Shape, out: Shape) -> Primitive:
    """(B, G, R, L, E) to (B, H, L, E), or to (B, L, H·E) where that is the shape asked for."""
    batch, groups, each, length, width = shape
    by_head = (batch, groups * each, length, width)
    if len(out) == 4:
        return Reshape(shape, out)
    turned = Transpose(by_head, (0, 2, 1, 3))
    return chain(Reshape(shape, by_head), turned, Reshape(turned.out_shape, out))


@dataclass(frozen=True)
class Attention:
    """Attention at x; q (B, H, L, E), k (B, G, S, E), v (B, G, S, F), scores (B, G, R, L, S)."""

    site: Site
    q: Part
    k: Part
    v: Part
    mask: Part  # added to the scores, broadcast to (B, H, L, S)
    scale: float
    softcap: float = 0.0

    @cached_property
    def grouped(self) -> Shape:
        """(B, G, R, L, E)."""
        batch, heads, length, width = self.q.value.shape
        groups = self.k.value.shape[1]
        return batch, groups, heads // max(groups, 1), length, width

    @cached_property
    def shape(self) -> Shape:
        """(B, G, R, L, S)."""
        return *self.grouped[:4], self.k.value.shape[2]

    @cached_property
    def _scaled(self) -> tuple[Array, Array]:
        """Queries in groups and keys, the scale in the former."""
        q = self.q.value.reshape(self.grouped)
        return q * np.asarray(self.scale, q.dtype), self.k.value

    @cached_property
    def products(self) -> Array:
        """Scale · Q Kᵀ."""
        q, k = self._scaled
        return np.asarray(np.einsum("bgrle,bgse->bgrls", q, k, optimize=True))

    @cached_property
    def capped(self) -> Array:
        """The products, bounded by the softcap where there is one."""
        if not self.softcap:
            return self.products
        return np.asarray(self.softcap * np.tanh(self.products / self.softcap), self.products.dtype)

    @cached_property
    def scores(self) -> Array:
        """What the softmax is taken of."""
        batch, groups, each, length, keys = self.shape
        mask = np.broadcast_to(self.mask.value, (batch, groups * each, length, keys))
        return np.asarray(self.capped + mask.reshape(self.shape))

    @cached_property
    def weights(self) -> Array:
        """P."""
        return softmax_of(self.scores, (4,))

    @cached_property
    def y(self) -> Array:
        """P V, (B, G, R, L, F)."""
        return np.asarray(np.einsum("bgrls,bgsf->bgrlf", self.weights, self.v.value, optimize=True))

    @cached_property
    def roundings(self) -> int:
        """Behind one weight: those of its score, which count more the larger it is, and of the sum."""
        q, k = self._scaled
        size = np.einsum("bgrle,bgse->bgrls", np.abs(q), np.abs(k), optimize=True)
        # An error δ of a score is a relative one of 2 δ of its weight; growth() is of the root of a count.
        times = math.ceil(1 + 2 * float(size.max(initial=0))) ** 2
        return self.grouped[4] * times + self.shape[4] + TRANSCENDENTAL

    def products_terms(self) -> list[tuple[int, Primitive]]:
        """The terms of scale · Q Kᵀ."""
        q, k = self._scaled
        scaled = k * np.asarray(self.scale, k.dtype)
        left = Contract(self.grouped, scaled, "bgrle,bgse->bgrls")
        right = Contract(k.shape, q, "bgse,bgrle->bgrls")
        into = Reshape(self.q.value.shape, self.grouped)
        found = [(position, chain(L, into, left)) for position, L in self.q.terms]
        return found + [(position, chain(L, right)) for position, L in self.k.terms]

    def capped_terms(self) -> list[tuple[int, Primitive]]:
        """The terms after the softcap."""
        if not self.softcap:
            return self.products_terms()
        slope = Scale(self.shape, 1 / np.cosh(self.products / self.softcap) ** 2)
        return [(position, chain(L, slope)) for position, L in self.products_terms()]

    def scores_terms(self) -> list[tuple[int, Primitive]]:
        """The terms of the scores."""
        into = Reshape((self.shape[0], self.shape[1] * self.shape[2], *self.shape[3:]), self.shape)
        return self.capped_terms() + [(position, chain(L, into)) for position, L in self.mask.terms]

    def output(self, out: Shape) -> Local:
        """Y, in the given shape."""
        merge = merged_heads(self.y.shape, out)
        mix = Contract(self.v.value.shape, self.weights, "bgsf,bgrls->bgrlf")
        on_values = [(position, chain(L, mix, merge)) for position, L in self.v.terms]
        if on_values and (self.site.reading.frozen or not self.scores_terms()):
            offset = merge.apply(mix.apply(np.broadcast_to(self.v.fixed, self.v.value.shape)[None]))[0]
            frozen = bool(self.scores_terms())
            kind = Kind.SMOOTH if frozen else Kind.AFFINE
            return Local(
                on_values,
                offset if np.any(self.v.fixed) else None,
                kind=kind,
                frozen=frozen,
                roundings=self.roundings,
            )
        y = merge.apply(self.y[None])[0]
        size = merge.apply(mix.magnitude().apply(np.abs(self.v.value)[None]))[0]
        terms = on_values + [
            (position, chain(L, part, merge)) for position, L in self.scores_terms() for part in self._bends()
        ]
        roundings = self.roundings if not self.q.terms and not self.k.terms else self.shape[4]
        return tangent(self.site, y, terms, size=size, roundings=roundings + TRANSCENDENTAL)

    def _bends(self) -> tuple[Primitive, Primitive]:
        """From dS to Σₛ P dS V, and to -Σₛ P dS Y."""
        weigh = Scale(self.shape, self.weights)
        mix = Contract(self.shape, self.v.value, "bgrls,bgsf->bgrlf")
        kept = (*self.shape[:4], 1)
        shared = (Sum(self.shape, kept), Broadcast(kept, self.y.shape), Scale(self.y.shape, -self.y))
        return chain(weigh, mix), chain(weigh, *shared)

    def inner(self, mode: int, out: Shape) -> Local:
        """The scores on their way: 0 as products, 1 after the softcap, 2 after the mask, 3 as weights.

        onnxruntime shows what is masked out as the lowest number of float32.
        """
        value = (self.products, self.capped, self.scores, self.weights)[mode]
        seen = np.isfinite(value)
        terms = (self.products_terms, self.capped_terms, self.scores_terms, self.scores_terms)[mode]()
        if mode == 3:
            s = self.weights
            parts = (Scale(s.shape, s), weighted_mean(s, (4,), -s))
            terms = [(position, chain(L, part)) for position, L in terms for part in parts]
        elif not seen.all():
            value = np.where(seen, value, np.finfo(np.float32).min)
            terms = [(position, chain(L, Scale(self.shape, seen))) for position, L in terms]
        flat = Reshape(self.shape, out)
        on = [(position, chain(L, flat)) for position, L in terms]
        return tangent(self.site, value.reshape(out), on, roundings=self.roundings)
