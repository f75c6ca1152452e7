"""Points inside the region in float64: that they are, what W may be off by there, what is left out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import ilin
from ilin.compiler import interior
from ilin.runtime.in_double import evaluated
from ilin.runtime.surroundings import ALONE

from ..conformance.oracle import onnxruntime_of
from ..ops.one_node import one_node

RANDOM = np.random.default_rng(3)


def array(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def model(nodes, weights, inputs):
    """From (operator, inputs, output), with the output y; inputs by name to shape."""
    puts = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()
    ]
    rank = len(next(iter(inputs.values())))
    graph = helper.make_graph(
        [helper.make_node(op, read, [made], name=made) for op, read, made in nodes],
        "interior",
        puts,
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


LAYERS = [(f"w{i}", f"b{i}") for i in range(4)]
SIZES = [5, 40, 40, 40, 3]
WEIGHTS = {
    w: array(m, n) / np.float32(m**0.5) for (w, _), (m, n) in zip(LAYERS, pairwise(SIZES), strict=True)
}
WEIGHTS |= {b: array(n) / 10 for (_, b), n in zip(LAYERS, SIZES[1:], strict=True)}


def dense():
    nodes, name = [], "x"
    for i, (w, b) in enumerate(LAYERS):
        last = i == len(LAYERS) - 1
        nodes += [("MatMul", [name, w], f"m{i}"), ("Add", [f"m{i}", b], "y" if last else f"a{i}")]
        nodes += [] if last else [("Relu", [f"a{i}"], f"r{i}")]
        name = f"r{i}"
    return model(nodes, WEIGHTS, {"x": [1, 5]})


def forward(z):
    """The dense network by hand in float64: its outputs, and the signs of all units."""
    signs = []
    for w, b in LAYERS:
        z = z @ WEIGHTS[w].astype(np.float64) + WEIGHTS[b].astype(np.float64)
        signs.append(z > 0)
        z = np.maximum(z, 0) if w != LAYERS[-1][0] else z
    return z, np.concatenate(signs[:-1], axis=-1)


def test_points_are_inside_and_bounds_hold_there():
    x = array(1, 5)
    affine = ilin.linearize(dense(), x)
    found = affine.record.interior
    (base, *points), bounds = found.points["x"], found.bounds
    np.testing.assert_array_equal(base, x.astype(np.float64))
    assert len(points) == len(bounds) == 2
    y, pattern = forward(base)
    for z, bound in zip(points, bounds, strict=True):
        value, signs = forward(z)
        assert np.array_equal(signs, pattern)
        moved = (value - y)[0]
        assert (np.abs(affine.W.astype(np.float64) @ (z - base)[0] - moved) <= bound).all()
        assert (bound < 1e-5 * np.abs(moved)).all()
    products = sum(m * n for m, n in pairwise(SIZES))
    assert products / 4 < found.products <= products
    assert (found.windows, found.left_out) == (0, "")


@pytest.mark.parametrize("options", [{"direction": "cut"}, {"direction": "forward"}, {"dtype": "float64"}])
def test_bounds_hold_whatever_the_plan(options):
    x = array(1, 5)
    affine = ilin.compile(dense(), **options).at(x)
    (base, *points), bounds = affine.record.interior.points["x"], affine.record.interior.bounds
    for z, bound in zip(points, bounds, strict=True):
        moved = (forward(z)[0] - forward(base)[0])[0]
        assert (np.abs(affine.W.astype(np.float64) @ (z - base)[0] - moved) <= bound).all()
        assert (bound < 1e-5 * np.abs(moved)).all()


def on_the_wrong_side():
    """A unit that is alive in float32 and dead in float64, its model and x; beside others."""
    for seed in range(1000):
        random = np.random.default_rng(seed)
        x, w = random.standard_normal((1, 16)).astype(np.float32), random.standard_normal((16, 4))
        w = w.astype(np.float32)
        w[-1, 0] = -(x[0, :-1].astype(np.float64) @ w[:-1, 0]) / x[0, -1]
        proto = model([("MatMul", ["x", "w"], "u"), ("Relu", ["u"], "y")], {"w": w}, {"x": [1, 16]})
        if (
            onnxruntime_of(proto)({"x": x})["y"][0, 0]
            > 0
            > x[0].astype(np.float64) @ w[:, 0].astype(np.float64)
        ):
            return proto, x, w.astype(np.float64)
    raise AssertionError("none found")


def test_where_float64_puts_a_unit_on_the_other_side_the_base_is_the_nearest_point_on_its_own(tmp_path):
    proto, x, w = on_the_wrong_side()
    affine = ilin.linearize(proto, x)
    assert affine.W[0].any()
    base, *points = affine.record.interior.points["x"]
    assert 0 < np.abs(base - x).max() < 1e-6
    assert len(points) == 2
    for z in (base, *points):
        assert (z @ w)[0, 0] > 0
    affine.save(tmp_path / "map.npz")
    (*_, last) = ilin.verify(tmp_path / "map.npz", proto).findings
    assert last.passed
    assert last.moved_over_bound > 1e5


# -- operators -----------------------------------------------------------------------------------------

ROIS = np.array([[0.3, 0.1, 3.7, 4.2], [1, 1, 3, 3]], np.float32)
SCALES = np.array([1, 1, 1.7, 2.3], np.float32)
GRID = RANDOM.uniform(-1, 1, (1, 3, 4, 2)).astype(np.float32)
IMAGE = {"x": array(1, 1, 6, 5)}
IN_SINGLE = {
    "DeformConv": ("DeformConv", IMAGE, {"w": array(1, 1, 2, 2), "o": array(1, 8, 5, 4)}, 19, {}),
    "GridSample": ("GridSample", IMAGE, {"grid": GRID}, 16, {}),
    "Resize": ("Resize", IMAGE, {"roi": None, "scales": SCALES}, 13, {"mode": "linear"}),
    "RoiAlign": ("RoiAlign", IMAGE, {"rois": ROIS, "images": np.array([0, 0])}, 16, {"output_height": 2}),
    "DFT": ("DFT", {"x": array(1, 7, 2)}, {}, 17, {"inverse": 1}),
    "Shrink": ("Shrink", {"x": array(1, 7)}, {}, 9, {"lambd": 0.3, "bias": 0.1}),
}
COMPARED = {
    "GridSample, nearest": ("GridSample", IMAGE, {"grid": GRID}, 16, {"mode": "nearest"}),
    "Resize, nearest": ("Resize", IMAGE, {"roi": None, "scales": SCALES}, 13, {}),
    "DFT": ("DFT", {"x": array(1, 100, 2)}, {}, 17, {}),
    "STFT": ("STFT", {"x": array(1, 40, 1)}, {"step": np.array(7), "window": array(10)}, 17, {}),
    "AffineGrid": ("AffineGrid", {"theta": array(1, 2, 3)}, {"size": np.array([1, 1, 30, 77])}, 20, {}),
}


def deep(op_type, active, held, opset, attributes):
    return (
        ilin.linearize(one_node(op_type, active, held, opset, **attributes), active).certify_deeply().double
    )


def test_every_operator_that_is_left_out_has_its_case():
    assert IN_SINGLE.keys() == interior._IN_SINGLE.keys()


@pytest.mark.parametrize("name", IN_SINGLE)
def test_what_is_left_out_differs_in_float64(name, monkeypatch):
    """By what float32 rounds: W is right, and would be found wrong."""
    assert deep(*IN_SINGLE[name]).left_out == f"{name} is computed in float32"
    monkeypatch.setattr(interior, "_IN_SINGLE", {})
    assert deep(*IN_SINGLE[name]).in_region_over_bound > 1e4


@pytest.mark.parametrize("name", COMPARED)
def test_what_is_compared_agrees_in_float64(name):
    found = deep(*COMPARED[name])
    assert (found.left_out, found.points) == ("", 4)
    assert found.in_region_over_bound <= 1
    assert found.moved_over_bound > 1e10


# -- the model in float64 ------------------------------------------------------------------------------


def test_what_does_not_depend_on_the_inputs_keeps_the_rounding_of_the_model():
    """From constants, from inputs that are held, and from shapes: a third of them in float32."""
    shape = ("Shape", ["x"], "s")
    nodes = [
        ("Div", ["one", "three"], "c"),
        ("Div", ["h", "three"], "d"),
        shape,
        ("Cast", ["s"], "f"),
        ("Div", ["f", "three"], "e"),
        ("Mul", ["x", "c"], "u"),
        ("Mul", ["u", "d"], "v"),
        ("Mul", ["v", "e"], "y"),
    ]
    proto = model(nodes, {"one": 1.0, "three": 3.0}, {"x": [1], "h": [1]})
    proto.graph.node[3].attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
    feeds = {"x": np.float32([1.5]), "h": np.float32([1])}
    points = [{"x": np.array([1.5])}, {"x": np.array([1.5 + 1e-9])}]
    evaluator, (at_x, at_z) = evaluated(proto, ALONE, ["x"], ["y"], feeds, points)
    assert evaluator == "onnxruntime"
    slope = np.float64(np.float32(1) / np.float32(3)) ** 3
    assert at_x == pytest.approx(1.5 * slope, rel=1e-15)
    assert at_z == pytest.approx((1.5 + 1e-9) * slope, rel=1e-15)


def test_a_model_that_nothing_evaluates_in_float64_says_so():
    proto = one_node(
        "MaxRoiPool", IMAGE, {"rois": np.array([[0, 0, 0, 4, 4]], np.float32)}, 11, pooled_shape=[2, 2]
    )
    points = [{"x": IMAGE["x"].astype(np.float64)}]
    with pytest.raises(ilin.ModelError, match="nothing evaluates it in float64: onnx's reference evaluator"):
        evaluated(proto, ALONE, ["x"], ["y"], IMAGE, points)
