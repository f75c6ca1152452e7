"""MultiHeadAttention and Attention of onnxruntime (com.microsoft): what its tools make of a transformer.

MultiHeadAttention is given queries, keys and values, with or without a bias that is added first; Attention
projects one input to all three. Smooth; frozen mode holds the weights.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math

import numpy as np

from ..runtime.primitives import Array, Contract, Gather, Primitive, Shape, chain
from ..runtime.program import Kind
from ._attention import Attention, Part, split_heads
from ._rule import Local, Site, lowers
from .attention import headed
from .fused_activations import MICROSOFT


@lowers(
    *("MultiHeadAttention",),
    domain=MICROSOFT,
    kind=Kind.SMOOTH,
    observes=None,
    linear_in=(0, 1, 2, 5, 6, 7),
)
def multi_head_attention(site: Site) -> tuple[Local, ...]:
    """Inputs: query, key, value, bias, key padding, attention bias, past key, past value."""
    for position, what in ((4, "key padding"), (8, "a shared cache"), (9, "beams")):
        if site.has(position):
            raise site.refuse(f"{what} is not lowered; write the attention with an attention bias")
    if not (site.has(1) and site.has(2)):
        raise site.refuse("packed keys and values are not lowered; give all three apart")
    heads = int(site.attribute("num_heads"))
    parts = [headed(site, operands, heads) for operands in ([0], [6, 1], [7, 2])]
    if site.has(3):
        parts = _biased(site, parts, heads)
    past = site.shape(6)[2] if site.has(6) else 0
    return _outputs(site, parts, past, 5)


@lowers("Attention", domain=MICROSOFT, kind=Kind.SMOOTH, observes=None, linear_in=(0, 5))
def packed_attention(site: Site) -> tuple[Local, ...]:
    """Inputs: x, weights (D, Q + K + V), bias, mask, past, attention bias."""
    for position, what in ((3, "a mask index"), (4, "a cache"), (6, "a shared cache")):
        if site.has(position):
            raise site.refuse(f"{what} is not lowered; write the attention with an attention bias")
    if site.attribute("do_rotary", 0) or len(site.outputs) > 1:
        raise site.refuse("rotations and a cache inside of the projection are not lowered")
    x, weights, heads = site.value(), site.value(1), int(site.attribute("num_heads"))
    sizes = site.attribute("qkv_hidden_sizes") or [weights.shape[1] // 3] * 3
    ends = np.cumsum(sizes)[:-1]
    biases = np.split(site.value(2), ends) if site.has(2) else [np.zeros(size, x.dtype) for size in sizes]
    parts = []
    for weight, bias in zip(np.split(weights, ends, 1), biases, strict=True):
        project = Contract(x.shape, weight, "bld,de->ble")
        fixed = split_heads(np.broadcast_to(bias, project.out_shape), heads)
        value = split_heads(project.apply(x[None])[0], heads) + fixed
        on_x = [(0, chain(project, _to_heads(project.out_shape, heads)))] if site.active() else []
        parts.append(Part(value, on_x, fixed if on_x else value))
    return _outputs(site, parts, 0, 5)


def _to_heads(shape: Shape, heads: int) -> Primitive:
    """(B, L, H·E) to (B, H, L, E)."""
    return Gather(shape, split_heads(np.arange(math.prod(shape)).reshape(shape), heads))


def _biased(site: Site, parts: list[Part], heads: int) -> list[Part]:
    """Add the parts of the bias to what is given, not to what is past."""
    widths = [heads * part.value.shape[3] for part in parts]
    found = []
    for part, bias in zip(parts, np.split(site.value(3), np.cumsum(widths)[:-1]), strict=True):
        by_head = np.array(np.broadcast_to(bias.reshape(heads, 1, -1), part.value.shape))
        if part is not parts[0] and site.has(6):
            by_head[:, :, : site.shape(6)[2]] = 0
        found.append(Part(part.value + by_head, part.terms, part.fixed + by_head))
    return found


def _outputs(site: Site, parts: list[Part], past: int, bias: int) -> tuple[Local, ...]:
    """Y, and the present keys and values where they are asked for."""
    q, k, v = parts
    batch, heads, length, width = *q.value.shape[:3], v.value.shape[3]
    keys = k.value.shape[2]
    mask: Array = np.zeros((length, keys), q.value.dtype)
    if site.attribute("unidirectional", 0):
        ahead = np.arange(keys) > np.arange(length)[:, None] + past
        mask = np.where(ahead, np.asarray(-np.inf, mask.dtype), mask)
    added = Part(mask)
    if site.has(bias):
        if site.active(bias):
            raise site.refuse("its attention bias depends on x; add it to the scores in the model")
        added = Part(mask + site.value(bias))
    scale = site.attribute("scale") or 1 / math.sqrt(max(q.value.shape[3], 1))
    y = Attention(site, q, k, v, added, scale).output((batch, length, heads * width))
    presents = [Local(part.terms, part.fixed, kind=Kind.AFFINE) for part in (k, v)]
    return (y, *presents)[: len(site.outputs)]
