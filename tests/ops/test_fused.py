"""Models as onnxruntime's optimiser saves them: the same maps as the models they were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin

from ..programs import program_at
from .one_node import assert_same, one_node

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
MICROSOFT = "com.microsoft"
node = helper.make_node


def optimised(model: onnx.ModelProto, path: Path, level: str) -> onnx.ModelProto:
    """What onnxruntime saves at a level."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(path / f"{level}.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def array(*shape, dtype=np.float32, seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def convolutional() -> onnx.ModelProto:
    """Convolutions with every activation that is fused, a residual sum, and dense layers."""
    weights = {
        "w1": array(8, 3, 3, 3),
        "b1": array(8),
        "w2": array(8, 8, 3, 3) / 8,
        "b2": array(8),
        "w3": array(16, 8, 3, 3) / 8,
        "w4": array(16, 16, 1, 1),
        "w5": array(4, 16, 1, 1),
        "fc": array(10, 4),
        "fb": array(10),
        "last": array(10, 7),
        "zero": np.float32(0),
        "six": np.float32(6),
        "half": np.float32(0.5),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1] * 4),
        node("Add", ["c2", "r1"], ["a2"]),
        node("Relu", ["a2"], ["r2"]),
        node("MaxPool", ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p2", "w3"], ["c3"], pads=[1] * 4),
        node("Clip", ["c3", "zero", "six"], ["r3"]),
        node("Conv", ["r3", "w4"], ["c4"]),
        node("LeakyRelu", ["c4"], ["r4"], alpha=0.125),
        node("Conv", ["r4", "w5"], ["c5"]),
        node("HardSigmoid", ["c5"], ["r5"], alpha=0.25),
        node("GlobalAveragePool", ["r5"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "fc", "fb"], ["l"], transB=1),
        node("Relu", ["l"], ["lr"]),
        node("Mul", ["lr", "half"], ["h"]),
        node("MatMul", ["h", "last"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


NETWORKS = {
    "convolutional": (convolutional, lambda: array(1, 3, 8, 8, seed=9)),
    "digits": (lambda: onnx.load(DIGITS / "model.onnx"), lambda: np.load(DIGITS / "x.npy")),
}


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_optimised_network_has_the_same_map(name, level, tmp_path):
    make, given = NETWORKS[name]
    model, x = make(), given()
    made = optimised(model, tmp_path, level)
    fused = {each.op_type for each in made.graph.node if each.domain == MICROSOFT}
    if level == "ORT_ENABLE_EXTENDED":
        assert fused >= {"FusedConv", "FusedGemm"}
    for dtype in ("float64", "float32"):
        plain, ours = (ilin.linearize(each, x, dtype=dtype) for each in (model, made))
        scale = np.abs(plain.W).max()
        np.testing.assert_allclose(
            ours.W, plain.W, rtol=0, atol=1e-5 * scale
        )  # weights are folded in float32
        np.testing.assert_allclose(ours.b, plain.b, rtol=0, atol=1e-5 * max(scale, np.abs(plain.b).max()))
        assert ours.certificate.verified, str(ours.certificate)
        assert ours.certificate.points_held == 1
        assert ours.kind == "piecewise-linear"


def test_a_network_for_one_machine_is_refused(tmp_path):
    made = optimised(convolutional(), tmp_path, "ORT_ENABLE_ALL")
    if not any(each.domain == "com.microsoft.nchwc" for each in made.graph.node):
        pytest.skip("onnxruntime has no blocked layout on this machine")
    with pytest.raises(ilin.UnsupportedError, match="save it at ORT_ENABLE_EXTENDED"):
        ilin.compile(made)


ACTIVATIONS = [
    ("Relu", []),
    ("LeakyRelu", [0.3]),
    ("Clip", [-0.25, 0.5]),
    ("Clip", [0.5, -0.25]),
    ("HardSigmoid", [0.5, 0.25]),
    ("HardSigmoid", [-0.5, 0.25]),
    ("HardSigmoid", [0.0, 0.25]),
]


@pytest.mark.parametrize(("activation", "parameters"), ACTIVATIONS)
@pytest.mark.parametrize("active", ["x", "s", "x+s", "b"])
def test_fused_conv(activation, parameters, active):
    given = {"x": array(1, 2, 4, 3), "w": array(3, 2, 2, 2), "b": array(3), "s": array(1, 3, 3, 2)}
    x = {name: given[name] for name in active.split("+")}
    held = {name: value for name, value in given.items() if name not in x}
    attributes = {"activation": activation} | ({"activation_params": parameters} if parameters else {})
    model = one_node("FusedConv", x, held, 17, order=list(given), domain=MICROSOFT, **attributes)
    assert_same(model, x, step=2.0**-10)


@pytest.mark.parametrize(("activation", "parameters"), [each for each in ACTIVATIONS if each[0] != "Clip"])
@pytest.mark.parametrize("active", ["a", "b", "c", "a+c"])
def test_fused_gemm(activation, parameters, active):
    given = {"a": array(4, 2), "b": array(3, 4), "c": array(3)}
    x = {name: given[name] for name in active.split("+")}
    held = {name: value for name, value in given.items() if name not in x}
    names = dict(zip(("activation_alpha", "activation_beta"), parameters, strict=False))
    model = one_node(
        "FusedGemm",
        x,
        held,
        17,
        order=list(given),
        domain=MICROSOFT,
        activation=activation,
        alpha=0.5,
        beta=2.0,
        transA=1,
        transB=1,
        **names,
    )
    assert_same(model, x, step=2.0**-10)


PRODUCTS = {
    "plain": ((3, 4), (4, 2), {}),
    "transposed": ((2, 4, 3), (2, 2, 4), {"transA": 1, "transB": 1, "alpha": 0.5}),
    "stacks": ((2, 1, 3, 4), (5, 4, 2), {"alpha": -2.0}),
    "vectors": ((4,), (3, 4, 2), {"transA": 1}),
    "batches of A": ((3, 2, 4), (2, 4, 5), {"transBatchA": 1}),
    "batches of B": ((2, 3, 4), (4, 2, 5), {"transBatchB": 1}),
    "everything": ((4, 2, 5, 3), (6, 2, 5, 4), {f"trans{s}": 1 for s in ("A", "B", "BatchA", "BatchB")}),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("active", ["a", "b"])
def test_fused_matmul(name, active):
    left, right, attributes = PRODUCTS[name]
    given = {"a": array(*left), "b": array(*right, seed=4)}
    held = {name: value for name, value in given.items() if name != active}
    x = {active: given[active]}
    assert_same(one_node("FusedMatMul", x, held, 17, order=["a", "b"], domain=MICROSOFT, **attributes), x)


def test_guards_are_those_of_the_activation_by_itself():
    """Choices and margins of FusedConv are those of Conv and Relu; half-spaces give the margins."""
    x, w, b = array(1, 2, 5, 4), array(3, 2, 2, 2), array(3)
    model = one_node("FusedConv", {"x": x}, {"w": w, "b": b}, 17, domain=MICROSOFT, activation="Relu")
    (step,) = program_at(ilin.compile(model), x).steps
    (guard,) = step.guards
    z = one_node("Conv", {"x": x}, {"w": w, "b": b}, 17)
    sums = ilin.linearize(z, x, dtype="float64")
    expected = (sums.W @ x.ravel() + sums.b).reshape(guard.choice.shape)
    np.testing.assert_array_equal(guard.choice, expected > 0)
    np.testing.assert_allclose(guard.margin, np.abs(expected), atol=1e-5)
    spaces = guard.half_spaces()
    slack = sum(L.apply(x[None])[0] for _, L in spaces.terms) + spaces.offset
    np.testing.assert_allclose(slack, guard.margin, atol=1e-5)


def test_a_smooth_activation_is_refused():
    x = {"x": array(1, 2, 4, 3)}
    model = one_node("FusedConv", x, {"w": array(3, 2, 2, 2)}, 17, domain=MICROSOFT, activation="Tanh")
    with pytest.raises(ilin.UnsupportedError, match=r"activation 'Tanh' is smooth.*ORT_ENABLE_BASIC"):
        ilin.linearize(model, x)


def test_an_explainer_refuses_a_fused_activation(tmp_path):
    x = {"x": array(1, 2, 4, 3)}
    model = one_node("FusedConv", x, {"w": array(3, 2, 2, 2)}, 21, domain=MICROSOFT, activation="Relu")
    with pytest.raises(ilin.UnsupportedError, match=r"\(FusedConv, com.microsoft opset 1\) cannot explain"):
        ilin.compile(model).export_explainer(tmp_path / "explainer.onnx", x=x)
