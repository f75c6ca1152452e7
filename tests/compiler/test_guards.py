"""Guards: winners, margins and ties by their definitions, and nothing worked out before it is read."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin

from ..conformance.oracle import onnxruntime_of


def model(op_type, shape, opset=18, initializers=None, **attributes):
    """One node on x."""
    initializers = {k: np.asarray(v) for k, v in (initializers or {}).items()}
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", *initializers], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)  # of y


def program_at(proto, x):
    """The linear program at x."""
    compiled = ilin.compile(proto)
    return compiled._lower(compiled._observer.trace({"x": x}))


def guards_at(proto, x):
    """The guards of the one step at x."""
    (step,) = program_at(proto, x).steps
    return step.guards


def tied(shape, seed=0):
    """Few distinct values, zeros of both signs among them."""
    return np.random.default_rng(seed).choice(np.float32([-1, -0.0, 0.0, 0.5, 1]), shape)


def continuous(shape, seed=0):
    """Values that nowhere tie, most of them below zero, so that a padding of zeros would win."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32) - 1


POOLS = {
    "1-D": ((1, 2, 11), {"kernel_shape": [3], "strides": [2]}),
    "overlapping": ((2, 3, 7, 6), {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 1, 1]}),
    "one tap": ((1, 2, 4, 4), {"kernel_shape": [1, 1]}),
    "one tap left by padding": (
        (1, 1, 2, 3),
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]},
    ),
    "dilated": ((1, 2, 8, 7), {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 1, 1, 1]}),
    "dilated beyond the row": (
        (1, 1, 6, 3),
        {"kernel_shape": [3, 2], "dilations": [1, 3], "pads": [0, 1, 0, 1]},
    ),
    "ceiling": ((1, 1, 8, 8), {"kernel_shape": [3, 3], "strides": [3, 2], "ceil_mode": 1}),
    "same lower": ((1, 1, 5, 6), {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "more taps than a byte counts": ((1, 1, 18, 18), {"kernel_shape": [17, 17]}),
    "3-D": ((1, 2, 4, 5, 4), {"kernel_shape": [2, 2, 3], "strides": [1, 2, 2]}),
}


def windows(shape, out_shape, attributes):
    """Flat positions in x that each window reads, in row-major order of the taps, by the definition."""
    rank = len(shape) - 2
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    begin = attributes.get("pads", [0] * 2 * rank)[:rank]
    if attributes.get("auto_pad") == "SAME_LOWER":
        total = [(-(-i // s) - 1) * s + k - i for i, s, k in zip(shape[2:], strides, kernel, strict=True)]
        begin = [-(-max(0, t) // 2) for t in total]
    for n, c, *o in product(*map(range, out_shape)):
        read = []
        for tap in product(*map(range, kernel)):
            at = [a * s + t * d - p for a, s, t, d, p in zip(o, strides, tap, dilations, begin, strict=True)]
            if all(0 <= a < size for a, size in zip(at, shape[2:], strict=True)):
                read.append(int(np.ravel_multi_index((n, c, *at), shape)))
        yield read


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("draw", [tied, continuous])
def test_a_pool_keeps_the_first_winner_and_its_lead_over_the_runner_up(name, draw):
    shape, attributes = POOLS[name]
    proto = model("MaxPool", shape, **attributes)
    x = draw(shape)
    out_shape = onnxruntime_of(proto)({"x": x})["y"].shape

    (guard,) = guards_at(proto, x)

    flat = x.ravel()
    read = list(windows(shape, out_shape, attributes))
    winners = [max(group, key=lambda at: flat[at]) for group in read]  # max keeps the first among equals
    ranked = [sorted((flat[at] for at in group), reverse=True) for group in read]
    margins = [values[0] - values[1] if len(values) > 1 else np.inf for values in ranked]
    np.testing.assert_array_equal(guard.choice, np.reshape(winners, out_shape))
    np.testing.assert_array_equal(guard.margin, np.reshape(np.float32(margins), out_shape))
    assert guard.ties == margins.count(0)
    if draw is tied and len(read) > 10 and name != "one tap":
        assert guard.ties > 0


@pytest.mark.parametrize("name", POOLS)
def test_a_pools_half_spaces_are_winner_minus_each_loser(name):
    shape, attributes = POOLS[name]
    proto = model("MaxPool", shape, **attributes)
    x = continuous(shape)
    (step,) = program_at(proto, x).steps
    (guard,) = step.guards

    terms = guard.half_spaces().terms
    gaps = np.sum([L.apply(x[None])[0] for _, L in terms], axis=0)

    flat, expected = x.ravel(), []
    for group in windows(shape, step.shape, attributes):
        top = max(flat[at] for at in group)
        expected += [top - flat[at] for at in group if flat[at] < top]
    np.testing.assert_array_equal(np.sort(gaps), np.sort(np.float32(expected)))


REDUCTIONS = {
    "one axis": ("ReduceMax", (3, 4, 5), 18, {"axes": np.int64([1])}, {"keepdims": 0}, (1,)),
    "two axes apart": ("ReduceMax", (3, 4, 5), 18, {"axes": np.int64([2, 0])}, {"keepdims": 1}, (0, 2)),
    "all axes": ("ReduceMax", (3, 4), 18, {}, {"keepdims": 0}, (0, 1)),
    "smallest": ("ReduceMin", (3, 4, 5), 18, {"axes": np.int64([0])}, {"keepdims": 1}, (0,)),
    "single entries": ("ReduceMin", (3, 1, 2), 18, {"axes": np.int64([1])}, {"keepdims": 0}, (1,)),
    "global pool": ("GlobalMaxPool", (2, 3, 4, 5), 18, {}, {}, (2, 3)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("draw", [tied, continuous])
def test_a_reduction_keeps_the_first_winner_and_its_lead_over_the_runner_up(name, draw):
    op_type, shape, opset, parameters, attributes, axes = REDUCTIONS[name]
    proto = model(op_type, shape, opset, parameters, **attributes)
    x = draw(shape)

    (step,) = program_at(proto, x).steps
    (guard,) = step.guards

    sign = -1 if op_type == "ReduceMin" else 1
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    groups: dict[tuple[int, ...], list[int]] = {}
    for at in product(*map(range, shape)):
        groups.setdefault(tuple(at[axis] for axis in kept), []).append(np.ravel_multi_index(at, shape))
    flat = sign * x.ravel()
    # The order of entries in a group is that of x, in which axes come in their own order.
    winners = [max(group, key=lambda at: flat[at]) for group in groups.values()]
    ranked = [sorted((flat[at] for at in group), reverse=True) for group in groups.values()]
    margins = [values[0] - values[1] if len(values) > 1 else np.inf for values in ranked]
    np.testing.assert_array_equal(guard.choice.ravel(), winners)
    np.testing.assert_array_equal(guard.margin.ravel(), np.float32(margins))
    assert (
        guard.choice.shape == guard.margin.shape == step.shape == onnxruntime_of(proto)({"x": x})["y"].shape
    )


@pytest.mark.parametrize("op_type", ["Max", "Min"])
@pytest.mark.parametrize("draw", [tied, continuous])
def test_max_and_min_keep_the_first_operand_and_its_lead_over_the_next(op_type, draw):
    shape = (2, 3, 4)
    others = {"a": draw((3, 1), seed=1), "b": draw((4,), seed=2)}
    x = draw(shape)

    (guard,) = guards_at(model(op_type, shape, initializers=others), x)

    stacked = np.stack([np.broadcast_to(v, shape) for v in (x, *others.values())])
    signed = stacked if op_type == "Max" else -stacked
    ranked = np.sort(signed, axis=0)
    np.testing.assert_array_equal(guard.choice, signed.argmax(axis=0))
    np.testing.assert_array_equal(guard.margin, ranked[-1] - ranked[-2])
    assert guard.ties == int((ranked[-1] == ranked[-2]).sum())


KINKS = {
    "Relu": ({}, {}, (0.0,)),
    "Abs": ({}, {}, (0.0,)),
    "LeakyRelu": ({}, {"alpha": 0.25}, (0.0,)),
    "PRelu": ({"slope": np.float32([0.5])}, {}, (0.0,)),
    "Clip": ({"low": np.float32(-1), "high": np.float32(0.5)}, {}, (-1.0, 0.5)),
    "HardSigmoid": ({}, {"alpha": 0.5, "beta": 0.5}, (-1.0, 1.0)),
}


@pytest.mark.parametrize("op_type", KINKS)
def test_an_elementwise_kink_is_as_far_as_the_value_from_it(op_type):
    parameters, attributes, kinks = KINKS[op_type]
    x = tied((4, 5))

    guards = guards_at(model(op_type, (4, 5), initializers=parameters, **attributes), x)

    assert len(guards) == len(kinks)
    for guard, kink in zip(guards, kinks, strict=True):
        np.testing.assert_array_equal(guard.choice, x > kink)
        np.testing.assert_array_equal(guard.margin, np.abs(x - np.float32(kink)))
        assert guard.ties == int((x == kink).sum()) > 0


@pytest.mark.parametrize("op_type", ["Relu", "MaxPool", "GlobalMaxPool"])
def test_a_margin_is_worked_out_once_and_only_when_read(op_type):
    attributes = {"kernel_shape": [2, 2]} if op_type == "MaxPool" else {}
    shape = (1, 2, 4, 4)

    (guard,) = guards_at(model(op_type, shape, **attributes), tied(shape))

    assert "margin" not in vars(guard)
    assert guard.margin is guard.margin


def test_margins_are_those_at_x_however_late_they_are_read():
    shape = (1, 1, 4, 4)
    proto = model("MaxPool", shape, kernel_shape=[2, 2])
    x = continuous(shape)
    compiled = ilin.compile(proto)
    affine = compiled.at(x)
    trace = compiled._observer.trace({"x": x.copy()})
    (step,) = compiled._lower(trace).steps
    expected = guards_at(proto, x.copy())[0].margin

    for held in (affine.x, affine.y, trace.values["x"], trace.values["y"]):
        with pytest.raises(ValueError, match="read-only"):
            held[...] = 0

    np.testing.assert_array_equal(step.guards[0].margin, expected)
    assert math.isfinite(float(expected.max()))


def test_windows_are_compared_in_the_type_that_the_model_has():
    x = np.float64([1.0, 1.0 + 1e-12, 0.0, 1.0]).reshape(1, 1, 2, 2)
    proto = model("MaxPool", x.shape, kernel_shape=[2, 2])
    for put in (proto.graph.input[0], proto.graph.output[0]):
        put.type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.checker.check_model(proto)

    (guard,) = guards_at(proto, x)

    assert guard.choice.ravel().tolist() == [1]
    assert guard.margin.ravel().tolist() == [(1.0 + 1e-12) - 1.0]


@pytest.mark.parametrize("seed", range(4))
def test_a_unit_on_its_kink_may_be_on_either_side_by_rounding(seed):
    """Relu of (2 x + c) / 3 on a grid of halves: some sums are 0 at x, and rounded to either side near it."""
    random = np.random.default_rng(seed)
    c, x = (random.integers(-3, 4, (2, 3, 6)).astype(np.float32) / 2 for _ in range(2))
    graph = helper.make_graph(
        [helper.make_node("Mean", ["x", "c", "x"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(c, "c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    affine = ilin.linearize(model, x)
    assert affine.certificate.ties
    assert affine.certificate.verified, str(affine.certificate)
