"""Maps whose W is never made: products, b, contributions and the certificate are those of the dense map."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy.sparse.linalg import LinearOperator, svds

import ilin
from ilin.runtime import operator

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
RANDOM = np.random.default_rng(11)


@pytest.fixture
def x():
    return np.load(DIGITS / "x.npy")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", ["all", 3, [7, 0, 7]])
@pytest.mark.parametrize("engine", ["auto", "matrix-free"])
def test_the_same_map(x, dtype, rows, engine):
    compiled = ilin.compile(DIGITS / "model.onnx", dtype=dtype, engine=engine)
    dense, unmade = compiled.at(x, rows), compiled.at(x, rows, materialize=False)
    scale = np.abs(dense.W).max() * {"float32": 1e-4, "float64": 1e-12}[dtype]
    K, N = dense.W.shape
    assert isinstance(unmade.W, LinearOperator)
    assert unmade.W.shape == (K, N)
    np.testing.assert_allclose(unmade.operator @ np.eye(N), dense.W, atol=scale)
    np.testing.assert_allclose(dense.operator.T @ np.eye(K), dense.W.T, atol=scale)
    np.testing.assert_allclose(unmade.b, dense.b, atol=10 * scale)
    np.testing.assert_allclose(unmade.contributions(1), dense.contributions(1), atol=20 * scale)
    np.testing.assert_allclose(unmade(x), dense(x), atol=100 * scale)
    assert unmade.certificate.verified, str(unmade.certificate)
    assert unmade.certificate.points_held == 1
    assert len(unmade.layers) == len(dense.layers)


def test_what_it_refuses(x, tmp_path):
    unmade = ilin.compile(DIGITS / "model.onnx").at(x, materialize=False)
    with pytest.raises(ilin.IlinError, match="so there is no W to save"):
        unmade.save(tmp_path / "map.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ["matrix-free", "adjoint"])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda affine: pickle.loads(pickle.dumps(affine))])
def test_it_travels(x, engine, again):
    compiled = ilin.compile(DIGITS / "model.onnx", engine=engine)
    unmade = compiled.at(x, [7, 0, 7], materialize=False)
    other = again(unmade)
    for vectors, left, right in ((np.eye(64), unmade.W, other.W), (np.eye(3), unmade.W.T, other.W.T)):
        np.testing.assert_array_equal(left @ vectors.astype(np.float32), right @ vectors.astype(np.float32))
    np.testing.assert_array_equal(other.b, unmade.b)
    assert other.certificate == unmade.certificate


def test_a_map_over_the_limit_as_an_operator(x):
    compiled = ilin.compile(DIGITS / "model.onnx", memory_limit=1000)
    with pytest.raises(ilin.MemoryLimitError, match="materialize=False"):
        compiled.at(x)
    found = svds(compiled.at(x, materialize=False).operator, k=2, return_singular_vectors=False)
    dense = ilin.linearize(DIGITS / "model.onnx", x)
    np.testing.assert_allclose(sorted(found), np.linalg.svd(dense.W)[1][1::-1], rtol=1e-4)


def test_a_wrong_operator_is_not_verified(x, monkeypatch):
    right = operator.ProgramOperator._matmat
    monkeypatch.setattr(operator.ProgramOperator, "_matmat", lambda self, V: right(self, V) * 1.01)
    unmade = ilin.compile(DIGITS / "model.onnx", dtype="float64").at(x, materialize=False)
    assert not unmade.certificate.verified


def test_the_bound_of_a_deep_network_is_smaller_than_its_outputs(monkeypatch):
    """Thirty layers with weights of both signs, where |W1| |W2| … |x| is far larger than what comes out."""
    random = np.random.default_rng(0)
    weights = [(random.standard_normal((24, 24)) / 24**0.5).astype(np.float32) for _ in range(30)]
    nodes = [onnx.helper.make_node("MatMul", [f"h{i}", f"W{i}"], [f"h{i + 1}"]) for i in range(30)]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1, 24]) for name in ("h0", "h30")]
    tensors = [onnx.numpy_helper.from_array(W, f"W{i}") for i, W in enumerate(weights)]
    graph = onnx.helper.make_graph(nodes, "deep", ends[:1], ends[1:], tensors)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    x = random.standard_normal((1, 24)).astype(np.float32)
    found = ilin.compile(proto).at(x, materialize=False).certificate
    assert found.verified, str(found)
    assert found.moved_over_bound > 10

    right = operator.ProgramOperator._matmat
    monkeypatch.setattr(operator.ProgramOperator, "_matmat", lambda self, V: right(self, V) * 1.2)
    assert not ilin.compile(proto).at(x, materialize=False).certificate.verified
