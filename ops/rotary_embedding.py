"""RotaryEmbedding: pairs of entries of every head, turned by the angle of their position.

    y₁ = cos · x₁ - sin · x₂,   y₂ = sin · x₁ + cos · x₂

A pair is two neighbours (interleaved) or the same entry of both halves; entries beyond rotary_embedding_dim
pass. Linear in x for fixed cosines and sines: a matrix with two entries in each row. Linear in cosines and
sines for a fixed x.
https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..runtime.primitives import Array, Primitive, Scale, Sparse, chain
from ._moves import compact, gathered, positions
from ._rule import Local, Site, lowers


@lowers("RotaryEmbedding", products=((0, 1), (0, 2)), linear_in=(0, 1, 2))
def rotary_embedding(site: Site) -> Local:
    """Turn every pair."""
    angle, partner, sign = _pairs(site)
    turned = angle >= 0
    if site.active(0):
        cosine, sine = (site.value(i).ravel()[angle] for i in (1, 2))
        own = positions(site)
        kept = np.stack(
            [np.ones_like(turned), turned], axis=-1
        )  # entries that are not turned have no partner
        weights = np.stack([np.where(turned, cosine, 1), sign * sine], axis=-1)[kept]
        index = np.stack([own, partner], axis=-1)[kept].astype(compact((2 * own.size,)))
        indptr = np.append(0, np.cumsum(kept.sum(axis=-1))).astype(index.dtype)
        matrix = sparse.csr_array((weights, index, indptr), shape=(own.size, own.size))
        return Local(Sparse(own.shape, own.shape, matrix))
    x = site.value(0)
    other = sign * x.ravel()[partner]
    terms: dict[int, Primitive] = {}
    offset, size = np.where(turned, 0, x), np.zeros(())
    for position, factor in ((1, np.where(turned, x, 0)), (2, np.where(turned, other, 0))):
        if site.active(position):
            spread = gathered(site, angle, position)
            terms[position] = chain(spread, Scale(spread.out_shape, factor))
        else:
            share = site.value(position).ravel()[angle] * factor
            offset, size = offset + share, size + np.abs(share)
    return Local(terms, offset, offset_size=np.abs(np.where(turned, 0, x)) + size)


def _pairs(site: Site) -> tuple[Array, Array, Array]:
    """For each entry of x: its angle's position in the caches (-1: not turned), its partner and the sign."""
    shape = site.shape(0)
    entries = positions(site)
    # (N, sequence, heads, head)
    heads = int(site.attribute("num_heads", 0))
    split = entries.transpose(0, 2, 1, 3) if len(shape) == 4 else entries.reshape(*shape[:2], heads, -1)
    angle, partner, sign = (np.full(split.size, fill) for fill in (-1, 0, 0))
    width = int(site.attribute("rotary_embedding_dim", 0)) or split.shape[-1]
    half = width // 2
    rows = np.arange(split.shape[0] * split.shape[1]).reshape(split.shape[:2])
    if site.has(3):
        rows = np.broadcast_to(site.value(3).astype(np.int64), rows.shape)
    at = rows[:, :, None, None] * half + np.arange(half)  # (N, sequence, 1, half)
    if site.attribute("interleaved", 0):
        first, second = split[..., 0:width:2], split[..., 1:width:2]
    else:
        first, second = split[..., :half], split[..., half:width]
    for own, other, direction in ((first, second, -1), (second, first, 1)):
        angle[own], partner[own], sign[own] = np.broadcast_to(at, own.shape), other, direction
    return angle.reshape(shape), partner.reshape(shape), sign.reshape(shape)
