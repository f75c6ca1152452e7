"""Models at every operator set, in every floating type, and with open dimensions."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin

OLDEST, NEWEST = 6, onnx.defs.onnx_opset_version()
RANDOM = np.random.default_rng(3)
IMAGE = RANDOM.standard_normal((1, 2, 4, 4)).astype(np.float32)
# From IR version 4 on, initializers need not be graph inputs.
IR = {version: max(ir, 4) for _, ir, version, *_ in helper.VERSION_TABLE}


def versions(op_type):
    """The operator sets at which an operator's schema changes, from the oldest that is read on."""
    found = sorted(
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == op_type and not schema.domain and not schema.deprecated
    )
    return [max(first, OLDEST) for first, after in pairwise([*found, NEWEST + 1]) if after > OLDEST]


def model(nodes, opset, x, weights=None, kind=TensorProto.FLOAT, shape=None):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape or list(x.shape))],
        [helper.make_tensor_value_info("y", kind, ["a", "b", "c", "d"])],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR[opset])


def relu(opset):
    return [helper.make_node("Relu", ["x"], ["y"])], {}, np.diag(IMAGE.ravel() > 0)


def conv(opset):
    """A 1×1 convolution: y[n, :, h, w] = K x[n, :, h, w] + B, so W = K ⊗ I."""
    K, B = RANDOM.standard_normal((3, 2)).astype(np.float32), np.ones(3, np.float32)
    node = helper.make_node("Conv", ["x", "K", "B"], ["y"])
    return [node], {"K": K[:, :, None, None], "B": B}, np.kron(K, np.eye(16))


def batch_normalization(opset):
    scale, B, mean = (RANDOM.standard_normal(2).astype(np.float32) for _ in range(3))
    var = np.array([0.5, 2], np.float32)
    node = helper.make_node("BatchNormalization", ["x", "scale", "B", "mean", "var"], ["y"], epsilon=1e-3)
    W = np.diag(np.repeat(scale / np.sqrt(var + 1e-3), 16))
    return [node], {"scale": scale, "B": B, "mean": mean, "var": var}, W


def dropout(opset):
    return [helper.make_node("Dropout", ["x"], ["y"])], {}, np.eye(32)


def upsample(opset):
    """Each row and column twice."""
    twice = np.repeat(np.eye(4), 2, axis=0)
    W = np.kron(np.eye(2), np.kron(twice, twice))
    if opset < 9:
        scales = {"scales": [1.0, 1, 2, 2]} if opset > 6 else {"height_scale": 2.0, "width_scale": 2.0}
        return [helper.make_node("Upsample", ["x"], ["y"], mode="nearest", **scales)], {}, W
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    return [helper.make_node("Upsample", ["x", "scales"], ["y"], mode="nearest")], scales, W


def slice_(opset):
    """Columns 1 and 2."""
    W = np.kron(np.eye(8), np.eye(4)[1:3])
    if opset < 10:
        return [helper.make_node("Slice", ["x"], ["y"], axes=[3], starts=[1], ends=[3])], {}, W
    given = {name: np.array([v]) for name, v in (("starts", 1), ("ends", 3), ("axes", 3))}
    return [helper.make_node("Slice", ["x", *given], ["y"])], given, W


def pad(opset):
    """One zero behind each row."""
    W = np.kron(np.eye(8), np.eye(5, 4))
    pads = [0, 0, 0, 0, 0, 0, 0, 1]
    if opset < 11:
        return [helper.make_node("Pad", ["x"], ["y"], pads=pads)], {}, W
    return [helper.make_node("Pad", ["x", "pads"], ["y"])], {"pads": np.array(pads)}, W


def clip(opset):
    W = np.diag((IMAGE.ravel() > -0.5) & (IMAGE.ravel() <= 0.5))
    if opset < 11:
        return [helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.5)], {}, W
    bounds = {"low": np.array(-0.5, np.float32), "high": np.array(0.5, np.float32)}
    return [helper.make_node("Clip", ["x", "low", "high"], ["y"])], bounds, W


def reduce_sum(opset):
    W = np.kron(np.eye(8), np.ones((1, 4)))
    if opset < 13:
        return [helper.make_node("ReduceSum", ["x"], ["y"], axes=[3])], {}, W
    return [helper.make_node("ReduceSum", ["x", "axes"], ["y"])], {"axes": np.array([3])}, W


def sigmoid(opset):
    y = 1 / (1 + np.exp(-IMAGE.astype(float).ravel()))
    return [helper.make_node("Sigmoid", ["x"], ["y"])], {}, np.diag(y * (1 - y))


CASES = {
    "Relu": relu,
    "Conv": conv,
    "BatchNormalization": batch_normalization,
    "Dropout": dropout,
    "Upsample": upsample,
    "Slice": slice_,
    "Pad": pad,
    "Clip": clip,
    "ReduceSum": reduce_sum,
    "Sigmoid": sigmoid,
}
TABLE = [(op_type, opset) for op_type in CASES for opset in versions(op_type)]


