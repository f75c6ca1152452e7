"""The explainer: one ONNX file from x to y, W and b, run by onnxruntime alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin
from ilin.compiler.explainer import export_explainer
from ilin.compiler.graph import load
from ilin.compiler.lower import lower
from ilin.compiler.observer import Observer
from ilin.compiler.scope import scope_of
from ilin.compiler.trace import feeds_of
from ilin.ops import EXPLANATIONS, REGISTRY
from ilin.runtime.program import Kind

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
RANDOM = np.random.default_rng(7)


def weights(*shape):
    return (RANDOM.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def model_of(nodes, shape, parameters=None, outputs=("y",), opset=18):
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (parameters or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def node(op, inputs, output="y", **attributes):
    return helper.make_node(op, inputs.split(), [output], name=f"{op} to {output}", **attributes)


def explainer_of(model, x, rows="all", **scope):
    graph = load(model)
    parts = scope_of(graph, scope.get("inputs"), scope.get("outputs"))
    observer = Observer(graph, parts, None)
    program = lower(parts, observer.trace(feeds_of(graph, x)[0]), np.dtype(np.float32), {})
    return export_explainer(graph, parts, program, rows, np.float32)


def run(explainer, x, *names):
    session = onnxruntime.InferenceSession(explainer.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, {session.get_inputs()[0].name: x})


def check(model, points, rows="all"):
    """Against explicit sparse matrices, at other points than the one that the explainer was made at."""
    explainer = explainer_of(model, points[0], rows)
    compiled = ilin.compile(model, engine="sparse")
    for x in points:
        affine = compiled.at(x, rows)
        y, W, b, chosen = run(explainer, x)
        np.testing.assert_array_equal(chosen, affine.rows)
        np.testing.assert_allclose(y, affine.y, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(W, affine.W, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(b, affine.b, rtol=1e-4, atol=1e-5)


SMALL = np.array([-3.5, -1.0, -0.25, 0.0, 0.4, 1.0, 2.0, 9.0], np.float32)
HALF, ONE = np.float32(0.5), np.float32(1)
RAMP = np.array([0.1, 3.3, -2.7, 0.9, 5.2, -0.63, 1.7, -4.1], np.float32).reshape(1, 1, 2, 4)
INDICES = np.array([0, 0, -1, 1, 2, 2, 2, 0]).reshape(1, 1, 2, 4)
SIDES = np.resize(np.float32([10, -10]), (1, 1, 2, 4))  # of 0, away from which a norm has a tangent
SUM = [node("ReduceSum", "x", "s", keepdims=0)]
FLAG = [node("Size", "x", "n"), node("Cast", "n", "f", to=TensorProto.BOOL)]
ABOVE_0 = [node("Abs", "x", "a"), node("Add", "a l", "p")]
OPERATORS = {
    "Relu": ([node("Relu", "x")], {}),
    "LeakyRelu": ([node("LeakyRelu", "x", alpha=0.25)], {}),
    "PRelu": ([node("PRelu", "x s")], {"s": np.array([0.3], np.float32)}),
    "Abs": ([node("Abs", "x")], {}),
    "Clip": ([node("Clip", "x l h")], {"l": np.float32(-1), "h": np.float32(1)}),
    "Clip from below": ([node("Clip", "x l")], {"l": np.float32(-1)}),
    "Clip from above": ([helper.make_node("Clip", ["x", "", "h"], ["y"])], {"h": np.float32(1)}),
    "Clip crossed": ([node("Clip", "x l h")], {"l": np.float32(2), "h": np.float32(-1)}),
    "HardSigmoid": ([node("HardSigmoid", "x", alpha=0.2, beta=0.5)], {}),
    "HardSigmoid falling": ([node("HardSigmoid", "x", alpha=-0.5, beta=0.25)], {}),
    "HardSigmoid flat": ([node("HardSigmoid", "x", alpha=0.0, beta=0.25)], {}),
    "Max": ([node("Neg", "x", "n"), node("Max", "x n c")], {"c": np.full((1, 1, 2, 4), 0.5, np.float32)}),
    "Min": ([node("Neg", "x", "n"), node("Min", "x n c")], {"c": np.array([[-0.5]], np.float32)}),
    "Max of copies": ([node("Max", "x x")], {}),
    "ReduceMax": ([node("ReduceMax", "x a", keepdims=0)], {"a": np.array([2])}),
    "ReduceMax of all": ([node("ReduceMax", "x")], {}),
    "ReduceMin": ([node("ReduceMin", "x a")], {"a": np.array([1, 3])}),
    "GlobalMaxPool": ([node("GlobalMaxPool", "x")], {}),
    "MaxPool": ([node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])], {}),
    "MaxPool overlapping": ([node("MaxPool", "x", kernel_shape=[2, 3], pads=[1, 1, 0, 1])], {}),
    "ThresholdedRelu": ([node("ThresholdedRelu", "x", alpha=0.4)], {}),
    "Shrink": ([node("Shrink", "x", lambd=1.0, bias=0.25)], {}),
    "Shrink without bias": ([node("Shrink", "x", lambd=0.4)], {}),
    "Mod": ([node("Mod", "x d", fmod=1)], {"d": np.array([1.5, -0.7, 2.0, 9.0], np.float32)}),
    "Mod by x": ([node("Clip", "x l", "b"), node("Mod", "d b", fmod=1)], {"l": HALF, "d": RAMP}),
    "Mod of both": (
        [node("Clip", "x l", "b"), node("Add", "x d", "a"), node("Mod", "a b", fmod=1)],
        {"l": HALF, "d": RAMP},
    ),
    "Range": ([*SUM, node("Add", "s l", "end"), node("Range", "s end d")], {"l": np.float32(3.5), "d": ONE}),
    "Range by x": (
        [*SUM, node("Clip", "s d", "by"), node("Mul", "by l", "end"), node("Range", "z end by")],
        {"l": np.float32(3.5), "d": ONE, "z": np.float32(0)},
    ),
    "Range between": (
        [
            *SUM,
            node("Clip", "s d", "by"),
            node("Mul", "by l", "far"),
            node("Add", "far s", "end"),
            node("Range", "s end by"),
        ],
        {"l": np.float32(3.5), "d": ONE},
    ),
    "ReduceL1": ([node("ReduceL1", "x a", keepdims=0)], {"a": np.array([-1])}),
    "LpPool": ([node("LpPool", "x", p=1, kernel_shape=[2, 2], pads=[0, 1, 1, 0])], {}),
    "GlobalLpPool": ([node("GlobalLpPool", "x", p=1)], {}),
    "LpPool of squares": (
        [node("Add", "x d", "p"), node("LpPool", "p", kernel_shape=[2, 2], pads=[0, 1, 1, 0])],
        {"d": SIDES},
    ),
    "GlobalLpPool of cubes": ([node("Add", "x d", "p"), node("GlobalLpPool", "p", p=3)], {"d": SIDES}),
    "TopK": ([helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=3)], {"k": np.array([3])}),
    "TopK smallest": (
        [helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=2, largest=0)],
        {"k": np.array([1])},
    ),
    "Unique": ([node("Add", "x d", "s"), node("Unique", "s")], {"d": 30 * RAMP}),
    "Unique slices": ([node("Add", "x d", "s"), node("Unique", "s", axis=3, sorted=0)], {"d": 30 * RAMP}),
    "Where": ([*FLAG, node("Where", "f x d")], {"d": RAMP}),
    "Where not": ([*FLAG, node("Not", "f", "g"), node("Where", "g d x")], {"d": RAMP}),
    "Where of both": ([*FLAG, node("Neg", "x", "m"), node("Where", "f m x")], {}),
    "Scatter": ([node("Neg", "x", "n"), node("Scatter", "x i n", axis=3)], {"i": INDICES}, 10),
    "ScatterElements": ([node("Neg", "x", "n"), node("ScatterElements", "x i n", axis=3)], {"i": INDICES}),
    "ScatterElements add": (
        [node("ScatterElements", "x i d", axis=3, reduction="add")],
        {"i": INDICES, "d": RAMP},
    ),
    "ScatterElements add to d": (
        [node("ScatterElements", "d i x", axis=3, reduction="add")],
        {"i": INDICES, "d": RAMP},
    ),
    "ScatterElements mul": (
        [node("ScatterElements", "x i d", axis=3, reduction="mul")],
        {"i": INDICES, "d": RAMP},
    ),
    "ScatterElements mul into d": (
        [node("ScatterElements", "d i x", axis=3, reduction="mul")],
        {"i": np.array([3, 0, -2, 1, 1, 2, 0, 3]).reshape(1, 1, 2, 4), "d": RAMP},
    ),
    "ScatterElements max": (
        [node("Neg", "x", "n"), node("ScatterElements", "x i n", axis=3, reduction="max")],
        {"i": INDICES},
    ),
    "ScatterElements min": (
        [node("ScatterElements", "x i d", axis=3, reduction="min")],
        {"i": INDICES, "d": RAMP},
    ),
    "ScatterND": (
        [node("Neg", "x", "n"), node("ScatterND", "x i n", reduction="max")],
        {"i": np.array([[0]])},
    ),
    "Sigmoid": ([node("Sigmoid", "x")], {}),
    "Tanh": ([node("Tanh", "x")], {}),
    "Exp": ([node("Exp", "x")], {}),
    "Log": ([*ABOVE_0, node("Log", "p")], {"l": HALF}),
    "Sqrt": ([*ABOVE_0, node("Sqrt", "p")], {"l": HALF}),
    "Reciprocal": ([*ABOVE_0, node("Reciprocal", "p")], {"l": HALF}),
    "Erf": ([node("Erf", "x")], {}),
    "Softplus": ([node("Softplus", "x")], {}),
    "Sin": ([node("Sin", "x")], {}),
    "Cos": ([node("Cos", "x")], {}),
    "Gelu": ([node("Gelu", "x")], {}, 20),
    "Gelu by tanh": ([node("Gelu", "x", approximate="tanh")], {}, 20),
    "Mul": ([node("Sigmoid", "x", "g"), node("Mul", "x g")], {}),
    "Mul of another shape": ([node("ReduceSum", "x", "s", keepdims=0), node("Mul", "s x")], {}),
    "MaxPool same": ([node("MaxPool", "x", kernel_shape=[2, 2], strides=[1, 2], auto_pad="SAME_UPPER")], {}),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_every_rule_that_looks_at_x_explains_itself(name):
    nodes, parameters, *opset = OPERATORS[name]
    points = [
        SMALL,
        SMALL[::-1],
        RANDOM.permutation(SMALL),
        np.zeros(8),
        np.ones(8),
        np.repeat(SMALL[::2], 2),
    ]
    model = model_of(nodes, [1, 1, 2, 4], parameters, opset=opset[0] if opset else 18)
    check(model, [p.astype(np.float32).reshape(1, 1, 2, 4) for p in points])


# Rules of ONNX's own domain whose choices no graph computes so far.
UNEXPLAINED = {
    "DynamicQuantizeLinear",
    "MaxRoiPool",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "RoiAlign",
}


def test_no_piecewise_linear_rule_is_left_out():
    looking = {key for key, entry in REGISTRY.items() if entry.kind is Kind.PIECEWISE_LINEAR}
    assert {op for domain, op in looking - set(EXPLANATIONS) if not domain} == UNEXPLAINED
    assert {op for _, op in EXPLANATIONS} <= {name.split()[0] for name in OPERATORS}


@pytest.mark.parametrize("rows", ["all", [3, 0, 3], 2])
def test_digits(rows):
    several = np.load(DIGITS / "several.npy")
    check(DIGITS / "model.onnx", [point[None] if point.ndim == 3 else point for point in several[:4]], rows)


def convolutional():
    parameters = {
        "w1": weights(6, 2, 3, 3),
        "b1": weights(6, 1).ravel(),
        "w2": weights(5, 6, 3, 3),
        "b2": weights(5, 1).ravel(),
        "w3": weights(20, 7),
        "b3": weights(7, 1).ravel(),
    }
    nodes = [
        node("Conv", "x w1 b1", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("MaxPool", "b", "c", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", "c w2 b2", "d", pads=[1, 1, 1, 1]),
        node("Relu", "d", "e"),
        node("MaxPool", "e", "f", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "f", "g"),
        node("Gemm", "g w3 b3"),
    ]
    return model_of(nodes, [1, 2, 8, 8], parameters)


def points_with_ties(*shape):
    flat = RANDOM.standard_normal(shape).astype(np.float32)
    return [
        flat,
        RANDOM.standard_normal(shape).astype(np.float32),
        np.round(flat),
        np.zeros(shape, np.float32),
    ]


@pytest.mark.parametrize("rows", ["all", 3])
def test_pooled_convolutions_and_ties(rows):
    check(convolutional(), points_with_ties(1, 2, 8, 8), rows)


def test_residual():
    parameters = {"w0": weights(4, 2, 3, 3), "w1": weights(4, 4, 3, 3), "w2": weights(4, 2, 1, 1)}
    nodes = [
        node("Conv", "x w0", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "a", "b"),
        node("Conv", "b w1", "c", pads=[1, 1, 1, 1]),
        node("Conv", "x w2", "d", strides=[2, 2]),
        node("Add", "c d", "e"),
        node("Relu", "e", "f"),
        node("GlobalAveragePool", "f"),
    ]
    check(model_of(nodes, [1, 2, 7, 7], parameters), points_with_ties(1, 2, 7, 7))


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_older_and_newer_operator_sets(opset):
    nodes = [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("Gemm", "r v c")]
    parameters = {
        "w": weights(4, 6),
        "b": weights(6, 1).ravel(),
        "v": weights(6, 3),
        "c": weights(3, 1).ravel(),
    }
    check(model_of(nodes, [1, 4], parameters, opset=opset), points_with_ties(1, 4))


def test_an_offset_is_not_what_is_left_over():
    """b is the model's own parameters: it is exact where y - W x would be lost to rounding."""
    nodes = [node("Relu", "x", "r"), node("Add", "r c")]
    model = model_of(nodes, [1, 2], {"c": np.array([[1e-3, 0.0]], np.float32)})
    x = np.array([[1e8, 1.0]], np.float32)
    _, _, b, _ = run(explainer_of(model, x), x)
    np.testing.assert_array_equal(b, np.array([1e-3, 0.0], np.float32))


