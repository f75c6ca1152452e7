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


CURVES = {  # in float64, with onnxruntime's parameters
    "Sigmoid": (lambda z: 1 / (1 + np.exp(-z)), []),
    "Tanh": (np.tanh, []),
    "HardSwish": (lambda z: z * np.clip(z / 6 + 0.5, 0, 1), []),
    "Elu": (lambda z: np.where(z > 0, z, 0.5 * np.expm1(z)), [0.5]),
    "Celu": (lambda z: np.where(z > 0, z, 2 * np.expm1(z / 2)), [2.0]),
    "Selu": (lambda z: 1.5 * np.where(z > 0, z, 2 * np.expm1(z)), [2.0, 1.5]),
    "Softplus": (lambda z: np.log1p(np.exp(z)), []),
    "Softsign": (lambda z: z / (1 + np.abs(z)), []),
}


def assert_slope(affine, f, x, step=1e-6):
    """W is the matrix of differences of a float64 function of the flat x."""
    assert affine.certificate.verified, str(affine.certificate)
    columns = [(f(x + d) - f(x - d)) / (2 * step) for d in step * np.eye(x.size)]
    np.testing.assert_allclose(affine.W, np.stack(columns, axis=1), atol=2e-6)


def sums_of(op_type, x, held, **attributes):
    """z of a node without its activation, as a float64 function of the flat x: it is affine."""
    plain = one_node(op_type, x, held, 17, order=[*x, *held], **attributes)
    affine = ilin.linearize(plain, dict(x), dtype="float64")
    return lambda flat: affine.W @ flat + affine.b


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh", "HardSwish"])
def test_a_convolution_with_a_smooth_activation(activation):
    f, _ = CURVES[activation]
    x, held = {"x": array(1, 2, 4, 3)}, {"w": array(3, 2, 2, 2), "b": array(3)}
    z = sums_of("Conv", x, held, pads=[1, 0, 0, 1])
    fused = {"activation": activation, "pads": [1, 0, 0, 1], "domain": MICROSOFT}
    model = one_node("FusedConv", x, held, 17, **fused)
    affine = ilin.linearize(model, x, dtype="float64")
    assert affine.kind == "smooth"
    assert_slope(affine, lambda flat: f(z(flat)), x["x"].ravel().astype(float))
    added = array(1, 3, 4, 3)
    model = one_node("FusedConv", x, {**held, "s": added}, 17, **fused)
    affine = ilin.linearize(model, x, dtype="float64")
    assert_slope(affine, lambda flat: f(z(flat) + added.ravel()), x["x"].ravel().astype(float))
    assert ilin.linearize(model, x, mode="frozen").certificate.verified


