"""Smooth operators over axes: opsets, axes, extreme values and frozen mode, beyond the backend's cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ilin

from ..conformance.check import check
from .nodes import case_of, in_type

RANDOM = np.random.default_rng(0)


def normal(*shape, at=0.0, size=1.0):
    return (at + size * RANDOM.standard_normal(shape)).astype(np.float32)


X = normal(2, 3, 4)
EQUAL = np.full((2, 4), 3, np.float32)
ROW = {"x": X, "g": normal(1), "b": normal(4)}
WITH_ZEROS = np.float32([[1.5, 0, -2], [0, 0, 3], [2, -1, 0.5]])
IMAGE = normal(2, 6, 2, 3)
GAIN, SHIFT = normal(6, at=1), normal(6)
PLANES = {"x": normal(2, 6, 2), "g": GAIN, "b": SHIFT}
SCORES, LABELS = normal(3, 5), np.array([4, 0, 2])

CASES = {
    "softmax below 13, the last axis": ("Softmax", {"x": X}, 11, {"axis": -1}),
    "softmax below 13, two axes": ("Softmax", {"x": X}, 11, {}),
    "softmax below 13, everything": ("Softmax", {"x": X}, 9, {"axis": 0}),
    "softmax, one axis": ("Softmax", {"x": X}, 17, {"axis": -2}),
    "softmax of equal entries": ("Softmax", {"x": np.ones((2, 5), np.float32)}, 17, {}),
    "softmax of large logits": ("Softmax", {"x": normal(2, 5, at=80, size=2)}, 17, {}),
    "log-softmax below 13": ("LogSoftmax", {"x": X}, 11, {"axis": 1}),
    "log-softmax of large logits": ("LogSoftmax", {"x": normal(2, 5, at=-80, size=2)}, 17, {}),
    "layer over two axes": ("LayerNormalization", {"x": X, "g": normal(3, 4)}, 17, {"axis": 1}),
    "layer with a large mean": ("LayerNormalization", {"x": normal(2, 8, at=50), "g": normal(8)}, 17, {}),
    "layer of equal entries": (
        "LayerNormalization",
        {"x": EQUAL, "g": normal(4)},
        17,
        {},
    ),
    "layer with a gain that broadcasts": (
        "LayerNormalization",
        {"x": X, "g": normal(1), "b": normal(4)},
        17,
        {},
    ),
    "rms of zeros": ("RMSNormalization", {"x": np.zeros((2, 4), np.float32), "g": normal(4)}, 23, {}),
    "instance of two positions": (
        "InstanceNormalization",
        {"x": normal(2, 6, 2), "g": GAIN, "b": SHIFT},
        17,
        {},
    ),
    "group, one value for each channel": (
        *("GroupNormalization", {"x": IMAGE, "g": GAIN, "b": SHIFT}, 21),
        {"num_groups": 3},
    ),
    "group with a mean": (
        *("GroupNormalization", {"x": IMAGE + np.float32(5), "g": GAIN, "b": SHIFT}, 21),
        {"num_groups": 2},
    ),
    "mean and variance over the last axis": ("MeanVarianceNormalization", {"x": IMAGE}, 13, {"axes": [-1]}),
    "l1": ("LpNormalization", {"x": np.abs(X) + 1}, 17, {"p": 1, "axis": 1}),
    "l2": ("LpNormalization", {"x": X}, 17, {"p": 2, "axis": 0}),
    "l2 of windows": (
        "LpPool",
        {"x": IMAGE},
        22,
        {"kernel_shape": [2, 2], "strides": [1, 2], "pads": [1, 0, 0, 1]},
    ),
    "l3 of windows": ("LpPool", {"x": IMAGE}, 11, {"p": 3, "kernel_shape": [2, 3], "auto_pad": "SAME_LOWER"}),
    "l4 of dilated windows": (
        "LpPool",
        {"x": normal(1, 1, 6, 5)},
        22,
        {"p": 4, "kernel_shape": [2, 2], "dilations": [2, 3], "ceil_mode": 1},
    ),
    "l2 of channels": ("GlobalLpPool", {"x": IMAGE}, 2, {}),
    "l5 of channels": ("GlobalLpPool", {"x": PLANES["x"]}, 2, {"p": 5}),
    "l2 of large entries": ("LpNormalization", {"x": 1e15 * X}, 17, {}),
    "lrn": ("LRN", {"x": IMAGE}, 13, {"size": 5, "alpha": 0.5, "beta": 0.6, "bias": 1.5}),
    "log of a sum": ("ReduceLogSum", {"x": np.abs(X) + 1}, 13, {"axes": [1], "keepdims": 0}),
    "log of a sum of exponentials": ("ReduceLogSumExp", {"x": normal(3, 4, at=60)}, 13, {"axes": [-1]}),
    "product with zeros, rows": ("ReduceProd", {"x": WITH_ZEROS}, 13, {"axes": [1]}),
    "product with zeros, columns": ("ReduceProd", {"x": WITH_ZEROS}, 13, {"axes": [0], "keepdims": 0}),
    "product over two of three axes": ("ReduceProd", {"x": X}, 13, {"axes": [0, 2]}),
    "product over an axis by input": ("ReduceProd", {"x": X, "axes": np.array([-1])}, 18, {}),
    "squares": ("ReduceSumSquare", {"x": X}, 13, {"axes": [0, 1]}),
    "norm": ("ReduceL2", {"x": X}, 13, {"axes": [2]}),
    "norm of large entries": ("ReduceL2", {"x": 1e15 * X}, 13, {"axes": [2]}),
    "loss, summed": (
        *("SoftmaxCrossEntropyLoss", {"x": SCORES, "labels": LABELS}, 13),
        {"reduction": "sum", "ignore_index": 2},
    ),
    "loss of sure scores": ("SoftmaxCrossEntropyLoss", {"x": 20 * SCORES, "labels": LABELS}, 13, {}),
}


def _case(name):
    op_type, inputs, opset, attributes = CASES[name]
    return case_of(op_type, inputs, opset, **attributes)


@pytest.mark.parametrize("name", CASES)
def test_the_tangent_is_the_value_and_the_slope(name):
    case = _case(name)
    check(case, case.floating_inputs)
    check(case, case.floating_inputs[:1])


# onnxruntime has no kernel in this type, or its kernels overflow
POOLS = {f"l{p} of {groups}" for p, groups in ((2, "windows"), (3, "windows"), (4, "dilated windows"))}
CHANNELS = {"l2 of channels", "l5 of channels"}
WITHOUT = {
    "float16": {"mean and variance over the last axis", "l2 of large entries", "norm of large entries"}
    | CHANNELS,
    "float64": {"mean and variance over the last axis", "instance of two positions", "lrn"}
    | CHANNELS
    | POOLS,
}


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for dtype in WITHOUT for name in CASES if name not in WITHOUT[dtype]]
)
def test_the_tangent_in_half_and_double_precision(name, dtype):
    op_type, inputs, opset, attributes = CASES[name]
    case = case_of(op_type, in_type(inputs, dtype), opset, **attributes)
    check(case, case.floating_inputs)


HELD = {
    "layer over two axes": None,
    "layer with a gain that broadcasts": "b",
    "rms of zeros": None,
    "group, one value for each channel": "b",
    "group with a mean": "b",
    "instance of two positions": "b",
    "mean and variance over the last axis": None,
    "l1": None,
    "l2": None,
    "l3 of windows": None,
    "l5 of channels": None,
    "lrn": None,
    "product over two of three axes": None,
    "squares": None,
    "norm": None,
}


@pytest.mark.parametrize(("name", "bias"), HELD.items())
def test_frozen_denominators_leave_the_bias_alone_as_offset(name, bias):
    case = _case(name)
    affine = ilin.linearize(case.model, dict(case.feeds), inputs=["x"], mode="frozen", dtype="float64")
    assert affine.certificate.verified, str(affine.certificate)
    if bias is None:
        np.testing.assert_array_equal(affine.b, 0)
        return
    shape = case.feeds["x"].shape
    own = case.feeds[bias]
    shift = own.reshape(-1, *(1,) * (len(shape) - 2)) if len(own) == shape[1] else own
    np.testing.assert_allclose(affine.b.reshape(shape), np.broadcast_to(shift, shape), rtol=1e-6)


def test_where_scale_and_entries_depend_on_x_frozen_mode_counts_each_half():
    case = case_of("RMSNormalization", {"x": X, "g": normal(4)}, 23)
    affine = ilin.linearize(case.model, dict(case.feeds), mode="frozen", dtype="float64")
    assert affine.certificate.verified
    np.testing.assert_array_equal(affine.b, 0)
    halves = (affine.W[:, : X.size] @ X.ravel(), affine.W[:, X.size :] @ case.feeds["g"])
    np.testing.assert_allclose(*halves, rtol=1e-5, atol=1e-7)


def test_with_x_held_a_normalisation_is_affine_in_its_scale_and_bias():
    case = case_of("LayerNormalization", {"x": X, "g": normal(4), "b": normal(4)}, 17)
    affine = ilin.linearize(case.model, dict(case.feeds), inputs=["g", "b"])
    assert affine.kind == "affine"
    assert affine.certificate.verified


def test_the_statistics_of_a_layer_have_slopes_of_their_own():
    from onnx import helper

    outputs = [helper.make_tensor_value_info(n, 1, [2, 3, k]) for n, k in (("y", 4), ("mean", 1), ("inv", 1))]
    graph = helper.make_graph(
        [helper.make_node("LayerNormalization", ["x", "g"], ["y", "mean", "inv"])],
        "one",
        [helper.make_tensor_value_info("x", 1, [2, 3, 4])],
        outputs,
        [helper.make_tensor("g", 1, [4], [1, 2, 3, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    affine = ilin.linearize(model, X, dtype="float64")
    assert affine.certificate.verified, str(affine.certificate)
    x = X.astype(float)
    c, v = x - x.mean(-1, keepdims=True), x.var(-1, keepdims=True) + 1e-5
    rows = affine.W[24:].reshape(2, 2, 3, 2, 3, 4)  # mean or inv, at (i, j), by x
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(rows[0, i, j, i, j], 1 / 4, rtol=1e-12)
        np.testing.assert_allclose(rows[1, i, j, i, j], -c[i, j] * v[i, j] ** -1.5 / 4, rtol=1e-5, atol=1e-9)


KINKS = {
    "ReduceL2": ("ReduceL2", (2, 3), 13, {"axes": [1]}),
    "LpPool": ("LpPool", (1, 1, 4, 4), 18, {"kernel_shape": [2, 2], "p": 3}),
    "GlobalLpPool": ("GlobalLpPool", (1, 1, 4, 4), 2, {}),
    "LpNormalization": ("LpNormalization", (2, 3), 17, {}),
    "LpNormalization by sums": ("LpNormalization", (2, 3), 17, {"p": 1}),
    "Sqrt": ("Sqrt", (2, 3), 13, {}),
}


@pytest.mark.parametrize("kink", KINKS)
def test_a_kink_without_a_tangent_is_refused(kink):
    op_type, shape, opset, attributes = KINKS[kink]
    case = case_of(op_type, {"x": np.zeros(shape, np.float32)}, opset, **attributes)
    with pytest.raises(ilin.UnsupportedError, match=r"has no tangent at x|slope in 'x' is not finite"):
        ilin.linearize(case.model, dict(case.feeds))


SUMS = {
    "ReduceL1": ("ReduceL1", (2, 3), 13, {"axes": [1]}),
    "LpPool": ("LpPool", (1, 1, 2, 2), 18, {"kernel_shape": [2, 2], "p": 1}),
    "GlobalLpPool": ("GlobalLpPool", (1, 1, 2, 2), 2, {"p": 1}),
    "Abs": ("Abs", (2, 3), 13, {}),
}


@pytest.mark.parametrize("kink", SUMS)
def test_a_sum_of_absolute_values_has_a_tie_at_every_zero(kink):
    op_type, shape, opset, attributes = SUMS[kink]
    case = case_of(op_type, {"x": np.zeros(shape, np.float32)}, opset, **attributes)
    affine = ilin.linearize(case.model, dict(case.feeds))
    assert affine.certificate.ties == math.prod(shape)


def test_a_window_of_padding_alone_has_no_kink():
    x = np.ones((1, 1, 1, 1), np.float32)  # between the two taps
    case = case_of("LpPool", {"x": x}, 18, kernel_shape=[2, 1], dilations=[2, 1], pads=[1, 0, 1, 0])
    affine = ilin.linearize(case.model, dict(case.feeds))
    assert affine.certificate.verified
    np.testing.assert_array_equal(affine.W, 0)


def test_a_direction_of_nothing_is_refused():
    case = case_of("LpNormalization", {"x": np.zeros((2, 3), np.float32)}, 17)
    with pytest.raises(ilin.UnsupportedError, match="has no tangent at x, where a whole group is 0"):
        ilin.linearize(case.model, dict(case.feeds))


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "ReduceProd", "ReduceSumSquare", "ReduceL2"])
def test_empty_tensors(op_type):
    case = case_of(
        op_type, {"x": np.zeros((0, 3), np.float32)}, 13, **({} if "Reduce" not in op_type else {"axes": [1]})
    )
    assert ilin.linearize(case.model, dict(case.feeds)).W.shape[1] == 0
