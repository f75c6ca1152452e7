"""Primitives against what others compute: onnxruntime, scipy.signal, np.einsum, numpy, and loops by hand."""

import itertools
import math

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy import signal, sparse

from ilin.runtime.primitives import (
    Broadcast,
    Contract,
    Conv,
    Gather,
    Reshape,
    Scale,
    Scatter,
    Sparse,
    Sum,
    Transpose,
    Window,
)

CALM = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
RANKS = (1, 2, 3)
seeds = st.integers(0, 2**32 - 1)


def run_node(op, x, w, **attributes):
    """One node with the initializer w, by onnxruntime."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], **attributes)],
        op,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


def assert_agree(L, x, expected):
    """Equal shapes, and entries equal up to the roundings of both sides."""
    y = L.apply(x[None])[0]
    assert y.shape == expected.shape
    bound = L.magnitude().apply(np.abs(x).astype(np.float64)[None])[0]
    assert np.all(np.abs(y - expected) <= (L.fan_in + 4) * np.finfo(np.float32).eps * bound)


# -- convolutions ------------------------------------------------------------------------------------


@st.composite
def geometries(draw, rank):
    """The attributes of a convolution, as ONNX has them, with sizes that stay small in `rank` axes."""

    def each(low, high, count=rank):
        return [draw(st.integers(low, high)) for _ in range(count)]

    most = 3 if rank < 3 else 2
    return {
        "sizes": each(1, 8 if rank == 1 else 5 if rank == 2 else 4),
        "kernel": each(1, most),
        "strides": each(1, 3),
        "dilations": each(1, 3),
        "pads": each(0, 3, 2 * rank),
        "group": draw(st.integers(1, 3)),
        "batch": draw(st.integers(1, 3)),
        "seed": draw(seeds),
    }


def room(geometry):
    """How far a window can move along each axis of a padded input."""
    rank = len(geometry["sizes"])
    begin, end = geometry["pads"][:rank], geometry["pads"][rank:]
    each = (geometry["sizes"], begin, end, geometry["kernel"], geometry["dilations"])
    return [size + b + e - ((k - 1) * d + 1) for size, b, e, k, d in zip(*each, strict=True)]


def convolution(geometry, channels, out_channels):
    """Conv with random weights; x is what it reads. Channels are counted for each group."""
    rng = np.random.default_rng(geometry["seed"])
    rank, group = len(geometry["sizes"]), geometry["group"]
    out = [r // s + 1 for r, s in zip(room(geometry), geometry["strides"], strict=True)]
    window = Window(
        tuple(geometry["sizes"]),
        tuple(out),
        tuple(geometry["kernel"]),
        tuple(geometry["strides"]),
        tuple(geometry["dilations"]),
        tuple(geometry["pads"][:rank]),
    )
    weight = rng.normal(size=(group * out_channels, channels, *geometry["kernel"])).astype(np.float32)
    L = Conv(geometry["batch"], weight, window, group)
    return L, rng.normal(size=L.in_shape).astype(np.float32)


def conv_by_hand(L, x):
    """The sum of Conv's docstring, one product at a time."""
    window, per_group = L.window, L.weight.shape[0] // L.group
    y = np.zeros(L.out_shape)
    for n, m, *o in np.ndindex(L.out_shape):
        for c, *t in np.ndindex(L.weight.shape[1:]):
            at = [
                position * s + tap * d - p
                for position, tap, s, d, p in zip(
                    o, t, window.strides, window.dilations, window.pads, strict=True
                )
            ]
            if all(0 <= i < size for i, size in zip(at, window.in_size, strict=True)):
                channel = m // per_group * L.weight.shape[1] + c
                y[(n, m, *o)] += float(L.weight[(m, c, *t)]) * float(x[(n, channel, *at)])
    return y


channel_counts = st.integers(1, 3)


@pytest.mark.parametrize("rank", RANKS)
def test_conv_is_onnxruntimes(rank):
    @CALM
    @given(geometries(rank), channel_counts, channel_counts)
    def agrees(geometry, channels, out_channels):
        assume(min(room(geometry)) >= 0)
        L, x = convolution(geometry, channels, out_channels)
        attributes = {name: geometry[name] for name in ("strides", "dilations", "pads", "group")}
        assert_agree(L, x, run_node("Conv", x, L.weight, **attributes))

    agrees()


