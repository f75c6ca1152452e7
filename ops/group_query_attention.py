"""GroupQueryAttention of onnxruntime (com.microsoft): causal attention with a cache, as decoders have it.

Queries and, within the new tokens, keys may be turned by the angles of their positions first; keys and
values then follow those of the cache. Smooth; frozen mode holds the weights. Lowered where all sequences of
the batch are of one length and the cache holds just what is past, as it does for one sequence.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..runtime.primitives import Array, Primitive, Scatter, chain
from ..runtime.program import Kind
from ._attention import Attention, Part
from ._rule import Local, Site, lowers
from .attention import headed
from .fused_activations import MICROSOFT
from .rotary_embedding_microsoft import rotation

_Q, _K, _V, _PAST_K, _PAST_V, _LENGTHS, _TOTAL, _COSINES, _SINES, _POSITIONS, _BIAS = range(11)
_USUAL = {
    "local_window_size": -1,
    "smooth_softmax": -1,
    "qk_output": 0,
    "causal": 1,
    "sliding_window_cache": 0,
    "k_quant_type": "NONE",
    "v_quant_type": "NONE",
}


@lowers(
    "GroupQueryAttention",
    domain=MICROSOFT,
    kind=Kind.SMOOTH,
    observes=None,
    linear_in=(_Q, _K, _V, _PAST_K, _PAST_V),
)
def group_query_attention(site: Site) -> tuple[Local, ...]:
    """Turn, join to what is past, attend."""
    _require_plain(site)
    q = headed(site, [_Q], int(site.attribute("num_heads")))
    groups = int(site.attribute("kv_num_heads"))
    k, v = headed(site, [_K], groups), headed(site, [_V], groups)
    batch, heads, length, _ = q.value.shape
    past = site.shape(_PAST_K)[2] if site.has(_PAST_K) else 0
    total = int(site.value(_TOTAL).ravel()[0])
    if past + length != total or (site.value(_LENGTHS) != total - 1).any():
        raise site.refuse(
            f"sequences that end before the longest, of {total} tokens, or a cache of {past} entries beside "
            f"{length} new ones, are not lowered; give one sequence at a time and a cache without room"
        )
    if site.attribute("do_rotary", 0):
        q, k = (_turned(site, part, past) for part in (q, k))
    if past:
        k, v = (_joined([headed(site, [i], groups), part]) for i, part in ((_PAST_K, k), (_PAST_V, v)))
    ahead = np.arange(total) > np.arange(length)[:, None] + past
    mask: Array = np.where(ahead, -np.inf, 0.0).astype(q.value.dtype)
    if site.has(_BIAS):
        mask = mask + site.value(_BIAS)
    scale = site.attribute("scale") or 1 / math.sqrt(q.value.shape[3])
    attention = Attention(site, q, k, v, Part(mask), scale, float(site.attribute("softcap") or 0.0))
    y = attention.output((batch, length, heads * v.value.shape[3]))
    presents = [Local(part.terms, part.fixed, offset_size=part.size, kind=Kind.AFFINE) for part in (k, v)]
    return (y, *presents)[: len(site.outputs)]


def _require_plain(site: Site) -> None:
    """Refuse what is not lowered.

    Raises:
        UnsupportedError: naming it.
    """
    if not (site.has(_K) and site.has(_V)):
        raise site.refuse("packed keys and values are not lowered; give all three apart")
    if any(site.has(position) for position in range(_BIAS + 1, len(site.inputs))):
        raise site.refuse("of its inputs those behind attention_bias are not lowered")
    for name, usual in _USUAL.items():
        if site.attribute(name, usual) not in (usual, str(usual)):
            raise site.refuse(f"{name} = {site.attribute(name)} is not lowered, only {usual}")


def _turned(site: Site, part: Part, past: int) -> Part:
    """New tokens turned by the angles of their positions."""
    batch, _, length, _ = part.value.shape
    places = site.value(_POSITIONS) if site.has(_POSITIONS) else past + np.arange(length)
    rows = np.broadcast_to(places, (batch, length))
    cosines, sines = (site.value(position)[rows][:, None] for position in (_COSINES, _SINES))
    own = np.arange(part.value.size).reshape(part.value.shape)
    ways = rotation(own, own, cosines, sines, interleaved=bool(site.attribute("rotary_interleaved", 0)))

    def of(value: Array | float, by: Sequence[Primitive] = ways) -> Array:
        block = np.broadcast_to(value, part.value.shape)[None]
        return np.asarray(sum(way.apply(block)[0] for way in by))

    terms = [(position, chain(L, way)) for position, L in part.terms for way in ways]
    size = of(np.abs(part.fixed), [way.magnitude() for way in ways])
    return Part(of(part.value), terms, of(part.fixed), size)


def _joined(parts: Sequence[Part]) -> Part:
    """One behind the other along the tokens."""
    value = np.concatenate([part.value for part in parts], 2)
    fixed = [np.broadcast_to(part.fixed, part.value.shape) for part in parts]
    sizes = [np.abs(c) if part.size is None else part.size for c, part in zip(fixed, parts, strict=True)]
    places = np.split(np.arange(value.size).reshape(value.shape), [parts[0].value.shape[2]], 2)
    terms = [
        (position, chain(L, Scatter(value.shape, place)))
        for part, place in zip(parts, places, strict=True)
        for position, L in part.terms
    ]
    return Part(value, terms, np.concatenate(fixed, 2), np.concatenate(sizes, 2))
