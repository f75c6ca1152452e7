"""Every primitive as ONNX nodes: what onnxruntime computes equals `apply`, forwards and transposed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy import sparse

from ilin.runtime.emit import Builder
from ilin.runtime.primitives import (
    Broadcast,
    Contract,
    Conv,
    Gather,
    Reshape,
    Scale,
    Scatter,
    Sparse,
    Sum,
    Transpose,
    Window,
    chain,
)

RANDOM = np.random.default_rng(3)


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def conv(weight, sizes, out, *, strides=None, dilations=None, pads=None, group=1, batch=1):
    rank = len(sizes)
    window = Window(
        sizes, out, weight.shape[2:], strides or (1,) * rank, dilations or (1,) * rank, pads or (0,) * rank
    )
    return Conv(batch, weight, window, group)


CASES = {
    "scale": Scale((2, 3), weights(3)),
    "mask": Scale((2, 3), weights(2, 3) > 0),
    "reshape": Reshape((2, 6), (3, 4)),
    "scalar": Reshape((1,), ()),
    "transpose": Transpose((2, 3, 4), (2, 0, 1)),
    "gather": Gather((2, 3), np.array([[0, 5, 5], [-1, 2, 3]])),
    "scatter": Scatter((7,), np.array([0, 3, -1, 3, 6])),
    "broadcast": Broadcast((3, 1), (2, 3, 4)),
    "sum": Sum((2, 3, 4), (3, 1)),
    "sum of nothing": Sum((2, 3), (2, 3)),
    "dense": Contract((4, 3), weights(3, 5), "mk,kn->mn"),
    "dense on the left": Contract((3, 4), weights(5, 3), "kn,mk->mn"),
    "stacked": Contract((2, 4, 3), weights(2, 3, 5), "bmk,bkn->bmn"),
    "outer": Contract((3,), weights(3, 4), "k,kn->nk"),
    "sparse": Sparse((2, 3), (4,), sparse.csr_array(weights(4, 6) * (weights(4, 6) > 0))),
    "chain": chain(Scale((6,), weights(6)), Reshape((6,), (2, 3)), Transpose((2, 3), (1, 0))),
    "conv 1-D": conv(weights(4, 2, 3), (9,), (7,)),
    "conv same": conv(weights(4, 3, 3, 3), (6, 7), (6, 7), pads=(1, 1)),
    "conv valid": conv(weights(4, 3, 3, 3), (6, 7), (4, 5)),
    "conv asymmetric": conv(weights(4, 3, 3, 2), (6, 7), (7, 8), pads=(2, 0)),
    "conv wide padding": conv(weights(2, 3, 2, 2), (5, 5), (9, 9), pads=(3, 3)),
    "conv strided": conv(weights(4, 3, 3, 3), (7, 8), (4, 4), strides=(2, 2), pads=(1, 1)),
    "conv leaves the end": conv(weights(4, 3, 2, 2), (7, 8), (2, 3), strides=(3, 2)),
    "conv 1x1 strided": conv(weights(4, 3, 1, 1), (7, 8), (4, 4), strides=(2, 2)),
    "conv dilated": conv(weights(4, 3, 3, 3), (9, 9), (5, 5), dilations=(2, 2)),
    "conv grouped": conv(weights(4, 3, 3, 3), (6, 6), (6, 6), group=2, pads=(1, 1)),
    "conv depthwise": conv(weights(6, 1, 3, 3), (6, 6), (3, 3), group=6, strides=(2, 2), pads=(1, 1)),
    "conv over the end": conv(np.ones((3, 1, 3), np.float32), (6,), (4,), strides=(2,), pads=(1,), group=3),
    "conv 3-D": conv(weights(2, 2, 2, 2, 2), (4, 5, 4), (3, 4, 3), batch=2),
}


def run(primitive, block, fixed):
    graph = Builder(block.dtype)
    graph.fixed = fixed
    graph.input("x", block.dtype, ["B", *primitive.in_shape])
    output = primitive.emit(graph, "x")
    model = graph.model({output: ["B", *primitive.out_shape]}, "primitive", "")
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], {"x": block, **graph.arrays})[0]


@pytest.mark.parametrize("fixed", [True, False], ids=["weights inside", "weights fed"])
@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "transposed"])
@pytest.mark.parametrize("name", CASES)
def test_emitted_equals_applied(name, transposed, fixed):
    primitive = CASES[name].T if transposed else CASES[name]
    block = weights(3, *primitive.in_shape)
    np.testing.assert_allclose(run(primitive, block, fixed), primitive.apply(block), rtol=1e-5, atol=1e-5)
