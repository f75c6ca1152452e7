"""Operators of ONNX's first years, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import ilin
from tests.conformance.oracle import onnxruntime_of

X = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32)
NODES = {
    "Affine": make_node("Affine", ["x"], ["y"], alpha=2.0, beta=-0.5),
    "ImageScaler": make_node("ImageScaler", ["x"], ["y"], scale=0.5, bias=[1.0, 2.0, 3.0]),
    "Crop to what is left": make_node("Crop", ["x"], ["y"], border=[1, 0, 2, 1]),
    "Crop to a size": make_node("Crop", ["x"], ["y"], border=[1, 0, 0, 0], scale=[2, 3]),
    "ScaledTanh": make_node("ScaledTanh", ["x"], ["y"], alpha=1.5, beta=0.75),
}


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_the_map_is_the_operators_value_and_slope(node):
    run = onnxruntime_of(_model(node, None))
    y = run({"x": X})["y"]
    affine = ilin.linearize(_model(node, y.shape), X)
    assert affine.certificate.verified
    np.testing.assert_array_equal(affine.y, y)
    h, d = 2.0**-8, np.random.default_rng(1).choice([-1, 1], X.shape).astype(np.float32)
    slope = (run({"x": X + h * d})["y"].astype(float) - run({"x": X - h * d})["y"]).ravel() / (2 * h)
    # Central differences of tanh are off by h² f'''/6, of float32 values by their rounding over h.
    np.testing.assert_allclose(
        affine.W @ d.ravel(), slope, atol=2 * h**2 + 4 * 2.0**-24 * np.abs(y).max() / h
    )


def _model(node, shape):
    graph = make_graph(
        [node],
        "one",
        [make_tensor_value_info("x", 1, X.shape)],
        [make_tensor_value_info("y", 1, shape)],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 7)], ir_version=8)
