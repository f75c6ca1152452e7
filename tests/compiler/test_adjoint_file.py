"""The adjoint as a file: run by onnxruntime alone, on inputs built from their names."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin
from ilin.compiler.adjoint import adjoint_of, save_adjoint
from ilin.compiler.graph import load
from ilin.compiler.lower import lower
from ilin.compiler.observer import Observer
from ilin.compiler.scope import scope_of
from ilin.compiler.sweep import Magnitudes
from ilin.compiler.trace import feeds_of

FLOAT = np.dtype(np.float32)


@pytest.fixture
def model():
    random = np.random.default_rng(11)

    def weights(name, *shape):
        scale = np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((random.standard_normal(shape) / scale).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="conv_1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="/body/relu_1"),
        helper.make_node("MaxPool", ["b"], ["c"], name="pool_1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "w2", "b2"], ["d"], name="conv_2", strides=[2, 2]),
        helper.make_node("Clip", ["d", "low", "high"], ["e"], name="clip_1"),
        helper.make_node("Flatten", ["e"], ["f"], name="flatten_1"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="gemm_1"),
    ]
    parameters = [
        weights("w1", 4, 2, 3, 3),
        weights("b1", 4),
        weights("w2", 3, 4, 2, 2),
        weights("b2", 3),
        weights("w3", 12, 5),
        weights("b3", 5),
        numpy_helper.from_array(np.float32(-0.2), "low"),
        numpy_helper.from_array(np.float32(0.3), "high"),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        parameters,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def program_at(model, x):
    graph = load(model)
    scope = scope_of(graph, None, None)
    trace = Observer(graph, scope, None).trace(feeds_of(graph, x)[0])
    return lower(scope, trace, FLOAT, {})


def tensors_of(model, x, *names):
    """Intermediate tensors, observed by onnxruntime alone."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(names), {"x": x})


def winners(pooled):
    """Flat positions of the largest entries of 2×2 windows side by side."""
    _, channels, height, width = pooled.shape
    found = np.empty((1, channels, height // 2, width // 2), np.int64)
    for place in np.ndindex(found.shape):
        _, c, i, j = place
        tap = pooled[0, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].argmax()
        found[place] = (c * height + 2 * i + tap // 2) * width + 2 * j + tap % 2
    return found


def test_saved_file_runs_from_its_documentation(model, tmp_path):
    random = np.random.default_rng(5)
    elsewhere = random.standard_normal((1, 2, 8, 8)).astype(np.float32)
    facts = {"ilin.model_sha256": load(model).sha256}
    save_adjoint(program_at(model, elsewhere), FLOAT, tmp_path / "adjoint.onnx", facts)
    saved = onnx.load(tmp_path / "adjoint.onnx")
    onnx.checker.check_model(saved, full_check=True)
    assert all(put.doc_string for put in (*saved.graph.input, *saved.graph.output))
    recorded = {entry.key: entry.value for entry in saved.metadata_props}
    assert recorded["ilin.model_sha256"] == facts["ilin.model_sha256"]
    assert json.loads(recorded["ilin.inputs"]) == {"x": [1, 2, 8, 8]}
    assert json.loads(recorded["ilin.outputs"]) == {"y": [1, 5]}
    assert json.loads(recorded["ilin.shares"]) == ["gemm_1", "clip_1", "conv_2", "conv_1"]

    x = random.standard_normal((1, 2, 8, 8)).astype(np.float32)
    a, b, d = tensors_of(model, x, "a", "b", "d")
    inside = (d > -0.2) & (d <= 0.3)
    feeds = {
        "slope/body/relu_1": a > 0,
        "winner/pool_1": winners(b),
        "slope/clip_1": inside,
        "offset/clip_1": np.where(inside, 0, np.clip(d, -0.2, 0.3)).astype(np.float32),
    }
    session = onnxruntime.InferenceSession(str(tmp_path / "adjoint.onnx"), providers=["CPUExecutionProvider"])
    assert {put.name for put in session.get_inputs()} == {"seed/y", *feeds}
    affine = ilin.linearize(model, x, engine="sparse")
    for rows in ([0, 1, 2, 3, 4], [3]):
        seed = np.eye(5, dtype=np.float32)[rows].reshape(-1, 1, 5)
        W, shares = session.run(["W/x", "shares"], {"seed/y": seed, **feeds})
        np.testing.assert_allclose(W.reshape(len(rows), -1), affine.W[rows], atol=1e-5)
        np.testing.assert_allclose(shares.sum(axis=1), affine.b[rows], atol=1e-5)


def test_an_existing_file_stays_whole(model, tmp_path):
    program = program_at(model, np.ones((1, 2, 8, 8), np.float32))
    with pytest.raises(ilin.OutputError, match="cannot write"):
        save_adjoint(program, FLOAT, tmp_path / "no such folder" / "adjoint.onnx", {})


def test_rows_and_bounds(model):
    """Against the sweep written out with explicit matrices."""
    program = program_at(model, np.random.default_rng(2).standard_normal((1, 2, 8, 8)).astype(np.float32))
    random = np.random.default_rng(3)
    points = 2
    errors = {step.output: random.random((points, *step.shape)).astype(np.float32) for step in program.steps}
    rows = np.array([4, 1, 1])
    W, shares = adjoint_of(program, FLOAT).rows(program, rows, FLOAT)
    bounds = adjoint_of(program, FLOAT, bounds=True).bounds(
        program, rows, Magnitudes(errors, {}, points), FLOAT
    )

    adjoint = np.eye(5)[rows]
    expected_bounds = np.zeros((points, len(rows)))
    for position in range(len(program.steps) - 1, -1, -1):
        step = program.steps[position]
        share = 0.0 if step.offset is None else adjoint @ np.broadcast_to(step.offset, step.shape).ravel()
        np.testing.assert_allclose(shares[position], share, atol=1e-5)
        if program.has_slot(step):
            expected_bounds += errors[step.output].reshape(points, -1) @ np.abs(adjoint).T
        ((_, L),) = step.terms
        adjoint = adjoint @ L.matrix().toarray()
    np.testing.assert_allclose(W, adjoint, atol=1e-5)
    np.testing.assert_allclose(bounds, expected_bounds, rtol=1e-5)


def test_what_lies_beyond_float32_convolutions(model):
    program = program_at(model, np.ones((1, 2, 8, 8), np.float32))
    with pytest.raises(ilin.OptionError, match="float64 Conv"):
        adjoint_of(program, np.dtype(np.float64))
