"""The fused sweep returns the rows of the product of the steps' matrices, whatever is active.

The oracle multiplies the primitives' explicit matrices, which define them, in float64.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilin.compiler.fused import fused_available, fused_bytes, fused_rows
from ilin.compiler.fused_store import FusedStore
from ilin.runtime.primitives import (
    Broadcast,
    Contract,
    Conv,
    Gather,
    Reshape,
    Scale,
    Sparse,
    Sum,
    Transpose,
    Window,
    chain,
)
from ilin.runtime.program import Kind, LinearProgram, Step

from ..runtime.test_primitives_laws import CALM, FACTORIES, dense, seeds

pytestmark = pytest.mark.skipif(not fused_available(), reason="needs numba, the extra [fast]")

DENSITIES = (0.0, 0.05, 0.5, 0.9, 1.0)


def step(output, *terms, offset=None, fixed=True):
    shape = terms[0][1].out_shape
    return Step(output, shape, output, "Test", Kind.AFFINE, terms, offset, fixed=fixed)


def mask(rng, shape, density):
    return Scale(shape, rng.random(shape) < density)


def rows_and_shares(program, rows):
    """W's rows and the shares of b by explicit matrices, in float64."""
    size = {name: math.prod(shape) for name, shape in program.inputs}
    size |= {step.output: step.size for step in program.steps}
    adjoint = {name: np.zeros((len(rows), n)) for name, n in size.items()}
    first = 0
    for name, shape in program.outputs:
        for k, row in enumerate(rows):
            if first <= row < first + math.prod(shape):
                adjoint[name][k, row - first] += 1
        first += math.prod(shape)
    shares = np.zeros((len(program.steps), len(rows)))
    for position, at in reversed(list(enumerate(program.steps))):
        if at.offset is not None:
            shares[position] = adjoint[at.output] @ at.offset_block().ravel().astype(np.float64)
        for name, L in at.terms:
            adjoint[name] += adjoint[at.output] @ dense(L)
    return np.concatenate([adjoint[name] for name, _ in program.inputs], axis=1), shares


def assert_right(program, rows, dtype, store=None):
    rows = np.asarray(rows)
    W, shares = fused_rows(program, rows, np.dtype(dtype), store or FusedStore())
    expected_W, expected_shares = rows_and_shares(program, rows)
    assert W.dtype == dtype
    assert W.flags.c_contiguous
    assert W.shape == expected_W.shape
    assert shares.dtype == np.float64
    tolerance = 2e-4 if dtype == np.float32 else 1e-11
    for found, expected in ((W, expected_W), (shares, expected_shares)):
        scale = np.abs(expected).max(initial=0) + 1e-30
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)
    return W


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_every_primitive_between_masks(factory):
    @CALM
    @given(factory, seeds, st.data())
    def check(L, seed, data):
        rng = np.random.default_rng(seed)
        above, below = (data.draw(st.sampled_from(DENSITIES)) for _ in range(2))
        fixed, K = data.draw(st.booleans()), data.draw(st.sampled_from((1, 3, 8, 17, 40)))
        offset = rng.normal(size=L.out_shape) * (rng.random(L.out_shape) < 0.5)
        program = LinearProgram(
            (("x", L.in_shape),),
            (("y", L.out_shape),),
            (
                step("masked", ("x", mask(rng, L.in_shape, below))),
                step(
                    "mapped", ("masked", L), offset=offset if data.draw(st.booleans()) else None, fixed=fixed
                ),
                step("y", ("mapped", mask(rng, L.out_shape, above)), fixed=False),
            ),
        )
        rows = rng.integers(0, L.out_size, K) if L.out_size else np.zeros(0, int)
        assert_right(program, rows, data.draw(st.sampled_from((np.float32, np.float64))))

    check()


