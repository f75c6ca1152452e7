"""Steps of training algorithms, at their first step and later, against onnx's reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import ilin

TRAINING = "ai.onnx.preview.training"
RANDOM = np.random.default_rng(0)
STEPS = {
    "Adagrad": ("XGH", {"decay_factor": 0.1, "epsilon": 1e-3, "norm_coefficient": 0.2}),
    "Adam": ("XGVH", {"alpha": 0.9, "beta": 0.99, "epsilon": 1e-3, "norm_coefficient_post": 0.1}),
    "Momentum": ("XGV", {"alpha": 0.9, "beta": 0.5, "mode": "standard", "norm_coefficient": 0.2}),
    "Momentum, nesterov": ("XGV", {"alpha": 0.9, "beta": 0.5, "mode": "nesterov", "norm_coefficient": 0.0}),
}


def model_of(name, element=TensorProto.FLOAT):
    letters, attributes = STEPS[name]
    outputs = [f"{letter}_new" for letter in letters if letter != "G"]
    node = helper.make_node(name.split(",")[0], ["R", "T", *letters], outputs, domain=TRAINING, **attributes)
    puts = [helper.make_tensor_value_info(letter, element, [4]) for letter in letters]
    scalars = [
        helper.make_tensor_value_info("R", element, []),
        helper.make_tensor_value_info("T", TensorProto.INT64, []),
    ]
    made = [helper.make_tensor_value_info(output, element, [4]) for output in outputs]
    graph = helper.make_graph([node], "step", [*scalars, *puts], made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(TRAINING, 1)], ir_version=8)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("count", [0, 3])
def test_a_step_is_the_reference_evaluators(name, count):
    letters, _ = STEPS[name]
    x = {letter: RANDOM.uniform(0.25, 1, 4).astype(np.float32) for letter in letters}
    given = {"R": np.array(0.1, np.float32), "T": np.array(count), **x}
    affine = ilin.linearize(model_of(name), given, inputs=list(letters), dtype="float64")
    assert affine.certificate.verified, str(affine.certificate)
    exact = ReferenceEvaluator(model_of(name, TensorProto.DOUBLE))
    ends = np.arange(4, 4 * len(letters), 4)

    def f(flat):
        moved = dict(zip(letters, np.split(flat, ends), strict=True))
        return np.concatenate(exact.run(None, {"R": np.array(0.1), "T": np.array(count), **moved}))

    flat = np.concatenate([x[letter] for letter in letters]).astype(float)
    columns = [(f(flat + d) - f(flat - d)) / 2e-6 for d in 1e-6 * np.eye(flat.size)]
    np.testing.assert_allclose(affine.W, np.stack(columns, 1), atol=1e-6)
    np.testing.assert_allclose(affine.W @ flat + affine.b, f(flat), atol=1e-6)