@pytest.mark.parametrize("rank", RANKS)
def test_conv_transpose_is_onnxruntimes(rank):
    """ConvTranspose reads `sizes` and writes what is left of the scattered windows after cropping `pads`."""

    @CALM
    @given(geometries(rank), channel_counts, channel_counts, st.data())
    def agrees(geometry, channels, out_channels, data):
        rng = np.random.default_rng(geometry["seed"])
        strides, dilations, pads = geometry["strides"], geometry["dilations"], geometry["pads"]
        extra = [data.draw(st.integers(0, s - 1)) for s in strides]
        each = zip(geometry["sizes"], geometry["kernel"], strides, dilations, extra, strict=True)
        full = [(i - 1) * s + (k - 1) * d + 1 + e for i, k, s, d, e in each]
        out = tuple(f - b - e for f, b, e in zip(full, pads[:rank], pads[rank:], strict=True))
        assume(min(out) > 0)
        shape = (geometry["group"] * channels, out_channels, *geometry["kernel"])
        weight = rng.normal(size=shape).astype(np.float32)
        window = Window(
            out,
            tuple(geometry["sizes"]),
            tuple(geometry["kernel"]),
            tuple(strides),
            tuple(dilations),
            tuple(pads[:rank]),
        )
        L = Conv(geometry["batch"], weight, window, geometry["group"]).T
        x = rng.normal(size=L.in_shape).astype(np.float32)
        attributes = {name: geometry[name] for name in ("strides", "dilations", "pads", "group")}
        assert_agree(L, x, run_node("ConvTranspose", x, weight, output_padding=extra, **attributes))

    agrees()


@pytest.mark.parametrize("rank", RANKS)
def test_conv_is_its_definition(rank):
    """Also where windows hang over the end: any number of positions is asked for, fitting or not."""

    @settings(CALM, max_examples=25)
    @given(geometries(rank), st.integers(1, 2), st.integers(1, 2), st.integers(1, 3))
    def agrees(geometry, channels, out_channels, more):
        geometry["pads"][-1] += 2 * more + sum(geometry["dilations"]) * 3  # the last axis runs out of input
        geometry["batch"] = min(geometry["batch"], 2)
        assume(min(room(geometry)) >= 0)
        L, x = convolution(geometry, channels, out_channels)
        assume(L.work < 4000)
        assert_agree(L, x, conv_by_hand(L, x))
        assert_agree(L.T.T, x, conv_by_hand(L, x))

    agrees()


@pytest.mark.parametrize("rank", RANKS)
def test_conv_is_scipys_correlation(rank):
    """With stride and dilation 1 and one group, and the padding added by np.pad."""

    @settings(CALM, max_examples=25)
    @given(geometries(rank), channel_counts, channel_counts)
    def agrees(geometry, channels, out_channels):
        geometry |= {"strides": [1] * rank, "dilations": [1] * rank, "group": 1}
        assume(min(room(geometry)) >= 0)
        L, x = convolution(geometry, channels, out_channels)
        pads = list(zip(geometry["pads"][:rank], geometry["pads"][rank:], strict=True))
        padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *pads])
        expected = np.zeros(L.out_shape)
        for n, m, c in itertools.product(range(L.batch), range(out_channels), range(channels)):
            expected[n, m] += signal.correlate(
                padded[n, c], L.weight[m, c].astype(np.float64), "valid", "direct"
            )
        assert_agree(L, x, expected)

    agrees()


@pytest.mark.parametrize("rank", RANKS)
def test_taps_and_positions_tell_the_same_window(rank):
    """Both list (position, tap, input) triples; and so does o·stride + t·dilation - pad, axis by axis."""

    @CALM
    @given(geometries(rank), st.lists(st.integers(0, 5), min_size=rank, max_size=rank))
    def agrees(geometry, out):
        fields = (geometry[name] for name in ("kernel", "strides", "dilations"))
        window = Window(
            tuple(geometry["sizes"]), tuple(out), *map(tuple, fields), tuple(geometry["pads"][:rank])
        )
        inputs = np.arange(math.prod(window.in_size)).reshape(window.in_size)
        outputs = np.arange(math.prod(window.out_size)).reshape(window.out_size)
        by_taps = np.full((outputs.size, math.prod(window.kernel)), -1)
        for tap, written, read in window.taps():
            assert outputs[written].shape == inputs[read].shape
            by_taps[outputs[written], np.ravel_multi_index(tap, window.kernel)] = inputs[read]
        by_formula = np.full_like(by_taps, -1)
        for row, o in enumerate(np.ndindex(window.out_size)):
            for column, t in enumerate(np.ndindex(window.kernel)):
                at = np.multiply(o, window.strides) + np.multiply(t, window.dilations) - window.pads
                if np.all(at >= 0) and np.all(at < window.in_size):
                    by_formula[row, column] = inputs[tuple(at)]
        np.testing.assert_array_equal(window.positions(), by_formula)
        np.testing.assert_array_equal(by_taps, by_formula)

    agrees()


