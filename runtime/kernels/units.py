"""Which units of a tensor exist: lists sorted by position and channel, and moves of units between tensors.

Tensors are (N, C, P), flat in C order; `D` holds for each of its entries the row of a block, or -1. The
sorted lists (start, channel, row) are those of `windows`.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ._bits import WORD, bit_count, flags, lowest_bit, turned

_RUN = 64  # positions of one task


@njit(nogil=True, cache=True, parallel=True)
def listed(values, above, N, C, P):
    """Return start, channel and row of the entries of `values`, (N·C·P,), that are > above; row = value."""
    runs, words = (P + WORD - 1) // WORD, (C + WORD - 1) // WORD
    start = np.empty(N * P + 1, np.int32)
    start[0] = 0
    alive = np.empty((N * P, words), np.uint64)  # bit c of a position's words is set where its channel c is
    for task in prange(N * runs):
        n, p0 = task // runs, task % runs * WORD
        width = min(WORD, P - p0)
        square = np.empty(WORD, np.uint64)
        start[n * P + p0 + 1 : n * P + p0 + 1 + width] = 0
        for k in range(words):
            square[:] = 0
            for c in range(k * WORD, min(C, (k + 1) * WORD)):
                at = (n * C + c) * P + p0
                if at + WORD <= len(values):
                    square[c - k * WORD] = flags(values, at, above)
                else:
                    for i in range(width):
                        square[c - k * WORD] |= np.uint64(values[at + i] > above) << np.uint64(i)
            turned(square)
            for i in range(width):
                alive[n * P + p0 + i, k] = square[i]
                start[n * P + p0 + i + 1] += bit_count(square[i])
    for p in range(N * P):
        start[p + 1] += start[p]
    channel = np.empty(start[N * P], np.int32)
    row = np.empty(start[N * P], np.int32)
    for task in prange(N * runs):
        n, p0 = task // runs, task % runs * WORD
        for p in range(p0, min(p0 + WORD, P)):
            u = start[n * P + p]
            for k in range(words):
                word = alive[n * P + p, k]
                while word:
                    c = k * WORD + lowest_bit(word)
                    channel[u], row[u] = c, values[(n * C + c) * P + p]
                    word &= word - np.uint64(1)
                    u += 1
    return start, channel, row


@njit(nogil=True, cache=True, parallel=True)
def placed(start, channel, row, N, C, P):
    """Return D of a list."""
    D = np.full(N * C * P, -1, np.int32)
    runs = (P + _RUN - 1) // _RUN
    for task in prange(N * runs):
        n, p0 = task // runs, task % runs * _RUN
        for p in range(p0, min(p0 + _RUN, P)):
            for u in range(start[n * P + p], start[n * P + p + 1]):
                D[(n * C + channel[u]) * P + p] = row[u]
    return D


@njit(nogil=True, cache=True)
def kept(start, channel, row, mask, N, C, P):
    """Return the part of a list that is in the mask, (N·C·P,)."""
    new_start = np.empty_like(start)
    new_channel, new_row = np.empty_like(channel), np.empty_like(row)
    count = 0
    for n in range(N):
        for p in range(P):
            new_start[n * P + p] = count
            for u in range(start[n * P + p], start[n * P + p + 1]):
                new_channel[count], new_row[count] = channel[u], row[u]
                count += mask[(n * C + channel[u]) * P + p] != 0
    new_start[N * P] = count
    return new_start, new_channel[:count], new_row[:count]


@njit(nogil=True, cache=True, parallel=True)
def looked_up(start, channel, D, N, C, P):
    """Return D's entry for each listed unit."""
    found = np.empty(len(channel), np.int32)
    runs = (P + _RUN - 1) // _RUN
    for task in prange(N * runs):
        n, p0 = task // runs, task % runs * _RUN
        for p in range(p0, min(p0 + _RUN, P)):
            for u in range(start[n * P + p], start[n * P + p + 1]):
                found[u] = D[(n * C + channel[u]) * P + p]
    return found


@njit(nogil=True, cache=True)
def chained(start, channel, row, index, mask, size, N, C, P):
    """Move each unit to where its entry of `index` points, within the mask; units may meet there.

    Returns:
        D of `size` entries; rows that come next after a unit, (units,), -1 at a chain's end; and whether any
        meet. D holds rows where none meet, else the last unit of each chain.
    """
    D = np.full(size, -1, np.int32)
    after = np.full(len(channel), -1, np.int32)
    meet = False
    for n in range(N):
        for p in range(P):
            for u in range(start[n * P + p], start[n * P + p + 1]):
                target = index[(n * C + channel[u]) * P + p]
                if target >= 0 and (len(mask) == 0 or mask[target]):
                    after[u] = D[target]
                    meet |= D[target] >= 0
                    D[target] = u
    if not meet:
        for n in range(N):
            for p in range(P):
                for u in range(start[n * P + p], start[n * P + p + 1]):
                    target = index[(n * C + channel[u]) * P + p]
                    if target >= 0 and D[target] == u:
                        D[target] = row[u]
    return D, after, meet


@njit(nogil=True, cache=True)
def fetched(D, index, mask):
    """Return D of the tensor whose entry i is entry index[i] of D's, within the mask."""
    found = np.empty(len(index), np.int32)
    for i in range(len(index)):
        source = index[i]
        found[i] = D[source] if source >= 0 and (len(mask) == 0 or mask[i]) else -1
    return found


@njit(nogil=True, cache=True)
def mask_fetched(mask, index):
    """Return mask[index], False where the index is negative."""
    found = np.empty(len(index), np.bool_)
    for i in range(len(index)):
        found[i] = index[i] >= 0 and mask[index[i]]
    return found
