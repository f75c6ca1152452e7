"""RNN, GRU and LSTM written out, against onnxruntime's own kernels, option by option."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import ilin
from ilin.expansions import EXPANSIONS, Composite, Facts, Names, Tensor

T, B, IN, H = 4, 3, 2, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def recurrent(op_type, *, left_out=(), lengths=None, opset=17, dtype=np.float32, **attributes):
    """A model of one node with random parameters, and its x."""
    random = np.random.default_rng(len(attributes) + sum(map(len, attributes)))
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    gates, batch_first = GATES[op_type], attributes.get("layout", 0)

    def some(*shape):
        return (0.4 * random.standard_normal(shape)).astype(dtype)

    def state():
        return some(B, directions, H) if batch_first else some(directions, B, H)

    arrays = {
        "W": some(directions, gates * H, IN),
        "R": some(directions, gates * H, H),
        "B": some(directions, 2 * gates * H),
        "lengths": None if lengths is None else np.array(lengths, np.int32),
        "initial_h": state(),
    }
    if op_type == "LSTM":
        arrays |= {"initial_c": state(), "P": some(directions, 3 * H)}
    arrays = {name: value for name, value in arrays.items() if value is not None and name not in left_out}
    names = ["x", "W", "R", "B", "lengths", "initial_h", "initial_c", "P"][: 8 if op_type == "LSTM" else 6]
    inputs = [name if name == "x" or name in arrays else "" for name in names]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op_type == "LSTM" else 2]
    node = helper.make_node(op_type, inputs, outputs, "recurrent", hidden_size=H, **attributes)
    x = some(B, T, IN) if batch_first else some(T, B, IN)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [node],
        "recurrent",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [
            helper.make_tensor_value_info(name, element, [None] * (4 if name == "Y" else 3))
            for name in outputs
        ],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), x


def written_out(model, x):
    """The same model with its node written out."""
    (node,) = model.graph.node
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = {4: held["lengths"]} if "lengths" in held else {}
    facts = Facts(values, {0: x.shape, 2: held["R"].shape})
    element = model.graph.input[0].type.tensor_type.elem_type
    types = {"x": Tensor(element, x.shape)}
    site = Composite(node, model.opset_import[0].version, facts, Names(set()), types, {})
    assert site.finish(EXPANSIONS["", node.op_type].expand(site)) == {}
    flat = onnx.ModelProto()
    flat.CopyFrom(model)
    del flat.graph.node[:]
    flat.graph.node.extend(site.nodes)
    flat.graph.initializer.extend(site.initializers)
    return flat


def run(model, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def agree(model, x, tolerance=2e-6):
    for ours, theirs in zip(run(written_out(model, x), x), run(model, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1, np.abs(theirs).max()))


OPTIONS = list(
    itertools.product(
        ("forward", "reverse", "bidirectional"),
        (None, [4, 2, 3]),  # lengths
        ((), ("B",), ("initial_h", "initial_c", "P")),  # left out
    )
)


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize(("direction", "lengths", "left_out"), OPTIONS)
def test_directions_lengths_and_inputs_left_out(op_type, direction, lengths, left_out):
    agree(*recurrent(op_type, direction=direction, lengths=lengths, left_out=left_out))


PLAIN = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")
WITH_PARAMETERS = ("LeakyRelu", "ThresholdedRelu", "Elu", "HardSigmoid", "Affine", "ScaledTanh")


@pytest.mark.parametrize("activation", [*PLAIN, *WITH_PARAMETERS])
@pytest.mark.parametrize("op_type", GATES)
def test_activations_with_their_parameters(op_type, activation):
    count = len(ACTIVATIONS[op_type])
    given = {"activations": [activation] * count}
    if activation in WITH_PARAMETERS:
        given["activation_alpha"] = [0.3, 0.4, 0.25][:count]
    if activation in ("HardSigmoid", "Affine", "ScaledTanh"):
        given["activation_beta"] = [0.6, 0.45, 0.7][:count]
    agree(*recurrent(op_type, **given))


@pytest.mark.parametrize("activation", WITH_PARAMETERS)
def test_activations_with_default_parameters(activation):
    agree(*recurrent("RNN", activations=[activation]))


def test_parameters_are_handed_out_in_order():
    activations = ["LeakyRelu", "Tanh", "Affine", "HardSigmoid", "Relu", "Elu"]
    given = {"activation_alpha": [0.1, 0.5, 0.3, 0.7], "activation_beta": [0.2, 0.4]}
    agree(*recurrent("LSTM", direction="bidirectional", activations=activations, **given))


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_clip(op_type, direction):
    agree(*recurrent(op_type, clip=0.4, direction=direction))


@pytest.mark.parametrize("left_out", [(), ("B",)])
@pytest.mark.parametrize("lengths", [None, [1, 4, 2]])
def test_gru_linear_before_reset(left_out, lengths):
    agree(
        *recurrent(
            "GRU", linear_before_reset=1, direction="bidirectional", left_out=left_out, lengths=lengths
        )
    )


@pytest.mark.parametrize("left_out", [(), ("P",)])
def test_lstm_input_forget(left_out):
    agree(*recurrent("LSTM", input_forget=1, left_out=left_out))


@pytest.mark.parametrize("opset", [7, 11, 14, 22])
@pytest.mark.parametrize("op_type", GATES)
def test_opsets(op_type, opset):
    agree(*recurrent(op_type, opset=opset, clip=0.9, direction="bidirectional", lengths=[2, 4, 1]))


@pytest.mark.parametrize("op_type", GATES)
def test_float64(op_type):
    model, x = recurrent(op_type, dtype=np.float64)
    theirs = ReferenceEvaluator(model).run(None, {"x": x})
    for ours, expected in zip(run(written_out(model, x), x), theirs, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("op_type", GATES)
def test_batch_first_is_the_same_transposed(op_type):
    """onnxruntime does not run layout 1: the same node with its axes moved stands for it."""
    model, x = recurrent(op_type, layout=1)
    flat = run(written_out(model, x), x)
    other = onnx.ModelProto()
    other.CopyFrom(model)
    kept = [attribute for attribute in model.graph.node[0].attribute if attribute.name != "layout"]
    del other.graph.node[0].attribute[:]
    other.graph.node[0].attribute.extend(kept)
    for tensor in other.graph.initializer:
        if tensor.name.startswith("initial"):
            value = numpy_helper.to_array(tensor).swapaxes(0, 1)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    moved = np.ascontiguousarray(x.swapaxes(0, 1))
    del other.graph.input[0].type.tensor_type.shape.dim[:]
    for size in moved.shape:
        other.graph.input[0].type.tensor_type.shape.dim.add(dim_value=size)
    Y, *ends = run(other, moved)
    np.testing.assert_allclose(flat[0], Y.transpose(2, 0, 1, 3), rtol=0, atol=2e-6)
    for ours, theirs in zip(flat[1:], ends, strict=True):
        np.testing.assert_allclose(ours, theirs.swapaxes(0, 1), rtol=0, atol=2e-6)


def test_an_unknown_activation_is_refused():
    model, x = recurrent("RNN")
    model.graph.node[0].attribute.append(helper.make_attribute("activations", ["Gelu"]))
    with pytest.raises(
        Exception, match=r"node 'recurrent' \(RNN.*unknown activation 'Gelu'; known are Affine"
    ):
        written_out(model, x)


def test_relu_networks_are_exact_on_their_region():
    """W against differences of onnx's reference evaluator in float64, where no unit is near its kink."""
    options = {"activations": ["Relu", "LeakyRelu"], "direction": "bidirectional", "lengths": [4, 2, 3]}
    model, x = recurrent("RNN", **options)
    affine = ilin.compile(model, dtype="float64").at(x)
    assert affine.kind == "piecewise-linear"
    assert affine.certificate.verified, affine.certificate
    assert affine.certificate.points_held == 1
    wide, _ = recurrent("RNN", dtype=np.float64, **options)
    by_name = {tensor.name: tensor for tensor in model.graph.initializer}
    for tensor in wide.graph.initializer:
        value = numpy_helper.to_array(by_name[tensor.name])
        wider = value.astype(np.float64) if value.dtype == np.float32 else value
        tensor.CopyFrom(numpy_helper.from_array(wider, tensor.name))

    def function(flat):
        return np.concatenate([np.ravel(y) for y in run(written_out(wide, x), flat.reshape(x.shape))])

    columns = []
    for step in 1e-6 * np.eye(x.size):
        at = x.astype(np.float64).ravel()
        columns.append((function(at + step) - function(at - step)) / 2e-6)
    np.testing.assert_allclose(affine.W, np.stack(columns, 1), rtol=0, atol=1e-6)