def test_names_that_are_taken():
    nodes = [node("MatMul", "x W", "b"), node("Relu", "b", "ilin/relu_1"), node("Neg", "ilin/relu_1", "rows")]
    model = model_of(nodes, [1, 3], {"W": weights(3, 2)}, ["rows"])
    x = weights(1, 3)
    explainer = explainer_of(model, x)
    onnx.checker.check_model(explainer, full_check=True)
    names = {entry.key: entry.value for entry in explainer.metadata_props}
    W, b = run(explainer, x, names["ilin.W"], names["ilin.b"])
    affine = ilin.linearize(model, x)
    np.testing.assert_allclose(W, affine.W, atol=1e-6)
    np.testing.assert_allclose(b, affine.b, atol=1e-6)


def test_intermediate_input_and_output():
    x = RANDOM.standard_normal((1, 2, 8, 8)).astype(np.float32)
    model, scope = convolutional(), {"inputs": ["b"], "outputs": ["e"]}
    explainer = explainer_of(model, x, **scope)
    assert {tensor.name for tensor in explainer.graph.initializer}.isdisjoint({"w3", "b3"})
    W, b = run(explainer, x, "W", "b_")  # the model has a tensor named b
    affine = ilin.compile(model, **scope).at(x)
    np.testing.assert_allclose(W, affine.W, atol=1e-5)
    np.testing.assert_allclose(b, affine.b, atol=1e-5)


