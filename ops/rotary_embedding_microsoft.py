"""RotaryEmbedding of onnxruntime (com.microsoft): pairs of entries turned by the angles of their positions.

    y₁ = cos · x₁ - sin · x₂,   y₂ = sin · x₁ + cos · x₂

Linear in x: one diagonal for the entries themselves, one for their partners. Positions, cosines and sines are
held. A pair is two neighbours (interleaved) or the same entry of both halves.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import numpy as np

from ..runtime.primitives import Array, Gather, Primitive, Scale, chain
from ._moves import compact, positions
from ._rule import Local, Site, lowers
from .fused_activations import MICROSOFT


@lowers("RotaryEmbedding", domain=MICROSOFT, linear_in=(0,))
def rotary_embedding(site: Site) -> Local:
    """Inputs: x, (B, L, H·E) or (B, H, L, E), position ids, cosines and sines."""
    if site.attribute("is_packed_batching", 0) or float(site.attribute("scale", 1.0)) != 1:
        raise site.refuse("packed batches and scaled positions are not lowered")
    own = positions(site)
    entries = own if own.ndim == 4 else _by_head(site, own)  # (B, H, L, E)
    batch, _, length, _ = entries.shape
    cosines, sines = (site.value(i)[_places(site, batch, length)][:, None] for i in (2, 3))
    ways = rotation(own, entries, cosines, sines, interleaved=bool(site.attribute("interleaved", 0)))
    return Local([(0, way) for way in ways])


def rotation(
    own: Array, entries: Array, cosines: Array, sines: Array, *, interleaved: bool
) -> tuple[Primitive, Primitive]:
    """What each entry keeps of itself, and what it takes of its partner.

    Args:
        own: positions of the entries, in the shape of what is turned.
        entries: the same, (B, H, L, E).
        cosines: of the angles, (B, 1, L, E/2 at most); entries beyond are kept as they are.
        sines: likewise.
        interleaved: whether partners are neighbours, or the same entry of both halves.
    """
    half = cosines.shape[-1]
    if interleaved:
        first, second = entries[..., 0 : 2 * half : 2], entries[..., 1 : 2 * half : 2]
    else:
        first, second = entries[..., :half], entries[..., half : 2 * half]
    partner = own.ravel().copy()
    kept, mixed = np.ones(own.size, cosines.dtype), np.zeros(own.size, cosines.dtype)
    for here, other, sign in ((first, second, -1), (second, first, 1)):
        partner[here], kept[here], mixed[here] = other, cosines, sign * sines
    shape = own.shape
    swap = Gather(shape, np.asarray(partner.reshape(shape), compact(shape), order="C"))
    return Scale(shape, kept.reshape(shape)), chain(swap, Scale(shape, mixed.reshape(shape)))


def _by_head(site: Site, own: Array) -> Array:
    """(B, L, H·E) to (B, H, L, E); without num_heads, a head is as wide as its cosines, twice."""
    heads = int(site.attribute("num_heads", 0)) or own.shape[2] // (2 * site.shape(2)[1])
    return own.reshape(*own.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _places(site: Site, batch: int, length: int) -> Array:
    """The position of every entry, (B, L); one number is that of the first."""
    ids = site.value(1)
    return np.broadcast_to(
        ids + np.arange(length) if ids.size == 1 and ids.ndim == 1 else ids, (batch, length)
    )
