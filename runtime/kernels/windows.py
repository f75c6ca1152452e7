"""Convolutions, both ways, and dense layers: each target position sums over the active units it reads.

A tensor (N, C, *spatial) is seen as N·P positions with C channels each. Of its units only some exist,
sorted by position and channel: those of position p are start[p] ... start[p + 1] - 1, `channel` says which
they are, and `row` where their rows stand in a block of (units, stride) numbers.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ._emit import VECTOR_BYTES
from ._micro import LISTED, list_entries, prefetch, tiles
from ._share import next_task
from ._strip import strip_room, strips

_FEW = 16  # positions, of which each reads weights that others did not
_LINE = 64  # bytes that the caches fetch together


@njit(nogil=True, cache=True)
def _first(channel, low, high, wanted):
    """The first of the units low ≤ u < high whose channel is at least `wanted`."""
    while low < high:
        middle = (low + high) // 2
        if channel[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True, parallel=True)
def windows(
    counter, workers, run, room,
    tap_start, tap, seen, in_positions, out_positions,
    weights, lane_first, lane_last, source_first, source_count,
    a, a_start, a_channel, a_row,
    out, start, channel, based, base, base_row, vectors, rest,
):  # fmt: skip
    """out[u] = base[base_row[u]] + Σ over taps and active sources of weight · a[source].

    counter is (1,) zero, `workers` the threads to use, `run` the positions of one task, `room` the entries
    that one position reads at most. Each of `out_positions` positions of an image reads, for i from
    tap_start[p] to tap_start[p + 1], the source position seen[i] of `in_positions` through tap[i]. Target
    channels come in blocks, lane_first to lane_last, that read `source_count` channels from source_first on;
    weights are (blocks, taps · source_count, channels of a block). a, a_start, a_channel, a_row are the
    source's rows and units, out, start and channel the target's. With `based`, rows base_row of `base` are
    added, -1 for none. Of each row `vectors` vectors and `rest` numbers behind them are computed.
    """
    positions = len(start) - 1
    runs = (positions + run - 1) // run
    blocks = len(lane_first)
    width = weights.shape[2]
    lanes = VECTOR_BYTES // weights.itemsize
    whole = len(source_first) == 1 or source_first[-1] == 0
    for _ in prange(workers):
        arows, wrows = np.empty(room + LISTED, np.int32), np.empty(room + LISTED, np.int32)
        sums, offsets, index, begins, slot = strip_room(width, rest, weights)
        while True:
            task = next_task(counter)
            if task >= blocks * runs:
                break
            block, first = task // runs, task % runs * run
            w = weights[block].ravel()
            c0, m0 = lane_first[block], source_first[block]
            for p in range(first, min(first + run, positions)):
                u0, u1 = start[p], start[p + 1]
                if blocks > 1:
                    u0 = _first(channel, u0, u1, c0)
                    u1 = _first(channel, u0, u1, lane_last[block])
                if u0 == u1:
                    continue
                image, place = p // out_positions, p % out_positions
                n = 0
                for i in range(tap_start[place], tap_start[place + 1]):
                    q = image * in_positions + seen[i]
                    s0, s1 = a_start[q], a_start[q + 1]
                    if not whole:
                        s0 = _first(a_channel, s0, s1, m0)
                        s1 = _first(a_channel, s0, s1, m0 + source_count)
                    shift = tap[i] * source_count - m0
                    list_entries(arows, wrows, n, a_row, a_channel, s0, s1 - s0, shift, width)
                    n += s1 - s0
                if p == first or positions <= _FEW:  # weights not read before: ask for all of them at once
                    for e in range(n):
                        for line in range(0, width, _LINE // w.itemsize):
                            prefetch(w, wrows[e] + line)
                if vectors:
                    tiles(n, arows, wrows, a, w, c0, channel, u0, u1, out, based, base, base_row, vectors)
                if rest:
                    strips(n, arows, wrows, a, w, width, c0, channel, u0, u1, out, based, base, base_row,
                           vectors * lanes, rest, sums, offsets, index, begins, slot)  # fmt: skip
