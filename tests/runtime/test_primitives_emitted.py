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


def pool(shape, kernel, *, strides=None, pads=None, out=None):
    """Every window's largest entry, of random values."""
    rank = len(kernel)
    strides = strides or kernel
    out = out or tuple(i // s for i, s in zip(shape[2:], strides, strict=True))
    window = Window(shape[2:], out, kernel, strides, (1,) * rank, pads or (0,) * rank)
    within = window.positions()  # (windows, taps)
    images = np.arange(shape[0] * shape[1])[:, None, None] * np.prod(shape[2:])
    values = weights(*shape).ravel()
    candidates = np.where(within < 0, -1, within + images)  # (images · channels, windows, taps)
    best = np.where(candidates < 0, -np.inf, values[candidates]).argmax(axis=-1)
    index = np.take_along_axis(candidates, best[..., None], -1)
    return Gather(shape, index.reshape(*shape[:2], *out), window)


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
    "conv 1x1 strided by 3": conv(weights(4, 3, 1, 1), (8, 7), (3, 3), strides=(3, 3)),
    "conv dilated, grouped, strided": conv(
        weights(4, 2, 2, 3), (11, 9), (5, 4), strides=(2, 2), dilations=(3, 1), pads=(1, 0), group=2
    ),
    "conv 1-D strided by 3": conv(weights(3, 2, 4), (14,), (5,), strides=(3,), pads=(2,)),
    "conv stem": conv(weights(6, 3, 7, 7), (16, 16), (8, 8), strides=(2, 2), pads=(3, 3)),
    "conv stem on odd sizes": conv(weights(6, 3, 5, 3), (15, 13), (8, 7), strides=(2, 2), pads=(2, 1)),
    "conv stem unpadded": conv(weights(6, 1, 4, 5), (13, 14), (4, 4), strides=(3, 3)),
    "conv stem leaves the end": conv(weights(6, 1, 2, 2), (14, 17), (4, 5), strides=(3, 3)),
    "conv stem short kernel": conv(weights(6, 1, 1, 2), (7, 8), (3, 3), strides=(3, 3)),
    "conv stem of two images": conv(
        weights(5, 2, 3, 3), (8, 8), (4, 4), strides=(2, 2), pads=(1, 1), batch=2
    ),
    "conv stem past the end": conv(weights(5, 2, 3, 3), (6, 6), (4, 4), strides=(2, 2), pads=(1, 1)),
    "conv strided 3-D": conv(weights(2, 3, 3, 2, 3), (7, 6, 5), (4, 3, 3), strides=(2, 2, 2), pads=(1, 0, 1)),
    "slice": Gather((5, 6), np.arange(30).reshape(5, 6)[1::2, 5:0:-5][:, ::-1]),
    "slice of a vector": Gather((7,), np.arange(7)[2:5]),
    "pad": Gather((2, 3), np.pad(np.arange(6).reshape(2, 3), ((1, 0), (0, 2)), constant_values=-1)),
    "pad and crop": Gather((2, 3), np.pad(np.arange(6).reshape(2, 3)[:, 1:], 1, constant_values=-1)),
    "flip": Gather((2, 3), np.arange(6).reshape(2, 3)[::-1]),
    "no entry at all": Gather((2, 3), np.full((2, 2), -1)),
    "tiling pool": pool((1, 3, 6, 4), (2, 2)),
    "tiling pool of images": pool((2, 3, 6, 4), (2, 2)),
    "tiling pool 3x1": pool((1, 2, 6, 5), (3, 1)),
    "tiling pool leaves the end": pool((1, 2, 7, 5), (2, 2)),
    "tiling pool 1-D": pool((1, 2, 8), (4,)),
    "tiling pool 3-D": pool((1, 2, 4, 4, 2), (2, 2, 2)),
    "overlapping pool": pool((1, 2, 7, 7), (3, 3), strides=(2, 2), pads=(1, 1), out=(4, 4)),
    "masks in a row": chain(
        pool((1, 2, 4, 4), (2, 2)),
        Scale((1, 2, 2, 2), weights(1, 2, 2, 2) > 0),
        Scale((1, 2, 2, 2), weights(2, 1, 1)),
    ),
    "mask of higher rank": Scale((1, 1, 2, 3), weights(1, 1, 2, 1)),
    "conv, mask, sum": chain(
        conv(weights(4, 3, 3, 3), (6, 7), (6, 7), pads=(1, 1)),
        Scale((1, 4, 6, 7), weights(1, 4, 6, 7) > 0),
        Sum((1, 4, 6, 7), (4, 1, 1)),
    ),
    "conv of images, mask": chain(
        conv(weights(4, 3, 3, 3), (6, 7), (6, 7), pads=(1, 1), batch=2),
        Scale((2, 4, 6, 7), weights(2, 4, 6, 7) > 0),
    ),
    "matrix of one row": Contract((1, 3), weights(5, 3), "mk,nk->mn"),
    "stacked, one of them": Contract((1, 4, 3), weights(1, 3, 5), "bmk,bkn->bmn"),
    "moved axes of length 1": Transpose((1, 3, 1, 4), (2, 1, 0, 3)),
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


@pytest.mark.parametrize(
    ("name", "transposed", "ops"),
    [
        ("conv same", True, {"Conv"}),
        ("conv stem", True, {"Conv", "DepthToSpace"}),
        ("conv strided", True, {"Conv", "DepthToSpace", "Slice"}),
        ("conv dilated, grouped, strided", True, {"ConvTranspose"}),
        ("slice", False, {"Slice"}),
        ("slice of a vector", True, {"Pad"}),
        ("pad", True, {"Slice"}),
        ("tiling pool", True, {"Resize", "Mul", "ScatterElements"}),
        ("matrix of one row", True, {"MatMul"}),
        ("moved axes of length 1", False, set()),
        ("conv, mask, sum", False, {"Conv", "Mul", "ReduceSum"}),
    ],
)
def test_the_fast_form_is_taken(name, transposed, ops):
    primitive = CASES[name].T if transposed else CASES[name]
    graph = Builder(np.dtype(np.float32))
    graph.fixed = "pool" not in name
    block = graph.shaped(graph.input("x", np.float32, ["B", *primitive.in_shape]), primitive.in_shape)
    output = primitive.emit(graph, block)
    model = graph.model({output: ["B", *primitive.out_shape]}, "primitive")
    assert {node.op_type for node in model.graph.node} - {"Reshape"} == ops