# -- contractions ------------------------------------------------------------------------------------


@st.composite
def contractions(draw):
    """(labels, size of each label): every label gets the operands it stands in, then an order in each."""
    names = draw(st.lists(st.sampled_from("abcdefghxyz"), unique=True, max_size=6))
    standing = {name: draw(st.sampled_from(("xw", "xy", "wy", "xwy"))) for name in names}

    def axes(operand):
        return "".join(draw(st.permutations([name for name in names if operand in standing[name]])))

    sizes = {name: draw(st.sampled_from((1, 2, 3, 2, 3, 4, 0))) for name in names}
    return f"{axes('x')},{axes('w')}->{axes('y')}", sizes


@settings(CALM, max_examples=250)
@given(contractions(), seeds)
def test_contract_is_einsum(contraction, seed):
    (labels, sizes), rng = contraction, np.random.default_rng(seed)
    x_axes, w_axes = labels.split("->")[0].split(",")
    x = rng.normal(size=[sizes[a] for a in x_axes]).astype(np.float32)
    w = np.asarray(rng.normal(size=[sizes[a] for a in w_axes]), np.float32)
    exact = np.einsum(labels, x.astype(np.float64), w.astype(np.float64))
    assert_agree(Contract(x.shape, w, labels), x, exact)


LINEAR_ALGEBRA = {
    "matrix · vector": ("n,mn->m", (3,), (2, 3), lambda x, w: w @ x),
    "vector · matrix": ("m,mn->n", (2,), (2, 3), lambda x, w: x @ w),
    "matrix · matrix": ("mk,kn->mn", (4, 3), (3, 2), lambda x, w: x @ w),
    "transposed": ("km,nk->mn", (3, 4), (2, 3), lambda x, w: x.T @ w.T),
    "batched on both sides": ("bmk,bkn->bmn", (2, 4, 3), (2, 3, 5), lambda x, w: x @ w),
    "batched in x": ("bmk,kn->bmn", (2, 4, 3), (3, 5), lambda x, w: x @ w),
    "batched in w": ("mk,bkn->bmn", (4, 3), (2, 3, 5), lambda x, w: x @ w),
    "outer": ("m,n->mn", (4,), (3,), np.multiply.outer),
    "inner": ("k,k->", (4,), (4,), np.dot),
    "nothing summed": ("k,k->k", (4,), (4,), np.multiply),
    "scalars": (",->", (), (), np.multiply),
}


@pytest.mark.parametrize("name", LINEAR_ALGEBRA)
def test_contract_is_linear_algebra(name):
    labels, shape, weight_shape, expected = LINEAR_ALGEBRA[name]
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=shape), np.asarray(rng.normal(size=weight_shape))
    y = Contract(shape, w, labels).apply(np.asarray(x)[None])[0]
    np.testing.assert_allclose(y, expected(x, w), rtol=1e-12)


# -- matrices written by hand ------------------------------------------------------------------------

