"""Programs of several points stacked into one: block-diagonal, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import ilin
from ilin.compiler.fused import fused_available
from ilin.compiler.multiplier import matrix_free
from ilin.compiler.pipeline import CompiledModel
from ilin.compiler.sweep import rows_back
from ilin.runtime.stack import NotStackable, stacked

from ..programs import program_at

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
RANDOM = np.random.default_rng(5)


def network(nodes, shape, out, **weights):
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    puts = [make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("x", shape), ("y", out))]
    graph = make_graph(nodes, "net", puts[:1], puts[1:], tensors)
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def convolutional():
    """Image by image: offsets that a point decides, overlapping pools, a shortcut."""
    nodes = [
        make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        make_node("Clip", ["a", "low", "high"], ["b"]),
        make_node("MaxPool", ["b"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        make_node("Conv", ["c", "w2"], ["d"], pads=[1, 1, 1, 1]),
        make_node("Relu", ["d"], ["e"]),
        make_node("Add", ["e", "c"], ["f"]),
        make_node("ConvTranspose", ["f", "w3"], ["g"], strides=[2, 2]),
        make_node("LeakyRelu", ["g"], ["h"]),
        make_node("GlobalAveragePool", ["h"], ["i"]),
        make_node("Flatten", ["i"], ["j"]),
        make_node("Gemm", ["j", "w4", "b4"], ["y"], transB=1),
    ]
    given = {
        "w1": weights(6, 2, 3, 3),
        "b1": weights(6),
        "low": np.float32(-0.5),
        "high": np.float32(1.5),
        "w2": weights(6, 6, 3, 3),
        "w3": weights(6, 5, 2, 2),
        "w4": weights(4, 5),
        "b4": weights(4),
    }
    return network(nodes, [1, 2, 9, 9], [1, 4], **given)


def test_a_stack_is_block_diagonal():
    compiled = ilin.compile(convolutional())
    points = [weights(1, 2, 9, 9) for _ in range(3)]
    many = stacked([program_at(compiled, x) for x in points])
    W = rows_back(many, matrix_free(many), np.dtype(np.float32))(np.arange(12)).W.reshape(3, 4, 3, 162)
    for image, x in enumerate(points):
        alone = compiled.at(x).W
        for other in range(3):
            expected = alone if image == other else np.zeros_like(alone)
            np.testing.assert_allclose(W[image, :, other], expected, atol=1e-5)


@pytest.mark.skipif(not fused_available(), reason="needs numba: python -m pip install 'ilin[fast]'")
@pytest.mark.parametrize("rows", ["all", 2, [3, 3, 0]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_points_in_one_sweep_are_the_points_one_by_one(rows, dtype, monkeypatch):
    compiled = ilin.compile(convolutional(), engine="fused", dtype=dtype)
    points = weights(21, 2, 9, 9)
    sweeps = []
    together = CompiledModel._compose_together

    def counting(self, asked):
        sweeps.append(len(asked))
        return together(self, asked)

    monkeypatch.setattr(CompiledModel, "_compose_together", counting)
    maps = list(compiled.at_many(points, rows))
    assert sweeps == [16, 4]
    for x, affine in zip(points, maps, strict=True):
        alone = compiled.at(x, rows)
        np.testing.assert_array_equal(affine.rows, alone.rows)
        np.testing.assert_array_equal(affine.W, alone.W)
        np.testing.assert_array_equal(affine.bias_shares, alone.bias_shares)
        np.testing.assert_array_equal(affine.b, alone.b)
    assert all(affine.certificate.verified for affine in maps[::7])


@pytest.mark.skipif(not fused_available(), reason="needs numba: python -m pip install 'ilin[fast]'")
def test_a_bad_point_within_a_batch_raises_in_its_turn():
    compiled = ilin.compile(convolutional(), engine="fused")
    points = weights(9, 2, 9, 9)
    points[5, 0, 0, 0] = np.nan
    maps = compiled.at_many(points)
    for x in points[:5]:
        np.testing.assert_array_equal(next(maps).x[0], x)
    with pytest.raises(ilin.NonFiniteError, match=r"^instance 5: "):
        next(maps)


@pytest.mark.skipif(not fused_available(), reason="needs numba: python -m pip install 'ilin[fast]'")
def test_points_that_cannot_share_a_sweep_are_taken_one_by_one():
    nodes = [make_node("Reshape", ["x", "flat"], ["a"]), make_node("Relu", ["a"], ["y"])]
    compiled = ilin.compile(network(nodes, [1, 4], [4], flat=np.array([4])), engine="fused")
    points = weights(5, 4)
    for x, affine in zip(points, compiled.at_many(points), strict=True):
        np.testing.assert_array_equal(affine.W, np.diag((x > 0).astype(np.float32)))


def test_what_mixes_images_is_refused():
    transposing = [make_node("Transpose", ["x"], ["a"], perm=[1, 0]), make_node("Relu", ["a"], ["y"])]
    compiled = ilin.compile(network(transposing, [1, 4], [4, 1]))
    with pytest.raises(NotStackable):
        stacked([program_at(compiled, weights(1, 4)) for _ in range(2)])
    free = ilin.compile(network([make_node("Relu", ["x"], ["y"])], [1, "n"], [1, "n"]))
    with pytest.raises(NotStackable):
        stacked([program_at(free, weights(1, n)) for n in (3, 4)])