@pytest.mark.parametrize("activation", [name for name in CURVES if name != "HardSwish"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gemm_with_a_smooth_activation(activation, dtype):
    f, parameters = CURVES[activation]
    x, held = {"a": array(2, 4)}, {"b": array(4, 3), "c": array(3)}
    names = ("alpha", "gamma") if activation == "Selu" else ("alpha",)
    attributes = {f"activation_{n}": v for n, v in zip(names, parameters, strict=False)}
    model = one_node(
        "FusedGemm", x, held, 17, domain=MICROSOFT, activation=activation, alpha=0.5, **attributes
    )
    z = sums_of("Gemm", x, held, alpha=0.5)
    affine = ilin.linearize(model, x, dtype=dtype)
    assert_slope(affine, lambda flat: f(z(flat)), x["a"].ravel().astype(float))


def test_what_is_positive_is_straight_behind_a_gemm_too():
    x = {"a": np.abs(array(2, 4))}
    elu = {"activation": "Elu", "activation_alpha": 1.0}
    model = one_node("FusedGemm", x, {"b": np.abs(array(4, 3))}, 17, domain=MICROSOFT, **elu)
    affine = ilin.linearize(model, x)
    assert affine.kind == "piecewise-linear"
    assert affine.certificate.points_held == 1


def gated(activation):
    """u f(u): a convolution, its gate and its residual, spelled out."""
    nodes = [
        node("Conv", ["x", "w"], ["u"], pads=[1] * 4),
        node(activation, ["u"], ["g"]),
        node("Mul", ["u", "g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
        [numpy_helper.from_array(array(2, 2, 3, 3), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def fused_gate(activation):
    """The same with the gate inside of a convolution of its own."""
    model = gated(activation)
    fused = node("FusedConv", ["x", "w"], ["g"], domain=MICROSOFT, activation=activation, pads=[1] * 4)
    model.graph.node[1].CopyFrom(fused)
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh"])
def test_a_gate_inside_of_a_convolution_is_held_in_frozen_mode(activation):
    x = array(1, 2, 4, 4)
    plain, fused = (ilin.linearize(make(activation), x, mode="frozen") for make in (gated, fused_gate))
    np.testing.assert_allclose(fused.W, plain.W, atol=1e-6)
    np.testing.assert_array_equal(fused.b, 0)
    assert fused.certificate.verified


def test_an_unknown_activation_is_refused():
    x, scaled = {"a": array(2, 4)}, {"activation_alpha": 1.0, "activation_beta": 1.0}
    model = one_node(
        "FusedGemm", x, {"b": array(4, 3)}, 17, domain=MICROSOFT, activation="ScaledTanh", **scaled
    )
    with pytest.raises(ilin.UnsupportedError, match=r"no rule takes its activation 'ScaledTanh'.*ORT_ENABLE"):
        ilin.linearize(model, x)


CAUSAL = {"x": array(2, 3, 5), "w": array(3, 1, 3), "b": array(3), "past": array(2, 3, 2)}


def causal_model(given, active, domain, **attributes):
    """One node with both of its outputs, the state unused."""
    return helper.make_model(
        helper.make_graph(
            [node("CausalConvWithState", list(given), ["y", "present"], domain=domain, **attributes)],
            "net",
            [helper.make_tensor_value_info(active, TensorProto.FLOAT, given[active].shape)],
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, given["x"].shape),
                helper.make_tensor_value_info("present", TensorProto.FLOAT, given["past"].shape),
            ],
            [numpy_helper.from_array(value, name) for name, value in given.items() if name != active],
        ),
        opset_imports=[helper.make_opsetid("", 27), helper.make_opsetid(MICROSOFT, 1)],
        ir_version=10,
    )


def causal(x, w, b, past, dilation=1, activation="none"):
    """Both outputs by their formulas, in float64, flat."""
    joined, length = np.concatenate([past, x], axis=2), x.shape[2]
    z = b[:, None] + sum(
        w[:, 0, [tap]] * joined[..., tap * dilation : tap * dilation + length] for tap in range(w.shape[2])
    )
    y = z if activation == "none" else z / (1 + np.exp(-z))
    return np.concatenate([y.ravel(), joined[..., length:].ravel()])


@pytest.mark.parametrize("domain", ["", MICROSOFT])
@pytest.mark.parametrize("activation", ["none", "silu", "swish"])
@pytest.mark.parametrize("active", ["x", "w", "past"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_causal_convolution(domain, activation, active, dilation):
    if dilation > 1 and not domain:
        pytest.skip("ONNX's own has no dilation")
    given = {**CAUSAL, "past": array(2, 3, 2 * dilation)}
    wide = {"dilation": dilation} if domain else {}
    model = causal_model(given, active, domain, activation=activation, **wide)
    exact = {name: value.astype(float) for name, value in given.items()}

    def f(flat):
        moved = {**exact, active: flat.reshape(given[active].shape)}
        return causal(**moved, dilation=dilation, activation=activation)

    affine = ilin.linearize(model, given[active], dtype="float64")
    assert_slope(affine, f, exact[active].ravel())
    assert affine.kind == ("affine" if activation == "none" else "smooth")
    frozen = ilin.linearize(model, given[active], mode="frozen")
    assert frozen.certificate.verified


def test_a_causal_convolution_of_another_layout_is_refused():
    given = {"x": array(1, 3, 3), "w": array(3, 1, 3), "b": array(3), "past": array(1, 2, 3)}
    model = causal_model(given, "x", MICROSOFT, channels_last=1)
    with pytest.raises(ilin.UnsupportedError, match="its channels_last is not lowered"):
        ilin.linearize(model, given["x"])


def test_an_explainer_refuses_a_fused_activation(tmp_path):
    x = {"x": array(1, 2, 4, 3)}
    model = one_node("FusedConv", x, {"w": array(3, 2, 2, 2)}, 21, domain=MICROSOFT, activation="Relu")
    with pytest.raises(ilin.UnsupportedError, match=r"\(FusedConv, com.microsoft opset 1\) cannot explain"):
        ilin.compile(model).export_explainer(tmp_path / "explainer.onnx", x=x)