def test_a_value_that_only_the_point_knows_is_refused():
    nodes = [node("Size", "x", "g"), node("Cast", "g", "f", to=TensorProto.FLOAT), node("Add", "x f")]
    x = np.ones((1, 3), np.float32)
    with pytest.raises(
        ilin.UnsupportedError, match=r"node 'Add to y' \(Add, .*cannot explain itself.*@explains"
    ):
        explainer_of(model_of(nodes, [1, 3]), x)


def test_a_smooth_operator_without_slopes_in_the_graph_is_refused_by_name():
    x = np.ones((1, 3), np.float32)
    message = r"node 'Softmax to y' \(Softmax, .* it is smooth, .*those of Cos, .*Tanh are\)"
    with pytest.raises(ilin.UnsupportedError, match=message):
        explainer_of(model_of([node("Softmax", "x")], [1, 3]), x)


def test_a_gate_is_held_in_an_explainer_too(tmp_path):
    model = model_of([node("Gelu", "x")], [1, 8], opset=20)
    x = SMALL[None]
    ilin.compile(model, mode="frozen").export_explainer(tmp_path / "explainer.onnx", x=x[:, ::-1].copy())
    W, b = run(onnx.load(tmp_path / "explainer.onnx"), x, "W", "b")
    np.testing.assert_allclose(W, ilin.linearize(model, x, mode="frozen").W, atol=1e-6)
    np.testing.assert_array_equal(b, 0)


