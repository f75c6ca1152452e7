"""Convolutions and dense layers as the kernels take them: blocks of weights, and which units read which."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime import kernels
from ..runtime.primitives import Array, Contract, Conv, ConvTranspose, Primitive
from .active import Layout, aligned

_WIDTH = 64  # channels of a block of weights: a few lines of the cache from each row


@dataclass(frozen=True)
class Windows:
    """The transpose of a convolution or dense layer; the arguments of `kernels.windows`."""

    source: Layout  # of the primitive's output
    target: Layout  # of its input
    tap_start: Array
    tap: Array
    seen: Array
    weights: Array  # (blocks, taps · source_count, channels of a block and zeros to whole vectors)
    lane_first: Array
    lane_last: Array
    source_first: Array
    source_count: int
    room: int  # entries that one target position reads at most


def windows_of(L: Primitive, dtype: np.dtype[Any]) -> Windows | None:
    """Prepare the transpose of a primitive; None where it is no sum over windows."""
    if isinstance(L, Conv):
        return _of_conv(L, dtype)
    if isinstance(L, ConvTranspose):
        return _of_transposed(L, dtype)
    return _of_contract(L, dtype) if isinstance(L, Contract) else None


def _of_conv(L: Conv, dtype: np.dtype[Any]) -> Windows:
    M, channels = L.weight.shape[:2]
    G, P, Q = L.group, math.prod(L.window.in_size), math.prod(L.window.out_size)
    weight = L.weight.reshape(G, M // G, channels, -1).transpose(0, 3, 1, 2)  # (G, taps, source, target)
    read = L.window.positions()  # (Q, taps) position of the target, -1 in the padding
    place, tap = np.nonzero(read >= 0)
    order = np.argsort(read[place, tap], kind="stable")
    target = read[place, tap][order]
    start = np.searchsorted(target, np.arange(P + 1))
    return _windows(
        (L.batch, M, Q), (L.batch, channels * G, P), weight, (start, tap[order], place[order]), dtype
    )


def _of_transposed(L: ConvTranspose, dtype: np.dtype[Any]) -> Windows:
    M, channels = L.weight.shape[:2]
    G, P, Q = L.group, math.prod(L.window.in_size), math.prod(L.window.out_size)
    weight = L.weight.reshape(G, M // G, channels, -1).transpose(0, 3, 2, 1)
    read = L.window.positions()
    target, tap = np.nonzero(read >= 0)
    start = np.searchsorted(target, np.arange(Q + 1))
    return _windows(
        (L.batch, channels * G, P), (L.batch, M, Q), weight, (start, tap, read[target, tap]), dtype
    )


def _of_contract(L: Contract, dtype: np.dtype[Any]) -> Windows | None:
    """A product with a matrix along one axis: y[n, m, p] = Σ_c w[m, c] x[n, c, p]; None for others."""
    x, w, y = L._axes
    summed, new = [a for a in x if a not in y], [a for a in y if a not in x]
    if len(summed) != 1 or len(new) != 1 or set(w) != {summed[0], new[0]}:
        return None
    at = x.index(summed[0])
    if y != x.replace(summed[0], new[0]):
        return None
    N, P = math.prod(L.in_shape[:at]), math.prod(L.in_shape[at + 1 :])
    weight = L.weight if w.index(new[0]) == 0 else L.weight.T  # (source, target)
    start = np.arange(P + 1)
    tables = (start, np.zeros(P, np.int64), np.arange(P))
    return _windows((N, weight.shape[0], P), (N, weight.shape[1], P), weight[None, None], tables, dtype)


def _windows(
    source: Layout,
    target: Layout,
    weight: Array,
    tables: tuple[Array, Array, Array],
    dtype: np.dtype[Any],
) -> Windows:
    """Cut the target's channels, (groups, taps, source, target) in the weight, into blocks."""
    G, taps, sources, targets = weight.shape
    cuts = [(g, c) for g in range(G) for c in range(0, targets, _WIDTH)]
    shape = len(cuts), taps * sources, kernels.strip_width(dtype.itemsize, min(_WIDTH, targets))
    blocks = aligned(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
    blocks[:] = 0
    for block, (g, c) in zip(blocks, cuts, strict=True):
        part = weight[g, :, :, c : c + _WIDTH]
        block[:, : part.shape[2]] = part.reshape(taps * sources, -1)
    lane_first = np.array([g * targets + c for g, c in cuts], np.int32)
    lane_last = np.array([g * targets + min(c + _WIDTH, targets) for g, c in cuts], np.int32)
    tap_start, tap, seen = (np.ascontiguousarray(table, np.int32) for table in tables)
    return Windows(
        source,
        target,
        tap_start,
        tap,
        seen,
        blocks,
        lane_first,
        lane_last,
        np.array([g * sources for g, _ in cuts], np.int32),
        sources,
        max(1, int(np.max(np.diff(tap_start), initial=0)) * sources),
    )
