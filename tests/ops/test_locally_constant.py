"""Operators that only jump: W = 0, and their guards say how far that holds."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import ilin
from tests.conformance.oracle import onnxruntime_of

X = np.float32([[0.3, -1.7, 2.0, 0.0, 5.5, -0.5]])
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def model(*nodes, out=(1, 6), **constants):
    graph = make_graph(
        list(nodes),
        "net",
        [make_tensor_value_info("x", FLOAT, [1, 6])],
        [make_tensor_value_info("y", FLOAT, list(out))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=8)


def to_float(name):
    return make_node("Cast", [name], ["y"], to=FLOAT)


OPERATORS = {
    "Floor": (model(make_node("Floor", ["x"], ["y"])), [0.3, 0.3, 0.0, 0.0, 0.5, 0.5]),
    "Ceil": (model(make_node("Ceil", ["x"], ["y"])), [0.3, 0.3, 0.0, 0.0, 0.5, 0.5]),
    "Round": (model(make_node("Round", ["x"], ["y"])), [0.2, 0.2, 0.5, 0.5, 0.0, 0.0]),
    "Sign": (model(make_node("Sign", ["x"], ["y"])), [0.3, 1.7, 2.0, 0.0, 5.5, 0.5]),
    "Cast to int64": (
        model(make_node("Cast", ["x"], ["i"], to=INT64), to_float("i")),
        [0.7, 0.3, 0.0, 1.0, 0.5, 0.5],
    ),
    "Cast to bool": (
        model(make_node("Cast", ["x"], ["i"], to=BOOL), to_float("i")),
        [0.3, 1.7, 2.0, 0.0, 5.5, 0.5],
    ),
    "Greater": (
        model(make_node("Greater", ["x", "one"], ["i"]), to_float("i"), one=np.float32([1])),
        [0.7, 2.7, 1.0, 1.0, 4.5, 1.5],
    ),
    "Equal": (
        model(make_node("Equal", ["x", "two"], ["i"]), to_float("i"), two=np.float32([2])),
        [1.7, 3.7, 0.0, 2.0, 3.5, 2.5],
    ),
    "ArgMax": (
        model(make_node("ArgMax", ["x"], ["i"], axis=1), to_float("i"), out=(1, 1)),
        [3.5],
    ),
    "ArgMin": (
        model(make_node("ArgMin", ["x"], ["i"], axis=1, keepdims=0), to_float("i"), out=(1,)),
        [1.2],
    ),
    "Hardmax": (model(make_node("Hardmax", ["x"], ["y"], axis=1)), [3.5]),
}


@pytest.mark.parametrize(("proto", "margins"), OPERATORS.values(), ids=OPERATORS)
def test_the_answer_is_constant_verified_and_knows_its_margins(proto, margins):
    compiled = ilin.compile(proto)
    affine = compiled.at(X)
    assert affine.kind == "locally constant"
    assert not affine.W.any()
    np.testing.assert_array_equal(affine.b, onnxruntime_of(proto)({"x": X})["y"].ravel())
    ((_, guard),) = compiled._asked(X, "all").program.guarded
    np.testing.assert_allclose(np.ravel(guard.margin), margins, atol=1e-6)
    assert affine.certificate.verified
    assert affine.certificate.ties == sum(margin == 0 for margin in margins)
    assert "only by jumps" in affine.notes[-1]


@pytest.mark.parametrize(("proto", "margins"), OPERATORS.values(), ids=OPERATORS)
def test_the_half_spaces_are_the_inequalities_that_hold_at_x(proto, margins):
    """At x each is as far from its edge as the margin says."""
    ((_, guard),) = ilin.compile(proto)._asked(X, "all").program.guarded
    spaces = guard.half_spaces()
    slack = sum(L.apply(X[None])[0].ravel() for _, L in spaces.terms) + np.ravel(spaces.offset)
    assert (slack >= -1e-6).all()
    rows = slack.reshape(-1, len(margins)) if len(margins) > 1 else slack[:, None]
    nearest = np.where(np.abs(_weights(spaces)).reshape(rows.shape) > 0, rows, np.inf).min(axis=0)
    nearest[np.isinf(nearest)] = 0  # equality has no inside: it holds on a hyperplane alone
    np.testing.assert_allclose(nearest, margins, atol=1e-6)


def _weights(spaces):
    return sum(np.abs(L.matrix()).sum(axis=1) for _, L in spaces.terms)


def test_a_select_by_comparison_is_piecewise_linear_through_its_guard():
    """x · (x > 1) jumps at 1: the map on either side is exact there and is not carried over the jump."""
    proto = model(
        make_node("Greater", ["x", "one"], ["i"]),
        make_node("Cast", ["i"], ["mask"], to=FLOAT),
        make_node("Mul", ["x", "mask"], ["y"]),
        one=np.float32([1]),
    )
    affine = ilin.linearize(proto, X)
    assert affine.kind == "piecewise-linear"
    np.testing.assert_array_equal(affine.W, np.diag(X[0] > 1))
    assert affine.certificate.verified
    assert affine.certificate.points_held
    assert affine.notes == (
        "the input also acts by jumps, at node 'i' (Greater); a small change sets none of them off, so the "
        "weights (W) do not show them",
    )


def test_the_last_of_equals_is_the_one_that_the_node_asks_for():
    proto = model(make_node("ArgMax", ["x"], ["i"], axis=1, select_last_index=1), to_float("i"), out=(1, 1))
    tied = np.float32([[1, 3, 0, 3, 2, 2]])
    ((_, guard),) = ilin.compile(proto)._asked(tied, "all").program.guarded
    assert np.ravel(guard.choice) == [3]
    assert np.ravel(guard.margin) == [0]


def test_positions_that_depend_on_values_hold_as_long_as_they_stay():
    proto = model(
        make_node("NonZero", ["x"], ["i"]), make_node("Shape", ["i"], ["s"]), to_float("s"), out=(2,)
    )
    affine = ilin.linearize(proto, X)
    np.testing.assert_array_equal(affine.b, [2, 5])
    assert affine.certificate.verified


def test_a_shape_that_depends_on_values_ends_the_region_where_it_changes():
    """Unique entries of x with two equal ones: as soon as these part, there is one entry more."""
    proto = model(make_node("Unique", ["x"], ["u"]), make_node("Relu", ["u"], ["y"]), out=(5,))
    affine = ilin.linearize(proto, np.float32([[1, 2, 3, 3, 4, 5]]))
    assert affine.W.shape == (5, 6)
    assert affine.certificate.verified


def test_triangles_over_a_spectrum_jump_with_their_edges():
    held = {"bins": np.array(8), "length": np.array(64), "rate": np.array(8192)}
    graph = make_graph(
        [make_node("MelWeightMatrix", ["bins", "length", "rate", "low", "high"], ["y"])],
        "net",
        [make_tensor_value_info(name, FLOAT, []) for name in ("low", "high")],
        [make_tensor_value_info("y", FLOAT, [33, 8])],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    proto = make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=8)
    x = {"low": np.array(100, np.float32), "high": np.array(4000, np.float32)}
    affine = ilin.linearize(proto, x)
    assert affine.kind == "locally constant"
    assert affine.certificate.verified
    run = onnxruntime_of(proto)
    np.testing.assert_array_equal(affine.b, run(x)["y"].ravel())
    np.testing.assert_array_equal(run({**x, "high": np.array(4001, np.float32)})["y"], run(x)["y"])
    assert not np.array_equal(run({**x, "high": np.array(3000, np.float32)})["y"], run(x)["y"])
