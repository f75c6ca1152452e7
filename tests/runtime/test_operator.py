"""W as an operator: its products equal those of the explicit matrices' W, and scipy's solvers run on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from scipy.sparse.linalg import lsqr, svds

import ilin
from ilin.compiler.adjoint import emitted
from ilin.runtime.operator import bias_of, carried, operator_of
from ilin.runtime.transpose import tangent, transposed

from ..programs import program_at
from ..properties.builder import Graph
from ..properties.graphs import graphs
from ..properties.test_random_graphs import COMMON

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
RANDOM = np.random.default_rng(11)


def carriers(dtype):
    return [carried, partial(emitted, dtype=np.dtype(dtype))]


def operator_and_map(model, x, dtype, carrier=carried, rows=None, at_once=3, **options):
    """The operator, and the map composed of explicit matrices in float64."""
    compiled = ilin.compile(model, dtype=dtype, **options)
    program = program_at(compiled, x)
    wanted = "all" if rows is None else rows
    rows = np.arange(program.out_size) if rows is None else np.array(rows)
    operator = operator_of(program, rows, dtype, carrier=carrier, at_once=at_once)
    affine = ilin.linearize(model, x, rows=wanted, engine="sparse", dtype="float64", **options)
    return operator, affine, program


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("rows", [None, [9, 0, 4, 0]])
def test_products_with_the_digits_network_in_float32(engine, rows):
    carrier = carriers("float32")[engine == "onnxruntime"]
    x = np.load(DIGITS / "x.npy")
    operator, affine, _ = operator_and_map(DIGITS / "model.onnx", x, "float32", carrier, rows)
    assert operator.shape == affine.W.shape
    assert operator.dtype == np.float32
    assert_same_products(operator, affine.W, 2e-5)


@pytest.mark.parametrize("rows", [None, [9, 0, 4, 0]])
def test_products_with_the_digits_network_in_float64(rows):
    x = np.load(DIGITS / "x.npy")
    operator, affine, _ = operator_and_map(DIGITS / "model.onnx", x, "float64", rows=rows)
    assert operator.dtype == np.float64
    assert_same_products(operator, affine.W, 1e-13)


def assert_same_products(operator, W, tolerance):
    """W V, Wᵀ U, W v, Wᵀ u, blocks that do not divide evenly, and transposed twice."""
    K, N = W.shape
    V, U = RANDOM.standard_normal((N, 7)), RANDOM.standard_normal((K, 5))
    for ours, theirs in [
        (operator @ V, W @ V),
        (operator.T @ U, W.T @ U),
        (operator.rmatmat(U), W.T @ U),
        (operator @ V[:, 0], W @ V[:, 0]),
        (operator.rmatvec(U[:, 0]), W.T @ U[:, 0]),
        (operator.T.T @ V, W @ V),
        (operator @ np.zeros((N, 0)), np.zeros((K, 0))),
    ]:
        assert ours.shape == theirs.shape
        assert ours.dtype == operator.dtype
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=tolerance * max(1, np.abs(theirs).max(initial=0))
        )


def test_the_offset_is_what_the_network_gives_without_its_weights():
    x = np.load(DIGITS / "x.npy")
    _, affine, program = operator_and_map(DIGITS / "model.onnx", x, "float64")
    np.testing.assert_allclose(bias_of(program, affine.rows, "float64"), affine.b, atol=1e-12)
    np.testing.assert_allclose(bias_of(program, affine.rows[[3, 3]], "float64"), affine.b[[3, 3]], atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scipys_solvers_run_on_it(dtype):
    x = np.load(DIGITS / "x.npy")
    operator, affine, _ = operator_and_map(DIGITS / "model.onnx", x, dtype)
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    largest = np.linalg.svd(affine.W)[1][:3]
    np.testing.assert_allclose(sorted(svds(operator, 3)[1])[::-1], largest, rtol=tolerance)
    wanted = np.linalg.pinv(affine.W) @ (affine.y.ravel() - affine.b)
    found = lsqr(operator, affine.y.ravel() - affine.b, atol=tolerance / 10, btol=tolerance / 10)[0]
    np.testing.assert_allclose(found, wanted, atol=10 * tolerance * np.abs(wanted).max())


def test_complex_vectors_are_refused_rather_than_halved():
    x = np.load(DIGITS / "x.npy")
    operator, _, _ = operator_and_map(DIGITS / "model.onnx", x, "float32")
    with pytest.raises(TypeError, match="same_kind"):
        operator @ (1j * x.ravel())


def two_outputs(nodes, inputs, outputs, **weights):
    puts = [
        [make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given.items()]
        for given in (inputs, outputs)
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    proto = make_model(make_graph(nodes, "net", *puts, stored), opset_imports=[make_opsetid("", 17)])
    proto.ir_version = 8
    onnx.checker.check_model(proto)
    return proto


@pytest.mark.parametrize("carrier", carriers("float32"), ids=["numpy", "onnxruntime"])
def test_an_output_that_the_network_reads_on_and_one_that_no_input_reaches(carrier):
    """y = M x is an output and goes on to z = Relu(y) + y; c does not depend on x; w is read by nothing."""
    M = np.array([[1, -2], [3, 1]], np.float32)
    proto = two_outputs(
        [
            make_node("Gemm", ["x", "M"], ["y"], transB=1),
            make_node("Relu", ["y"], ["r"]),
            make_node("Add", ["r", "y"], ["z"]),
            make_node("Mul", ["w", "nothing"], ["c"]),
        ],
        {"x": [1, 2], "w": [1, 2]},
        {"y": [1, 2], "z": [1, 2], "c": [1, 2]},
        M=M,
        nothing=np.array([2, 3], np.float32),
    )
    x = {"x": np.array([[1, 1]], np.float32), "w": np.array([[5, 6]], np.float32)}
    operator, _, _ = operator_and_map(proto, x, "float32", carrier)
    by_hand = np.zeros((6, 4))
    by_hand[:2, :2] = M
    by_hand[2:4, :2] = np.diag([1, 2]) @ M  # y = (-1, 4): the first unit is dead
    by_hand[4:, 2:] = np.diag([2, 3])
    assert_same_products(operator, by_hand, 1e-6)
    operator, _, _ = operator_and_map(proto, x, "float32", carrier, inputs=["x"])
    assert_same_products(operator, by_hand[:, :2], 1e-6)


def test_a_transposed_program_is_a_program_whose_transpose_has_the_same_matrix():
    x = np.load(DIGITS / "x.npy")
    _, affine, program = operator_and_map(DIGITS / "model.onnx", x, "float64")
    twice = transposed(transposed(program))
    operator = operator_of(twice, affine.rows, "float64")
    assert_same_products(operator, affine.W, 1e-13)
    assert all(step.offset is None for step in tangent(program).steps)


@settings(COMMON, max_examples=60)
@given(graphs())
def test_random_graphs(graph: Graph) -> None:
    options = {"inputs": graph.active, "outputs": graph.outputs}
    operator, affine, program = operator_and_map(graph.model, graph.feeds, "float64", **options)
    K, N = affine.W.shape
    scale = 1e-9 * (1 + np.abs(affine.W).max(initial=0))  # large parts may cancel on the way
    np.testing.assert_allclose(operator @ np.eye(N), affine.W, rtol=1e-8, atol=scale)
    np.testing.assert_allclose(operator.T @ np.eye(K), affine.W.T, rtol=1e-8, atol=scale)
    np.testing.assert_allclose(bias_of(program, affine.rows, "float64"), affine.b, rtol=1e-8, atol=1e-8)


@settings(COMMON, max_examples=20)
@given(graphs())
def test_random_graphs_in_onnxruntime(graph: Graph) -> None:
    options = {"inputs": graph.active, "outputs": graph.outputs}
    carrier = carriers("float32")[1]
    operator, affine, _ = operator_and_map(graph.model, graph.feeds, "float32", carrier, **options)
    K, N = affine.W.shape
    v, u = RANDOM.standard_normal(N), RANDOM.standard_normal(K)
    size = np.abs(affine.W) @ np.abs(v)
    np.testing.assert_array_less(np.abs(operator @ v - affine.W @ v), 1e-3 * size + 1e-3)
    back = np.abs(affine.W.T) @ np.abs(u)
    np.testing.assert_array_less(np.abs(operator.T @ u - affine.W.T @ u), 1e-3 * back + 1e-3)
