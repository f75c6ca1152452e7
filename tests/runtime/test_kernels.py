"""The compiled kernels against numpy."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilin.compiler.fused import fused_available

if not fused_available():
    pytest.skip("needs numba, the extra [fast]", allow_module_level=True)

from ilin.runtime import kernels
from ilin.runtime.kernels._micro import C_TILE, ENTRIES, V_TILE, tiles
from ilin.runtime.kernels._strip import R_STRIP, strip_room, strips

from .test_primitives_laws import CALM, seeds

DTYPES = (np.float32, np.float64)
layouts = st.tuples(st.integers(1, 3), st.integers(0, 9), st.sampled_from((0, 1, 2, 63, 64, 65, 130)))


def assert_sums(arows, wrows, a, w, channels, based, base, base_rows, out):
    """Rows 1 to -1 of `out` are the sums of units 1 to -1, in float64 and within their rounding."""
    for u in range(1, len(out) - 1):
        weights = w[wrows + channels[u] - 5].astype(float)
        exact, bound = weights @ a[arows].astype(float), np.abs(weights) @ np.abs(a[arows]).astype(float)
        if based and base_rows[u] >= 0:
            exact, bound = exact + base[base_rows[u]], bound + np.abs(base[base_rows[u]])
        assert np.all(np.abs(out[u] - exact) <= (len(arows) + 3) * np.finfo(out.dtype).eps * bound)
    assert np.isnan(out[[0, -1]]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entries", [0, 1, 2, 7, ENTRIES, ENTRIES + 1, 3 * ENTRIES + 5])
@pytest.mark.parametrize("based", [0, 1])
def test_tiles_of_every_size(dtype, entries, based):
    rng = np.random.default_rng(entries)
    lanes = kernels.VECTOR_BYTES // np.dtype(dtype).itemsize
    for vectors in range(1, 2 * V_TILE + 2):
        for count in range(2 * C_TILE + 2):
            a, base = (rng.normal(size=(30, lanes * vectors)).astype(dtype) for _ in range(2))
            w = rng.normal(size=500).astype(dtype)
            out = np.full((count + 2, lanes * vectors), np.nan, dtype)
            arows, wrows = (rng.integers(0, most, entries, np.int32) for most in (30, 400))
            channels = rng.integers(5, 105, count + 2, np.int32)
            base_rows = rng.integers(-1, 30, count + 2, np.int32)
            tiles(
                entries, arows, wrows, a, w, 5, channels, 1, count + 1, out, based, base, base_rows, vectors
            )
            assert_sums(arows, wrows, a, w, channels, based, base, base_rows, out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entries", [0, 1, 3, 4, 5, 70])
@pytest.mark.parametrize("channels_", [1, 4, 5, 16, 17, 31, 40, 64])
def test_strips_of_every_size(dtype, entries, channels_):
    """Any few rows, at any number of live channels, wherever these stand in their block."""
    rng = np.random.default_rng(entries)
    width = kernels.strip_width(np.dtype(dtype).itemsize, channels_)
    k0 = kernels.VECTOR_BYTES // np.dtype(dtype).itemsize
    blocks = rng.normal(size=(20, width)).astype(dtype)
    for rest in range(1, R_STRIP + 1):
        room = strip_room(width, rest, blocks)
        for count in {1, channels_ // 4, channels_ // 2, channels_ - 1, channels_} - {0}:
            for based in (0, 1):
                a, base = (rng.normal(size=(30, k0 + rest)).astype(dtype) for _ in range(2))
                out = np.full((count + 2, k0 + rest), np.nan, dtype)
                arows, block_rows = (rng.integers(0, most, entries, np.int32) for most in (30, 20))
                live = 5 + np.sort(rng.permutation(channels_)[:count])
                channels = np.concatenate([[0], live, [0]]).astype(np.int32)
                base_rows = rng.integers(-1, 30, count + 2, np.int32)
                strips(
                    *(entries, arows, block_rows * np.int32(width), a, blocks.ravel(), width, 5, channels),
                    *(1, count + 1, out, based, base, base_rows, k0, rest, *room),
                )
                assert np.isnan(out[:, :k0]).all()
                assert_sums(
                    *(arows, block_rows * width, a[:, k0:], blocks.ravel(), channels),
                    *(based, base[:, k0:], base_rows, out[:, k0:]),
                )


def test_rows_are_left_to_strips_where_they_fill_at_most_half_a_vector():
    lanes = kernels.VECTOR_BYTES // 4
    assert [kernels.rest_of(4, K) for K in (1, lanes // 2, lanes // 2 + 1, lanes, lanes + 3)] == [
        *(1, lanes // 2, 0, 0, 3)
    ]


def sorted_units(mask):
    """Start and channel by numpy, for a mask (N, C, P)."""
    N, C, P = mask.shape
    by_position = mask.transpose(0, 2, 1).reshape(N * P, C)
    start = np.concatenate([[0], np.cumsum(by_position.sum(axis=1))])
    return start, np.nonzero(by_position)[1]


@CALM
@given(layouts, seeds, st.sampled_from((0, 0.1, 0.5, 1)))
def test_units_are_listed_by_position_and_channel_and_placed_again(layout, seed, density):
    rng = np.random.default_rng(seed)
    mask = rng.random(layout) < density
    rows = rng.integers(0, 1000, layout, np.int32)
    table = np.where(mask, rows, -1).astype(np.int32).ravel()
    start, channel, row = kernels.listed(table, -1, *layout)
    expected_start, expected_channel = sorted_units(mask)
    np.testing.assert_array_equal(start, expected_start)
    np.testing.assert_array_equal(channel, expected_channel)
    by_position = np.where(mask, rows, -1).transpose(0, 2, 1).ravel()
    np.testing.assert_array_equal(row, by_position[by_position >= 0])
    np.testing.assert_array_equal(kernels.placed(start, channel, row, *layout), table)
    only_mask = kernels.listed(mask.ravel().view(np.uint8), 0, *layout)
    np.testing.assert_array_equal(only_mask[0], start)
    np.testing.assert_array_equal(only_mask[1], channel)
    part = rng.random(mask.size) < 0.5
    kept = kernels.kept(start, channel, row, part, *layout)
    np.testing.assert_array_equal(kernels.placed(*kept, *layout), np.where(part, table, -1))
    found = kernels.looked_up(start, channel, table, *layout)
    np.testing.assert_array_equal(found, row)


@CALM
@given(layouts, seeds, st.sampled_from(DTYPES), st.integers(1, 40), st.booleans())
def test_rows_that_meet_are_added(layout, seed, dtype, K, masked):
    rng = np.random.default_rng(seed)
    size = int(np.prod(layout))
    present = rng.random(size) < 0.6
    table = np.full(size, -1, np.int32)
    table[present] = rng.permutation(np.count_nonzero(present))
    a = rng.normal(size=(np.count_nonzero(present), K)).astype(dtype)
    index = rng.integers(-1, 5, size).astype(np.int32)
    mask = rng.random(5) < 0.7 if masked else np.zeros(0, bool)
    units = kernels.listed(table, -1, *layout)
    found, after, meet = kernels.chained(*units, index, mask, 5, *layout)
    reads = present & (index >= 0)
    if masked:
        reads &= mask[index]
    expected = np.zeros((5, K))
    np.add.at(expected, index[reads], a[table[reads]].astype(float))
    assert meet == (np.bincount(index[reads], minlength=1).max() > 1)
    if meet:
        _, channel, head = kernels.listed(found, -1, 1, 5, 1)
        out = np.empty((len(head), K), dtype)
        kernels.summed(head, units[2], after, a, out, K)
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(out, expected[channel], rtol=tolerance, atol=tolerance)
    else:
        channel = np.flatnonzero(found >= 0)
        np.testing.assert_array_equal(a[found[channel]], expected[channel].astype(dtype))
    np.testing.assert_array_equal(np.unique(index[reads]), channel)


@CALM
@given(layouts, seeds, st.sampled_from(DTYPES), st.integers(1, 3), st.integers(0, 3))
def test_shares_and_factors(layout, seed, dtype, vectors, cut):
    rng = np.random.default_rng(seed)
    table = np.where(rng.random(int(np.prod(layout))) < 0.6, 1, -1).astype(np.int32)
    table[table > 0] = np.arange(np.count_nonzero(table > 0))
    lanes = kernels.VECTOR_BYTES // np.dtype(dtype).itemsize
    a = rng.normal(size=(int(table.max(initial=-1)) + 1, lanes * vectors)).astype(dtype)
    shape = tuple(n if rng.random() < 0.5 else 1 for n in layout)
    factor = rng.normal(size=shape)
    units = kernels.listed(table, -1, *layout)
    whole = np.broadcast_to(factor, layout).ravel()
    products = (
        np.where(table >= 0, whole, 0)[:, None] * a[table].astype(float)
        if len(a)
        else np.zeros((len(table), 1))
    )
    for images in {1, layout[0]}:
        found = kernels.share(*units, a, factor, a.shape[1] - cut, images)
        exact = products.reshape(images, -1, products.shape[1]).sum(axis=1)
        exact = np.broadcast_to(exact, (images, a.shape[1]))[:, : a.shape[1] - cut]
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)
    out = np.empty((len(units[2]), lanes * vectors), dtype)
    kernels.scaled(*units, a, factor.astype(dtype), out, lanes * vectors)
    by_unit = np.broadcast_to(factor.astype(dtype), layout).transpose(0, 2, 1).ravel()
    chosen = np.broadcast_to(table.reshape(layout), layout).transpose(0, 2, 1).ravel() >= 0
    np.testing.assert_array_equal(out, by_unit[chosen][:, None] * a[units[2]])


@pytest.mark.parametrize("K", [1, 16, 17, 100])
def test_rows_of_w_are_written_in_c_order(K):
    rng = np.random.default_rng(K)
    table = rng.integers(-1, 50, 333).astype(np.int32)
    a = rng.normal(size=(50, 112)).astype(np.float32)
    W = np.full((K, 400), 7, np.float32)
    kernels.spread_rows(table, a, W, 30)
    np.testing.assert_array_equal(W[:, 30:363], np.where(table >= 0, a[table, :K].T, 0))
    assert (W[:, :30] == 7).all()
    assert (W[:, 363:] == 7).all()


def test_numba_is_imported_by_the_kernels_alone():
    code = "import sys, ilin, ilin.compiler.fused; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
