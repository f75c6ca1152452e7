"""Transforms, embeddings and what puts entries back: every form against onnxruntime's own matrix."""

from __future__ import annotations

import numpy as np
import pytest

import ilin

from .one_node import assert_same, one_node


def array(*shape, dtype=np.float32):
    return np.random.default_rng(7).standard_normal(shape).astype(dtype)


def whole(*values):
    return np.array(values, np.int64)


def scalar(value):
    return np.array(value, np.int64)


def parted(given, active):
    """The active inputs and the held ones."""
    x = {name: given[name] for name in active.split("+")}
    return x, {name: value for name, value in given.items() if name not in x}


TRANSFORMS = {  # shape, dft_length, axis, attributes
    "real": ((2, 6, 1), None, 1, {}),
    "complex": ((2, 6, 2), None, 1, {}),
    "power of two": ((2, 8, 2), None, 1, {}),
    "inverse": ((1, 6, 2), None, 1, {"inverse": 1}),
    "inverse of a real signal": ((1, 8, 1), None, 1, {"inverse": 1}),
    "onesided": ((2, 7, 1), None, 1, {"onesided": 1}),
    "onesided, even": ((2, 6, 1), None, 1, {"onesided": 1}),
    "back from onesided": ((1, 4, 2), None, 1, {"inverse": 1, "onesided": 1}),
    "back from onesided, odd": ((1, 4, 2), 7, 1, {"inverse": 1, "onesided": 1}),
    "cut": ((2, 7, 2), 5, 1, {}),
    "padded": ((2, 5, 1), 8, 1, {}),
    "another axis": ((2, 3, 4, 2), None, 2, {}),
    "first axis": ((3, 2, 2), None, 0, {"inverse": 1}),
    "one sample": ((2, 1, 2), None, 1, {}),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("opset", [17, 20])
def test_dft(name, opset):
    shape, length, axis, attributes = TRANSFORMS[name]
    held = {"length": None if length is None else scalar(length)}
    if opset < 20:
        attributes = {**attributes, "axis": axis}
    else:
        held["axis"] = scalar(axis - len(shape))
    x = {"x": array(*shape)}
    assert_same(one_node("DFT", x, held, opset, **attributes), x, tolerance=5e-6)


def test_the_default_axis_of_dft():
    """The first behind the batch axis before opset 20, the last before the parts of numbers since."""
    x = {"x": array(2, 3, 4, 2)}
    for opset in (17, 20):
        assert_same(one_node("DFT", x, {}, opset), x, tolerance=5e-6)


@pytest.mark.parametrize("attributes", [{}, {"inverse": 1}])
def test_dft_in_float64(attributes):
    x = {"x": array(1, 8, 2, dtype=np.float64)}
    assert_same(one_node("DFT", x, {}, 17, **attributes), x, tolerance=1e-13)


@pytest.mark.parametrize("n", [37, 100, 256, 1000])
@pytest.mark.parametrize("attributes", [{}, {"inverse": 1}])
def test_long_transforms_are_verified(n, attributes):
    """Where onnxruntime's waves are less accurate than their rounding alone."""
    x = {"x": array(1, n, 2)}
    affine = ilin.linearize(one_node("DFT", x, {}, 17, **attributes), x, rows=4)
    assert affine.certificate.verified, str(affine.certificate)
    assert affine.certificate.at_x < 1e-3 * np.abs(affine.y).max()


FRAMES = {  # signal, step, length of the window, frame_length, attributes
    "window": ((2, 11, 1), 2, 4, None, {}),
    "both": ((1, 11, 1), 3, 5, 5, {}),
    "no window": ((1, 9, 1), 1, None, 4, {}),
    "all frequencies": ((1, 9, 1), 2, 4, None, {"onesided": 0}),
    "complex": ((1, 8, 2), 2, 4, None, {"onesided": 0}),
    "without parts": ((2, 9), 2, 4, None, {}),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("active", ["signal", "window"])
def test_stft(name, active):
    shape, step, window, length, attributes = FRAMES[name]
    given = {
        "signal": array(*shape),
        "step": scalar(step),
        "window": None if window is None else array(window),
        "length": None if length is None else scalar(length),
    }
    if given[active] is None:
        pytest.skip("left out here")
    x, held = parted(given, active)
    assert_same(one_node("STFT", x, held, 17, order=list(given), **attributes), x, tolerance=5e-6)


ROTATIONS = {  # x, caches, position_ids, attributes
    "heads": ((2, 3, 4, 6), (9, 3), (2, 4), {}),
    "interleaved": ((2, 3, 4, 6), (9, 3), (2, 4), {"interleaved": 1}),
    "in part": ((2, 3, 4, 6), (9, 2), (2, 4), {"rotary_embedding_dim": 4}),
    "in part, interleaved": ((2, 3, 4, 6), (9, 2), (2, 4), {"rotary_embedding_dim": 4, "interleaved": 1}),
    "flat": ((2, 4, 12), (9, 2), (2, 4), {"num_heads": 3}),
    "own caches": ((2, 3, 4, 6), (2, 4, 3), None, {}),
    "flat, own caches": ((2, 4, 12), (2, 4, 3), None, {"num_heads": 2, "interleaved": 1}),
}


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("active", ["x", "cos", "sin", "cos+sin"])
def test_rotary_embedding(name, active):
    shape, cache, ids, attributes = ROTATIONS[name]
    random = np.random.default_rng(1)
    given = {
        "x": array(*shape),
        "cos": array(*cache),
        "sin": array(*cache)[..., ::-1].copy(),
        "ids": None if ids is None else random.integers(0, cache[0], ids),
    }
    x, held = parted(given, active)
    assert_same(one_node("RotaryEmbedding", x, held, 23, order=list(given), **attributes), x)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 1, 1, 3), (2, 1, 3, 1), (2, 1, 2, 3, 4), (1, 1, 1, 1, 2)])
