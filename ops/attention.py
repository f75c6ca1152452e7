"""Attention: Y = softmax(scale · Q Kᵀ, capped and masked) V, by heads: grouped, causal, with a cache.

Smooth in queries, keys, values and a floating mask; frozen mode holds the weights, so that Y is linear in the
values. The present keys and values are the past ones and the given ones, one after the other.
https://onnx.ai/onnx/operators/onnx__Attention.html
"""

import math

import numpy as np

from ..runtime.primitives import Array, Broadcast, Primitive
from ..runtime.program import Kind
from ._attention import Attention, Part, split_heads
from ._moves import gathered, positions
from ._rule import Local, Site, lowers

Q, K, V, MASK, PAST_KEY, PAST_VALUE, LENGTHS = range(7)


@lowers("Attention", kind=Kind.SMOOTH, observes=None, linear_in=(Q, K, V, MASK, PAST_KEY, PAST_VALUE))
def attention(site: Site) -> tuple[Local, ...]:
    """Y; then, where they are asked for, present keys and values, and the scores."""
    q = headed(site, [Q], site.attribute("q_num_heads", 0))
    k = headed(site, [PAST_KEY, K], site.attribute("kv_num_heads", 0))
    v = headed(site, [PAST_VALUE, V], site.attribute("kv_num_heads", 0))
    # onnxruntime scales queries and keys by the same root, in float32 whatever the model's type.
    root = np.sqrt(np.float32(site.attribute("scale") or 1 / math.sqrt(max(q.value.shape[3], 1))))
    scale = float(root) ** 2
    at_x = Attention(site, q, k, v, _mask(site, q, k), scale, site.attribute("softcap", 0.0))
    batch, heads, length, width = *q.value.shape[:3], v.value.shape[3]
    by_head = (batch, heads, length, width)
    out = by_head if len(site.shape(Q)) == 4 else (batch, length, heads * width)
    outputs = [at_x.output(out), *(Local(part.terms, part.fixed, kind=Kind.AFFINE) for part in (k, v))]
    if len(site.outputs) == 4:
        mode = site.attribute("qk_matmul_output_mode", 0)
        outputs.append(at_x.inner(mode, (batch, heads, length, k.value.shape[2])))
    return tuple(outputs[: len(site.outputs)])


def headed(site: Site, operands: list[int], heads: int) -> Part:
    """Operands by heads, (B, H, L, E), one after the other along L where several are there."""
    present = [position for position in operands if site.has(position)]
    values = {position: split_heads(site.value(position), heads) for position in present}
    value = np.concatenate([values[position] for position in present], 2)
    fixed = np.concatenate([0 * v if site.active(i) else v for i, v in values.items()], 2)
    terms: list[tuple[int, Primitive]] = []
    for position in present:
        own = split_heads(positions(site, position), heads)
        index = [own if i == position else np.full(v.shape, -1) for i, v in values.items()]
        if site.active(position):
            terms.append((position, gathered(site, np.concatenate(index, 2), position)))
    return Part(value, terms, fixed)


def _mask(site: Site, q: Part, k: Part) -> Part:
    """What is added to the scores: the given mask, and -inf where a key is not to be seen."""
    batch, heads, length, _ = q.value.shape
    keys = k.value.shape[2]
    shape = (batch, heads, length, keys)
    seen = _seen(site, batch, length, keys)
    dtype = q.value.dtype
    hidden = np.where(seen, np.zeros((), dtype), np.asarray(-np.inf, dtype))
    if not site.has(MASK):
        return Part(hidden)
    mask = site.value(MASK)
    if mask.dtype == bool:
        mask = np.where(mask, np.zeros((), dtype), np.asarray(-np.inf, dtype))
    missing = keys - mask.shape[-1]
    if site.active(MASK) and missing:
        raise site.refuse("its mask depends on x and is shorter than the keys; pad it in the model")
    mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, max(missing, 0))], constant_values=-np.inf)
    terms: list[tuple[int, Primitive]] = [(MASK, Broadcast(mask.shape, shape))] if site.active(MASK) else []
    return Part(hidden + mask, terms)


def _seen(site: Site, batch: int, length: int, keys: int) -> Array:
    """Which keys every query may look at by its place, (B or 1, 1, L, S)."""
    place = np.arange(keys)
    lengths = site.value(LENGTHS).reshape(-1, 1, 1, 1) if site.has(LENGTHS) else None
    past: Array = np.zeros((1, 1, 1, 1), np.int64)
    if site.has(PAST_KEY):
        past = past + site.shape(PAST_KEY)[2]
    elif lengths is not None:
        past = lengths - length
    ahead = place - (np.arange(length)[:, None] + past)  # how far a key lies after the query
    seen = np.ones(ahead.shape, bool) if lengths is None else np.broadcast_to(place < lengths, ahead.shape)
    right = site.attribute("right_window_size", -1)
    left = site.attribute("left_window_size", -1)
    if site.attribute("is_causal", 0):
        seen = seen & (ahead <= 0)
    if right >= 0:
        seen = seen & (ahead <= right)
    return seen & (-ahead <= left) if left >= 0 else seen
