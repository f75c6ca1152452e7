"""Small transformers from embeddings to logits: tangents against differences in float64, frozen maps at x."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import ilin

from ..conformance.oracle import onnxruntime_of, reference_of

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "transformers.py"


def _script():
    """The script that builds the models; benchmarks are no package."""
    spec = importlib.util.spec_from_file_location("transformers_benchmark", _SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_made = _script()
decoder, embeddings, vision = _made.decoder, _made.embeddings, _made.vision

MODELS = {
    "like GPT-2": decoder(length=6, vocabulary=11),
    "like LLaMA": decoder(length=6, vocabulary=11, biases=False),
    "vision": vision(patches=5, classes=4),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def in_float64(model):
    """Embeddings to logits by onnx's reference evaluator."""
    run = reference_of(model)
    return lambda x: run({"embeddings": x})["logits"].ravel()


def assert_slopes(affine, function, x):
    step = 1e-5
    for seed in range(3):
        d = np.random.default_rng(seed).standard_normal(x.shape)
        slope = (function(x + step * d) - function(x - step * d)) / (2 * step)
        np.testing.assert_allclose(affine.W @ d.ravel(), slope, rtol=1e-6, atol=1e-6)


def test_the_tangent_is_the_networks_jacobian(model):
    x = embeddings(model)
    affine = ilin.linearize(model, x, dtype="float64")
    assert affine.certificate.verified, str(affine.certificate)
    assert affine.certificate.slopes.passed
    assert_slopes(affine, in_float64(model), x.astype(float))


def test_the_frozen_map_is_the_network_at_x(model):
    x = embeddings(model)
    affine = ilin.linearize(model, x, mode="frozen")
    assert affine.certificate.verified, str(affine.certificate)
    y = onnxruntime_of(model)({"embeddings": x})["logits"].ravel()
    np.testing.assert_allclose(affine.W @ x.ravel() + affine.b, y, rtol=1e-5, atol=1e-5)


def test_without_biases_a_frozen_gated_network_has_no_offset():
    model = MODELS["like LLaMA"]
    affine = ilin.linearize(model, embeddings(model), mode="frozen")
    np.testing.assert_array_equal(affine.b, 0)


def test_a_causal_decoder_does_not_look_ahead():
    model = MODELS["like GPT-2"]
    for mode in ("tangent", "frozen"):
        affine = ilin.linearize(model, embeddings(model), mode=mode)
        by_place = affine.W.reshape(6, 11, 6, 64)
        for place in range(6):
            np.testing.assert_array_equal(by_place[place, :, place + 1 :], 0)


@pytest.mark.parametrize("level", ["BASIC", "ALL"])
def test_what_onnxruntime_makes_of_a_model_has_the_same_map(model, level, tmp_path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = embeddings(model)
    for mode in ("tangent", "frozen"):
        theirs = ilin.linearize(tmp_path / "optimised.onnx", x, rows=4, mode=mode, dtype="float64")
        plain = ilin.linearize(model, x, rows=4, mode=mode, dtype="float64")
        assert theirs.certificate.verified, str(theirs.certificate)
        np.testing.assert_allclose(theirs.W, plain.W, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(theirs.b, plain.b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["tangent", "frozen"])
def test_attention_spelled_out_has_the_map_of_the_operator(mode):
    random = np.random.default_rng(0)
    held = {name: random.standard_normal((8, 8)).astype(np.float32) for name in ("wq", "wk", "wv")}
    held |= {"scale": np.float32(8**-0.5), "mask": np.triu(np.full((4, 4), -1e4, np.float32), 1)}
    project = [("MatMul", ["x", f"w{p}"], p, {}) for p in "qkv"]
    spelled = [
        ("Transpose", ["k"], "kt", {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "kt"], "products", {}),
        ("Mul", ["products", "scale"], "scaled", {}),
        ("Add", ["scaled", "mask"], "scores", {}),
        ("Softmax", ["scores"], "weights", {}),
        ("MatMul", ["weights", "v"], "y", {}),
    ]
    whole = [("Attention", ["q", "k", "v"], "y", {"q_num_heads": 1, "kv_num_heads": 1, "is_causal": 1})]
    x = random.standard_normal((1, 4, 8)).astype(np.float32)
    maps = []
    for nodes in (spelled, whole):
        graph = helper.make_graph(
            [helper.make_node(op, inputs, [out], **given) for op, inputs, out, given in project + nodes],
            "attention",
            [helper.make_tensor_value_info("x", 1, [1, 4, 8])],
            [helper.make_tensor_value_info("y", 1, [1, 4, 8])],
            [numpy_helper.from_array(value, name) for name, value in held.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
        maps.append(ilin.linearize(model, x, mode=mode, dtype="float64"))
    assert all(affine.certificate.verified for affine in maps)
    np.testing.assert_allclose(maps[0].W, maps[1].W, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps[0].b, maps[1].b, rtol=1e-4, atol=1e-5)