def conv(rng, x, M, kernel, *, stride=1, dilation=1, pad=0, group=1):
    """A Conv from the shape x, its weights normal."""
    rank = len(kernel)
    out = tuple(
        (i + 2 * pad - (k - 1) * dilation - 1) // stride + 1 for i, k in zip(x[2:], kernel, strict=True)
    )
    window = Window(x[2:], out, kernel, (stride,) * rank, (dilation,) * rank, (pad,) * rank)
    return Conv(x[0], rng.normal(size=(M, x[1] // group, *kernel)), window, group)


WIDE = {
    "many channels in and out": {"x": (1, 150, 3, 4), "M": 140, "kernel": (3, 3), "pad": 1},
    "more entries than one stretch": {"x": (1, 5, 4, 4), "M": 300, "kernel": (3, 3), "pad": 1},
    "a 1×1 kernel": {"x": (2, 70, 5, 3), "M": 33, "kernel": (1, 1)},
    "a stride": {"x": (1, 9, 17, 16), "M": 20, "kernel": (3, 3), "stride": 2, "pad": 1},
    "a stride beyond the kernel": {"x": (1, 9, 17), "M": 20, "kernel": (2,), "stride": 3},
    "a dilation": {"x": (1, 8, 15, 14), "M": 9, "kernel": (3, 2), "dilation": 2, "pad": 2},
    "groups": {"x": (2, 24, 6, 6), "M": 36, "kernel": (3, 3), "pad": 1, "group": 3},
    "depthwise": {"x": (1, 70, 9, 7), "M": 70, "kernel": (3, 3), "pad": 1, "group": 70},
    "depthwise with a multiplier": {"x": (1, 11, 6, 7), "M": 33, "kernel": (3, 3), "group": 11},
    "three axes": {"x": (1, 4, 5, 6, 4), "M": 7, "kernel": (2, 3, 3), "pad": 1},
    "a long 1-D signal": {"x": (3, 2, 90), "M": 5, "kernel": (7,), "pad": 3},
}


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("given_", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("transposed", [False, True])
def test_wide_convolutions_at_every_activity(given_, density, transposed):
    rng = np.random.default_rng(0)
    L = conv(rng, **given_)
    L = L.T if transposed else L
    program = LinearProgram(
        (("x", L.in_shape),),
        (("y", L.out_shape),),
        (
            step("masked", ("x", mask(rng, L.in_shape, density)), fixed=False),
            step("mapped", ("masked", L), offset=rng.normal(size=L.out_shape)),
            step("y", ("mapped", mask(rng, L.out_shape, density)), fixed=False),
        ),
    )
    rows = rng.integers(0, L.out_size, 50)
    for K in (1, 4, 50):
        assert_right(program, rows[:K], np.float32)
        assert_right(program, rows[:K], np.float64)


@pytest.mark.parametrize("K", [*range(1, 41), 48, 49, 64, 65, 96, 100, 112, 128, 130])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_rows(K, dtype):
    rng = np.random.default_rng(K)
    assert_right(residual(rng, 0.5), rng.integers(0, 12, K), dtype)


def residual(rng, density):
    """A small network with the usual parts: a block with a shortcut, pools, an average and a dense layer."""
    x = (2, 3, 9, 9)
    first = conv(rng, x, 10, (3, 3), pad=1)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.arange(math.prod(first.out_shape)).reshape(first.out_shape), (3, 3), (2, 3)
    )[:, :, ::2, ::2]
    winners = np.take_along_axis(
        windows.reshape(*windows.shape[:4], 9), rng.integers(0, 9, windows.shape[:4])[..., None], axis=-1
    )[..., 0]
    pool = Gather(first.out_shape, winners.astype(np.int32))  # windows overlap: entries may win twice
    shape = pool.out_shape
    second, third = conv(rng, shape, 10, (3, 3), pad=1), conv(rng, shape, 10, (3, 3), pad=1)
    down, aside = conv(rng, shape, 14, (3, 3), stride=2, pad=1), conv(rng, shape, 14, (1, 1), stride=2)
    wide = down.out_shape
    mean = chain(Sum(wide, (2, 14, 1, 1)), Scale((2, 14, 1, 1), np.array(0.25)))
    dense_layer = Contract((2, 14), rng.normal(size=(6, 14)), "mk,nk->mn")
    held = rng.normal(size=shape) * (rng.random(shape) < 0.1)  # as of a Clip: live, and cut off from x
    norm = Scale(shape, rng.normal(size=(10, 1, 1)))
    return LinearProgram(
        (("x", x),),
        (("y", (2, 6)),),
        (
            step("c1", ("x", first), offset=rng.normal(size=(10, 1, 1))),
            step("r1", ("c1", mask(rng, first.out_shape, density)), fixed=False),
            step("p1", ("r1", pool), fixed=False),
            step("c2", ("p1", second), offset=rng.normal(size=(10, 1, 1))),
            step("n2", ("c2", norm), offset=rng.normal(size=(10, 1, 1))),
            step("r2", ("n2", mask(rng, shape, density)), offset=held, fixed=False),
            step("c3", ("r2", third)),
            step("s3", ("c3", Reshape(shape, shape)), ("p1", Reshape(shape, shape))),
            step("r3", ("s3", mask(rng, shape, density)), fixed=False),
            step("c4", ("r3", down), offset=rng.normal(size=(14, 1, 1))),
            step("c5", ("r3", aside), offset=rng.normal(size=(14, 1, 1))),
            step("s5", ("c4", Reshape(wide, wide)), ("c5", Reshape(wide, wide))),
            step("r5", ("s5", mask(rng, wide, density)), fixed=False),
            step("m5", ("r5", mean)),
            step("f5", ("m5", Reshape((2, 14, 1, 1), (2, 14)))),
            step("y", ("f5", dense_layer), offset=rng.normal(size=6)),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("density", DENSITIES)
def test_a_residual_network_point_after_point(density):
    """What is kept from point to point must not carry anything over."""
    store = FusedStore()
    for seed in range(3):
        program = residual(np.random.default_rng(seed), density)
        assert_right(program, np.arange(12), np.float64, store)
        assert_right(program, np.arange(12), np.float32, store)


def test_outputs_that_are_read_on_repeated_and_passed_through():
    rng = np.random.default_rng(0)
    first = Contract((1, 5), rng.normal(size=(4, 5)), "mk,nk->mn")
    second = Contract((1, 4), rng.normal(size=(3, 4)), "mk,nk->mn")
    program = LinearProgram(
        (("x", (1, 5)), ("z", (1, 4)), ("unused", (2, 2))),
        (("h", (1, 4)), ("y", (1, 3)), ("h", (1, 4)), ("x", (1, 5)), ("held", (1, 2))),
        (
            Step("held", (1, 2), "held", "(held)", Kind.LOCALLY_CONSTANT, (), np.array([[1.0, 2.0]])),
            step("h", ("x", first), ("z", Reshape((1, 4), (1, 4))), offset=np.ones(4)),
            step("r", ("h", mask(rng, (1, 4), 0.5)), fixed=False),
            step("y", ("r", second), ("h", second)),
        ),
    )  # fmt: skip
    size = program.out_size
    assert_right(program, np.arange(size), np.float64)
    assert_right(program, rng.integers(0, size, 40), np.float32)
    assert_right(program, [3], np.float64)


def test_products_along_any_axis():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 7)), rng.normal(size=(5, 4))
    program = LinearProgram(
        (("x", (3, 4, 6)),),
        (("y", (2, 1, 7, 15)),),
        (
            step("right", ("x", Contract((3, 4, 6), a, "btk,kn->btn"))),
            step("masked", ("right", mask(rng, (3, 4, 7), 0.6)), fixed=False),
            step("left", ("masked", Contract((3, 4, 7), b, "btn,st->bsn")), offset=rng.normal(size=(5, 1))),
            step("turned", ("left", Transpose((3, 5, 7), (2, 0, 1)))),
            step("flat", ("turned", Reshape((7, 3, 5), (1, 7, 15)))),
            step("y", ("flat", Broadcast((1, 7, 15), (2, 1, 7, 15)))),
        ),
    )
    assert_right(program, rng.integers(0, program.out_size, 60), np.float32)
    assert_right(program, np.arange(program.out_size), np.float64)


def test_an_explicit_matrix_has_no_kernel_and_is_applied():
    rng = np.random.default_rng(0)
    from scipy import sparse

    entries = sparse.random_array((30, 24), density=0.2, rng=rng, format="csr")
    program = LinearProgram(
        (("x", (2, 3, 4)),),
        (("y", (5, 6)),),
        (
            step("masked", ("x", mask(rng, (2, 3, 4), 0.5)), fixed=False),
            step("y", ("masked", Sparse((2, 3, 4), (5, 6), entries)), offset=rng.normal(size=(5, 6))),
        ),
    )
    assert_right(program, np.arange(30), np.float64)


@pytest.mark.parametrize("K", [1, 5, 70])
def test_the_same_to_the_last_bit_however_many_threads(K):
    import numba

    rng = np.random.default_rng(1)
    program, rows = residual(rng, 0.5), rng.integers(0, 12, K)
    found = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS, 1):
        numba.set_num_threads(threads)
        found.append(fused_rows(program, rows, np.dtype(np.float32), FusedStore()))
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for W, shares in found[1:]:
        np.testing.assert_array_equal(W, found[0][0])
        np.testing.assert_array_equal(shares, found[0][1])


def test_two_python_threads_share_a_store():
    from concurrent.futures import ThreadPoolExecutor

    programs = [residual(np.random.default_rng(seed), 0.5) for seed in range(4)]
    store = FusedStore()

    def sweep(program):
        return fused_rows(program, np.arange(12), np.dtype(np.float64), store)[0]

    alone = [sweep(program) for program in programs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(sweep, programs * 5))
    for i, W in enumerate(together):
        np.testing.assert_array_equal(W, alone[i % 4])


def test_infinite_weights_of_dead_units_do_no_harm():
    """What is not active is not read: 0 · ∞ never enters a sum."""
    weight = np.array([[1.0, np.inf], [2.0, 3.0]])
    program = LinearProgram(
        (("x", (1, 2)),),
        (("y", (1, 2)),),
        (
            step("masked", ("x", Scale((1, 2), np.array([[True, False]]))), fixed=False),
            step("y", ("masked", Contract((1, 2), weight, "mk,nk->mn"))),
        ),
    )
    W, _ = fused_rows(program, np.arange(2), np.dtype(np.float64), FusedStore())
    np.testing.assert_array_equal(W, [[1, 0], [2, 0]])


def test_the_memory_estimate_is_an_upper_bound_of_what_blocks_take():
    program = residual(np.random.default_rng(0), 1.0)
    for K in (1, 10, 100):
        store = FusedStore()
        fused_rows(program, np.arange(K) % 12, np.dtype(np.float32), store)
        assert store.arena.held <= fused_bytes(program, K, np.dtype(np.float32))


def test_progress_counts_the_steps():
    program, calls = residual(np.random.default_rng(0), 0.5), []
    fused_rows(program, np.arange(3), np.dtype(np.float32), FusedStore(), lambda *call: calls.append(call))
    assert calls == [(done, 16) for done in range(1, 17)]
