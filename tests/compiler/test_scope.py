"""What is lowered and what is refused, before anything runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_function, make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import ilin
from ilin.compiler.graph import load
from ilin.compiler.scope import scope_of
from ilin.ops import REGISTRY

FLOAT = TensorProto.FLOAT


def model(nodes, weights=(), opsets=(("", 17),), functions=(), x=(1, 4), y=(1, 4), check=True):
    graph = make_graph(
        nodes,
        "net",
        [make_tensor_value_info("x", FLOAT, list(x))],
        [make_tensor_value_info("y", FLOAT, list(y))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(weights).items()],
    )
    imports = [make_opsetid(domain, version) for domain, version in opsets]
    proto = make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)
    if check:
        onnx.checker.check_model(proto)
    return proto


def test_constant_subgraphs_are_evaluated_and_never_lowered():
    proto = model(
        [
            make_node("ConstantOfShape", ["s"], ["ones"], value=numpy_helper.from_array(np.float32([1]))),
            make_node("Mul", ["ones", "two"], ["w"]),
            make_node("MatMul", ["x", "w"], ["y"]),
        ],
        {"s": np.int64([4, 4]), "two": np.float32(2)},
    )
    scope = scope_of(load(proto), None, None)
    assert [node.op_type for node in scope.nodes] == ["MatMul"]
    np.testing.assert_array_equal(scope.constants["w"], np.full((4, 4), 2))
    assert "w" not in scope.observed
    np.testing.assert_array_equal(ilin.linearize(proto, np.ones((1, 4))).W, np.full((4, 4), 2))


def test_shape_arithmetic_is_held():
    proto = model(
        [
            make_node("Shape", ["x"], ["s"]),
            make_node("Gather", ["s", "zero"], ["n"]),
            make_node("Concat", ["n", "rest"], ["target"], axis=0),
            make_node("Reshape", ["x", "target"], ["y"]),
        ],
        {"zero": np.int64([0]), "rest": np.int64([2, 2])},
        y=(1, 2, 2),
    )
    affine = ilin.linearize(proto, np.arange(4, dtype=np.float32)[None])
    np.testing.assert_array_equal(affine.W, np.eye(4))
    assert affine.kind == "affine"


def test_nodes_out_of_order_are_sorted():
    proto = model([make_node("Relu", ["a"], ["y"]), make_node("Neg", ["x"], ["a"])], check=False)
    assert [node.op_type for node in load(proto).nodes] == ["Neg", "Relu"]
    assert [node.op_type for node in proto.graph.node] == ["Relu", "Neg"]  # the given model is not changed


def test_a_cycle_is_refused():
    proto = model([make_node("Add", ["x", "y"], ["a"]), make_node("Neg", ["a"], ["y"])], check=False)
    with pytest.raises(ilin.ModelError, match="cycle"):
        load(proto)


def test_local_functions_are_inlined():
    body = [make_node("Relu", ["a"], ["b"]), make_node("Neg", ["b"], ["c"])]
    function = make_function("local", "NegRelu", ["a"], ["c"], body, [make_opsetid("", 17)])
    proto = model(
        [
            make_node("NegRelu", ["x"], ["t"], domain="local"),
            make_node("NegRelu", ["t"], ["y"], domain="local"),
        ],
        opsets=(("", 17), ("local", 1)),
        functions=[function],
    )
    assert [node.op_type for node in load(proto).nodes] == ["Relu", "Neg", "Relu", "Neg"]
    x = np.float32([[1, -1, 2, -2]])
    affine = ilin.linearize(proto, x)
    assert affine.certificate.verified
    np.testing.assert_array_equal(affine(x), affine.y)


@pytest.fixture
def without_erf(monkeypatch):
    """As if nobody had written the rule of Erf, which onnxruntime runs and ONNX has no function body for."""
    monkeypatch.delitem(REGISTRY, ("", "Erf"))


@pytest.mark.usefixtures("without_erf")
def test_an_operator_without_a_rule_is_named_with_a_remedy():
    proto = model(
        [make_node("Relu", ["x"], ["a"]), make_node("Erf", ["a"], ["y"], name="the_erf")], x=(2, 2), y=(2, 2)
    )
    with pytest.raises(ilin.UnsupportedError) as error:
        ilin.compile(proto)
    text = str(error.value)
    assert text.startswith("node 'the_erf' (Erf, ai.onnx opset 17): no rule for this operator; ")
    assert (
        "name a tensor before it in outputs (it reads 'a'), or write its rule (docs/custom-operators.md)"
        in text
    )
    assert error.value.exit_code == 3
    assert ilin.linearize(proto, np.ones((2, 2)), outputs=["a"]).certificate.verified


@pytest.mark.usefixtures("without_erf")
def test_an_unsupported_node_that_no_output_needs_is_no_obstacle():
    nodes = [make_node("Erf", ["x"], ["unused"]), make_node("Relu", ["x"], ["y"])]
    assert ilin.linearize(model(nodes, x=(2, 2), y=(2, 2)), np.ones((2, 2))).certificate.verified


@pytest.mark.usefixtures("without_erf")
def test_an_operator_without_a_rule_is_fine_where_it_does_not_depend_on_x():
    nodes = [make_node("Erf", ["m"], ["d"]), make_node("Mul", ["x", "d"], ["y"])]
    affine = ilin.linearize(model(nodes, {"m": np.float32(9)}), np.ones((1, 4)))
    np.testing.assert_array_equal(affine.W, np.eye(4))  # erf(9) is 1 in float32


@pytest.fixture
def without_tangents(monkeypatch):
    """The rules of Mul and Div as if they took no uses but linear ones."""
    for op_type in ("Mul", "Div"):
        monkeypatch.setitem(REGISTRY, ("", op_type), replace(REGISTRY["", op_type], tangent=False))


@pytest.mark.usefixtures("without_tangents")
def test_a_product_of_two_active_values_is_refused_with_both_names():
    nodes = [make_node("Relu", ["x"], ["a"]), make_node("Mul", ["a", "x"], ["y"], name="gate")]
    with pytest.raises(ilin.UnsupportedError) as error:
        ilin.compile(model(nodes))
    assert str(error.value) == (
        "node 'gate' (Mul, ai.onnx opset 17): multiplies two values that both depend on x ('a' and 'x'), "
        "which is not affine; name one of them in inputs, or a tensor before this node in outputs"
    )


@pytest.mark.usefixtures("without_tangents")
def test_a_parameter_that_depends_on_x_is_refused():
    proto = model([make_node("Div", ["one", "x"], ["y"])], {"one": np.float32(1)})
    with pytest.raises(ilin.UnsupportedError, match="its parameter 'x' depends on x"):
        ilin.compile(proto)


def test_random_nodes_are_refused():
    nodes = [make_node("RandomNormalLike", ["x"], ["noise"]), make_node("Add", ["x", "noise"], ["y"])]
    with pytest.raises(ilin.UnsupportedError, match="draws random numbers"):
        ilin.compile(model(nodes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ["relu"]}, r"unknown name in outputs: 'relu'; did you mean 'relu1'\?"),
        ({"inputs": ["image"]}, r"unknown name in inputs: 'image'; the model declares x"),
        ({"inputs": ["w"]}, "'w' in inputs is a parameter of the model"),
        ({"inputs": []}, "no name given in inputs"),
    ],
)
def test_names_that_the_graph_does_not_have(options, message):
    proto = model(
        [make_node("MatMul", ["x", "w"], ["relu1"]), make_node("Relu", ["relu1"], ["y"])],
        {"w": np.eye(4, dtype=np.float32)},
    )
    with pytest.raises(ilin.UnknownTensorError, match=message):
        ilin.compile(proto, **options)


def test_an_input_behind_the_outputs_is_said_to_be_one():
    nodes = [make_node("Relu", ["x"], ["hidden"]), make_node("Neg", ["hidden"], ["y"])]
    affine = ilin.compile(model(nodes), inputs=["y"], outputs=["hidden"]).at(
        {"x": np.ones((1, 4), np.float32)}
    )
    assert affine.W.nnz == 0 if hasattr(affine.W, "nnz") else not affine.W.any()
    assert affine.notes[0] == "W = 0, as the model does not compute 'hidden' from 'y'"


def test_a_model_without_a_floating_output_is_refused():
    graph = make_graph(
        [make_node("ArgMax", ["x"], ["label"])],
        "net",
        [make_tensor_value_info("x", FLOAT, [1, 4])],
        [make_tensor_value_info("label", TensorProto.INT64, [1, 4])],
    )
    with pytest.raises(ilin.UnsupportedError, match=r"no floating-point outputs .* label int64\[1×4\]"):
        ilin.compile(make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8))
