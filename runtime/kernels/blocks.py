"""Arithmetic on rows of blocks: sums where units meet, factors, offsets' shares, and the rows of W."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ._emit import VECTOR_BYTES
from ._micro import weighted_sum

_RUN = 256  # units of one task
_COLUMNS = 64  # of W that are written at a stretch: one line of the block each


@njit(nogil=True, cache=True, parallel=True)
def summed(head, row, after, a, out, used):
    """out[u] = Σ a[row[i]] over the chain head[u], after[head[u]], ..."""
    for task in prange((len(head) + _RUN - 1) // _RUN):
        for u in range(task * _RUN, min(len(head), (task + 1) * _RUN)):
            i = head[u]
            for k in range(used):
                out[u, k] = a[row[i], k]
            i = after[i]
            while i >= 0:
                for k in range(used):
                    out[u, k] += a[row[i], k]
                i = after[i]


@njit(nogil=True, cache=True, parallel=True)
def added(a, a_row, b, b_row, out, used):
    """out[u] = a[a_row[u]] + b[b_row[u]]; a negative row is zero."""
    for task in prange((len(a_row) + _RUN - 1) // _RUN):
        for u in range(task * _RUN, min(len(a_row), (task + 1) * _RUN)):
            if a_row[u] >= 0 and b_row[u] >= 0:
                for k in range(used):
                    out[u, k] = a[a_row[u], k] + b[b_row[u], k]
            elif a_row[u] >= 0:
                for k in range(used):
                    out[u, k] = a[a_row[u], k]
            elif b_row[u] >= 0:
                for k in range(used):
                    out[u, k] = b[b_row[u], k]
            else:
                for k in range(used):
                    out[u, k] = 0


@njit(nogil=True, cache=True, parallel=True)
def scaled(start, channel, row, a, factor, out, used):
    """out[u] = factor a[row[u]]; factor (N, C, P), each length the tensor's or 1."""
    positions = len(start) - 1
    N, C, P = factor.shape
    for task in prange((positions + _RUN - 1) // _RUN):
        for p in range(task * _RUN, min(positions, (task + 1) * _RUN)):
            for u in range(start[p], start[p + 1]):
                f = factor[_at(p, N, positions), channel[u] if C > 1 else 0, p % P if P > 1 else 0]
                for k in range(used):
                    out[u, k] = f * a[row[u], k]


@njit(nogil=True, cache=True, inline="always")
def _at(p, N, positions):
    return p // (positions // N) if N > 1 else 0


@njit(nogil=True, cache=True, parallel=True)
def share(start, channel, row, a, offset, used, images):
    """Σ offset[u] a[row[u], :used] over the units of each image, (images, used), all in float64.

    The units are summed run by run and the runs one after the other, whatever the number of threads.
    """
    positions = (len(start) - 1) // images
    runs = min(64, positions)
    N, C, P = offset.shape
    lanes = VECTOR_BYTES // a.itemsize
    vectors = (used + lanes - 1) // lanes
    partial = np.zeros((images * runs, vectors * lanes))
    for task in prange(images * runs):
        base, run = task // runs * positions, task % runs
        first, last = base + run * positions // runs, base + (run + 1) * positions // runs
        u0, count = start[first], start[last] - start[first]
        factors = np.empty(count)
        for p in range(first, last):
            image = _at(p, N, len(start) - 1)
            for u in range(start[p], start[p + 1]):
                factors[u - u0] = offset[image, channel[u] if C > 1 else 0, p % P if P > 1 else 0]
        for v in range(vectors):
            weighted_sum(count, u0, row, factors, a, v * lanes, min(lanes, used - v * lanes), partial[task])
    total = np.zeros((images, used))
    for task in range(images * runs):
        total[task // runs] += partial[task, :used]
    return total


@njit(nogil=True, cache=True, parallel=True)
def spread_rows(D, a, W, first):
    """W[k, first + i] = a[D[i], k], zero where D is negative."""
    K = len(W)
    for task in prange((len(D) + _COLUMNS - 1) // _COLUMNS):
        i0 = task * _COLUMNS
        i1 = min(len(D), i0 + _COLUMNS)
        for k0 in range(0, K, 16):
            for k in range(k0, min(K, k0 + 16)):
                for i in range(i0, i1):
                    W[k, first + i] = a[D[i], k] if D[i] >= 0 else 0