def test_affine_grid(size, align):
    rank = len(size) - 2
    theta = {"theta": array(size[0], rank, rank + 1)}
    assert_same(one_node("AffineGrid", theta, {"size": whole(*size)}, 20, align_corners=align), theta)


UNPOOLED = {  # x, indices, output_shape, attributes
    "plain": ((1, 1, 2, 2), [5, 7, 13, 15], None, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "twice": ((1, 1, 2, 2), [5, 7, 13, 5], None, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "a shape": ((1, 1, 2, 2), [5, 7, 13, 15], (1, 1, 5, 5), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "pads": ((1, 2, 3), [1, 2, 0, 5, 7, 6], None, {"kernel_shape": [3], "strides": [1], "pads": [1, 0]}),
}


@pytest.mark.parametrize("name", UNPOOLED)
@pytest.mark.parametrize("opset", [9, 11, 22])
def test_max_unpool(name, opset):
    shape, indices, out, attributes = UNPOOLED[name]
    held = {"indices": np.array(indices, np.int64).reshape(shape)}
    if out is not None:
        held["out"] = whole(*out)
    x = {"x": array(*shape)}
    assert_same(one_node("MaxUnpool", x, held, opset, **attributes), x)


COLUMNS = {  # x, image, block, attributes
    "overlap": ((2, 8, 12), (4, 5), (2, 2), {}),
    "one axis": ((1, 6, 4), (6,), (3,), {}),
    "all": ((1, 12, 6), (6, 5), (3, 2), {"strides": [2, 2], "dilations": [2, 1], "pads": [1, 0, 1, 1]}),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_col2im(name):
    shape, image, block, attributes = COLUMNS[name]
    x = {"x": array(*shape)}
    assert_same(one_node("Col2Im", x, {"image": whole(*image), "block": whole(*block)}, 18, **attributes), x)