def test_a_frozen_product_is_refused_in_an_explainer(tmp_path):
    model = model_of([node("Sigmoid", "x", "g"), node("Mul", "x g")], [1, 8])
    with pytest.raises(ilin.UnsupportedError, match="export in mode 'tangent'"):
        ilin.compile(model, mode="frozen").export_explainer(tmp_path / "explainer.onnx", x=SMALL[None])


def test_runs_without_ilin(tmp_path):
    model, x = convolutional(), RANDOM.standard_normal((1, 2, 8, 8)).astype(np.float32)
    onnx.save(explainer_of(model, np.zeros_like(x)), tmp_path / "explainer.onnx")
    np.save(tmp_path / "x.npy", x)
    program = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession("explainer.onnx", providers=["CPUExecutionProvider"])
y, W, b, rows = session.run(None, {"x": numpy.load("x.npy")})
numpy.savez("found.npz", y=y, W=W, b=b)
assert not any(name.split(".")[0] == "ilin" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    found, affine = np.load(tmp_path / "found.npz"), ilin.linearize(model, x, engine="sparse")
    np.testing.assert_allclose(found["W"], affine.W, atol=1e-5)
    np.testing.assert_allclose(found["b"], affine.b, atol=1e-5)
    np.testing.assert_allclose(found["y"], affine.y, atol=1e-5)
