"""Among equal entries of a window MaxPool takes the one whose index onnxruntime reports."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import ilin

from .oracle import onnxruntime_of

POOLS = {
    "1-D": ((1, 2, 11), {"kernel_shape": [3], "strides": [2]}),
    "overlapping": ((1, 1, 6, 7), {"kernel_shape": [3, 2]}),
    "padded": ((2, 1, 5, 5), {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "dilated": ((1, 2, 8, 7), {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 1, 1, 1]}),
    "ceiling": ((1, 1, 8, 8), {"kernel_shape": [3, 3], "strides": [3, 2], "ceil_mode": 1}),
    "same lower": ((1, 1, 5, 6), {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "3-D": ((1, 2, 4, 5, 4), {"kernel_shape": [2, 2, 3], "strides": [1, 2, 2]}),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("opset", [12, 22])
@pytest.mark.parametrize("seed", range(3))
def test_max_pool_takes_the_entry_that_onnxruntime_reports(name: str, opset: int, seed: int) -> None:
    shape, attributes = POOLS[name]
    node = helper.make_node("MaxPool", ["x"], ["y", "indices"], **attributes)
    out = ["n", "c", *(f"d{i}" for i in range(len(shape) - 2))]
    graph = helper.make_graph(
        [node],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, out),
            helper.make_tensor_value_info("indices", TensorProto.INT64, out),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    # Few distinct values, zeros of both signs and values below zero: nearly every window ties.
    x = np.random.default_rng(seed).choice(np.float32([-1, -0.0, 0.0, 1]), shape)
    winners = onnxruntime_of(model)({"x": x})["indices"].ravel()

    affine = ilin.linearize(model, x, inputs=["x"], outputs=["y"])

    expected = np.zeros((winners.size, x.size))
    expected[np.arange(winners.size), winners] = 1
    np.testing.assert_array_equal(affine.W, expected)
    assert affine.certificate.ties > 0
    assert affine.certificate.verified, str(affine.certificate)