def test_lengths_that_are_an_input_are_held():
    model, x = recurrent("RNN", activations=["Relu"], lengths=[4, 4, 4])
    (lengths,) = [tensor for tensor in model.graph.initializer if tensor.name == "lengths"]
    model.graph.initializer.remove(lengths)
    model.graph.input.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, [B]))
    compiled = ilin.compile(model, inputs=["x"])
    for held in ([4, 4, 4], [4, 2, 3], [4, 4, 4]):
        affine = compiled.at({"x": x, "lengths": np.array(held, np.int32)})
        assert affine.certificate.verified, affine.certificate
        assert affine.kind == "piecewise-linear"
        used = np.abs(affine.W).sum(0).reshape(x.shape).sum(-1) > 0  # (steps, batch)
        assert used.sum(0).tolist() == held


def test_an_expansion_that_computes_something_else_is_found_out(monkeypatch):
    right = EXPANSIONS["", "RNN"]

    def wrong(site):
        site.inputs = (*site.inputs[:3], "", *site.inputs[4:])  # without biases
        return right.expand(site)

    monkeypatch.setitem(EXPANSIONS, ("", "RNN"), replace(right, expand=wrong))
    model, x = recurrent("RNN", activations=["Relu"])
    certificate = ilin.linearize(model, x).certificate
    assert not certificate.verified
    assert certificate.reason == "written out in simpler nodes, the model's output 'Y' is another one"