LINE = Window(in_size=(4,), out_size=(3,), kernel=(2,), strides=(2,), dilations=(1,), pads=(1,))
BY_HAND = {
    "Reshape": (Reshape((1, 2), (2,)), [[1, 0], [0, 1]]),
    "Transpose": (Transpose((1, 3, 2), (2, 0, 1)), np.eye(6)[[0, 2, 4, 1, 3, 5]]),
    "Gather": (Gather((3,), np.array([[2, -1], [0, 2]])), [[0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]),
    "Gather of one": (Gather((2,), np.array(1)), [[0, 1]]),
    "Gather from nothing": (Gather((0,), np.array([-1, -1])), np.zeros((2, 0))),
    "Scatter": (Scatter((3,), np.array([2, -1, 0, 2])), [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]),
    "Scale": (Scale((2, 2), np.array([2.0, -3.0])), np.diag([2, -3, 2, -3])),
    "Scale by one factor": (Scale((2,), np.array(5.0)), [[5, 0], [0, 5]]),
    "Scale, bool": (Scale((3,), np.array([True, False, True])), np.diag([1, 0, 1])),
    "Broadcast": (Broadcast((2, 1), (2, 2, 2)), [[1, 0], [1, 0], [0, 1], [0, 1]] * 2),
    "Sum": (Sum((2, 2, 2), (2, 1)), [[1, 1, 0, 0] * 2, [0, 0, 1, 1] * 2]),
    "Sum of nothing": (Sum((0,), (1,)), np.zeros((1, 0))),
    "Contract": (Contract((2,), np.array([[1, 2], [3, 4], [5, 6]]), "n,mn->m"), [[1, 2], [3, 4], [5, 6]]),
    "Sparse": (Sparse((2,), (1, 2), sparse.csr_array([[1.0, 2.0], [0.0, 4.0]])), [[1, 2], [0, 4]]),
    "Conv": (Conv(1, np.array([[[7.0, 9.0]]]), LINE), [[9, 0, 0, 0], [0, 7, 9, 0], [0, 0, 0, 7]]),
    "ConvTranspose": (
        Conv(1, np.array([[[7.0, 9.0]]]), LINE).T,
        [[9, 0, 0], [0, 7, 0], [0, 9, 0], [0, 0, 7]],
    ),
    "Conv, grouped": (
        Conv(
            1, np.array([[[2.0]], [[3.0]], [[5.0]], [[7.0]]]), Window((1,), (1,), (1,), (1,), (1,), (0,)), 2
        ),
        [[2, 0], [3, 0], [0, 5], [0, 7]],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_matrix_is_the_one_by_hand(name):
    L, expected = BY_HAND[name]
    np.testing.assert_array_equal(L.matrix().toarray(), expected)
    unit_vectors = np.eye(L.in_size).reshape(L.in_size, *L.in_shape)
    if L.in_size:
        np.testing.assert_array_equal(L.apply(unit_vectors).reshape(L.in_size, L.out_size).T, expected)


def test_moves_are_numpys():
    x = np.arange(24.0).reshape(2, 3, 4)
    index = np.random.default_rng(0).integers(0, 24, (5, 2))
    added = np.zeros(24)
    np.add.at(added, index, np.arange(10.0).reshape(5, 2))
    for L, operand, expected in (
        (Reshape((2, 3, 4), (4, 6)), x, x.reshape(4, 6)),
        (Transpose((2, 3, 4), (2, 0, 1)), x, x.transpose(2, 0, 1)),
        (Gather((2, 3, 4), index), x, x.ravel()[index]),
        (Scatter((24,), index), np.arange(10.0).reshape(5, 2), added),
        (Broadcast((2, 3, 4), (5, 2, 3, 4)), x, np.broadcast_to(x, (5, 2, 3, 4))),
        (Sum((2, 3, 4), (3, 1)), x, x.sum(axis=(0, 2)).reshape(3, 1)),
    ):
        np.testing.assert_array_equal(L.apply(operand[None])[0], expected)


@pytest.mark.parametrize("cached", [1, 600, 1 << 30], ids=["row by row", "some rows", "all at once"])
@pytest.mark.parametrize(
    ("window", "group"),
    [
        (Window((7,), (4,), (3,), (2,), (1,), (1,)), 1),
        (Window((6, 5), (6, 5), (3, 3), (1, 1), (1, 1), (1, 1)), 1),
        (Window((6, 5), (6, 5), (1, 1), (1, 1), (1, 1), (0, 0)), 2),
        (Window((7, 6), (3, 2), (2, 3), (2, 2), (2, 1), (0, 1)), 2),
        (Window((5, 6), (3, 3), (2, 2), (1, 2), (1, 1), (-1, -1)), 1),
        (Window((2, 3), (4, 3), (1, 2), (1, 1), (1, 1), (1, 0)), 1),
        (Window((3, 4, 3), (2, 4, 3), (2, 2, 1), (1, 1, 1), (1, 2, 1), (0, 1, 0)), 1),
    ],
    ids=["1-D", "same", "pointwise", "strided", "cropped", "beyond the input", "3-D"],
)
def test_a_convolution_is_its_matrix_however_little_is_multiplied_at_once(monkeypatch, window, group, cached):
    monkeypatch.setattr("ilin.runtime.primitives.conv.CACHED", cached)
    random = np.random.default_rng(0)
    L = Conv(2, random.integers(-3, 4, (4, 3, *window.kernel)).astype(np.float32), window, group)
    block = random.integers(-3, 4, (3, *L.in_shape)).astype(np.float32)

    expected = (L.matrix() @ block.reshape(3, -1).T).T.reshape(3, *L.out_shape)

    np.testing.assert_array_equal(L.apply(block), expected)  # small integers: no rounding