def test_the_table_is_not_empty():
    assert {op_type for op_type, _ in TABLE} == set(CASES)
    assert {opset for op_type, opset in TABLE if op_type == "Slice"} == {6, 10, 11, 13}


@pytest.mark.parametrize(("op_type", "opset"), TABLE)
def test_every_version_of_an_operator(op_type, opset):
    nodes, weights, W = CASES[op_type](opset)
    affine = ilin.linearize(model(nodes, opset, IMAGE, weights), IMAGE)
    dense = affine.W if isinstance(affine.W, np.ndarray) else affine.W.toarray()
    np.testing.assert_allclose(dense, W, rtol=1e-5, atol=1e-6)
    assert affine.certificate.verified


@pytest.mark.parametrize("opset", range(OLDEST, NEWEST + 1))
def test_every_operator_set(opset):
    """Conv, Relu and Neg are in all of them; the newest ones run in onnx's reference evaluator."""
    (first,), weights, _ = conv(opset)
    first.output[0] = "c"
    K = weights["K"][:, :, 0, 0]
    nodes = [first, helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Neg", ["r"], ["y"])]
    affine = ilin.linearize(model(nodes, opset, IMAGE, weights), IMAGE)
    u = np.einsum("oc,nchw->nohw", K.astype(float), IMAGE) + 1
    np.testing.assert_allclose(affine.W, -1.0 * (u.ravel() > 0)[:, None] * np.kron(K, np.eye(16)), rtol=1e-5)
    assert affine.certificate.verified


FLOATING = {
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float32": (TensorProto.FLOAT, np.float32),
    "float64": (TensorProto.DOUBLE, np.float64),
}


@pytest.mark.parametrize("name", FLOATING)
def test_every_floating_type(name):
    """MatMul and Relu, all in one type; weights are small integers, so that W is the same in each."""
    kind, dtype = FLOATING[name]
    x, K = IMAGE.astype(dtype), np.array(RANDOM.integers(-3, 4, (4, 3))).astype(dtype)
    nodes = [helper.make_node("MatMul", ["x", "K"], ["u"]), helper.make_node("Relu", ["u"], ["y"])]
    affine = ilin.linearize(model(nodes, 17, x, {"K": K}, kind), x, dtype="float64")
    alive = (x.astype(float) @ K.astype(float) > 0).ravel()
    W = alive[:, None] * np.kron(np.eye(8), K.astype(float).T)
    np.testing.assert_array_equal(affine.W, W)
    assert affine.certificate.verified
    assert affine.y.dtype == dtype
    assert any("reference evaluator" in note for note in affine.notes) is (name == "bfloat16")


def test_half_precision_inside_a_single_precision_model():
    K = np.array(RANDOM.integers(-3, 4, (4, 3)), np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "K"], ["u"]),
        helper.make_node("Cast", ["u"], ["y"], to=TensorProto.FLOAT),
    ]
    affine = ilin.linearize(model(nodes, 17, IMAGE, {"K": K}), IMAGE)
    np.testing.assert_array_equal(affine.W, np.kron(np.eye(8), K.T.astype(np.float32)))
    assert affine.certificate.verified


@pytest.mark.parametrize("shape", [["batch", 2, 4, 4], ["n", "c", "h", "w"], [None, 2, None, None]])
def test_open_dimensions(shape):
    """One compiled model, asked at several shapes."""
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("GlobalAveragePool", ["r"], ["y"])]
    compiled = ilin.compile(model(nodes, 17, IMAGE, shape=shape))
    open_image = not isinstance(shape[2], int)
    sizes = [(3, 2, 5, 3), (1, 2, 4, 4), (2, 2, 1, 7)] if open_image else [(3, 2, 4, 4), (1, 2, 4, 4)]
    for size in sizes:
        x = RANDOM.standard_normal(size).astype(np.float32)
        affine = compiled.at(x)
        pixels = size[2] * size[3]
        W = np.kron(np.eye(size[0] * 2), np.full((1, pixels), 1 / pixels)) * (x.ravel() > 0)
        np.testing.assert_allclose(affine.W, W, rtol=1e-6)
        assert affine.output_shapes == {"y": (size[0], 2, 1, 1)}
        assert affine.certificate.verified


def test_shapes_that_are_computed_from_an_open_dimension():
    """Reshape to (batch, -1) by the shape of x itself."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    weights = {"first": np.array([0]), "rest": np.array([1, -1, 2])}
    compiled = ilin.compile(model(nodes, 17, IMAGE, weights, shape=["n", 2, 4, "w"]))
    for size in [(1, 2, 4, 4), (3, 2, 4, 1)]:
        affine = compiled.at(RANDOM.standard_normal(size).astype(np.float32))
        np.testing.assert_array_equal(affine.W, np.eye(np.prod(size)))
        assert affine.output_shapes["y"] == (size[0], 1, int(np.prod(size)) // size[0] // 2, 2)
