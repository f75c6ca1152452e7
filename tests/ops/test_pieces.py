"""Piecewise-linear operators: winners at ties, the half-spaces of a piece, and what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from onnx import TensorProto, helper

import ilin
from ilin.ops import REGISTRY
from ilin.runtime.program import Kind

from ..conformance.cases import Case
from ..conformance.oracle import onnxruntime_of
from .nodes import case_of
from .test_indexing import NODES, X, ints, numbers

PIECEWISE = [
    name
    for name, (op_type, *_) in NODES.items()
    if REGISTRY["", op_type].kind is Kind.PIECEWISE_LINEAR and "half precision" not in name
]


def case_and_active(name):
    op_type, inputs, opset, attributes, *active = NODES[name]
    case = case_of(op_type, inputs, opset, 2 if op_type == "TopK" else 1, **attributes)
    return case, active[0] if active else ("x",)


def step_at(compiled, feeds):
    (step,) = compiled._lower(compiled._observer.trace(feeds)).steps
    return step


def sides(step, guard, feeds):
    """What the half-spaces of a guard say at a point: positive inside."""
    spaces = guard.half_spaces()
    found = np.asarray(spaces.offset, np.float64)
    for position, L in spaces.terms:
        found = found + L.apply(feeds[step.operands[position]][None].astype(np.float64))[0]
    return found


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_choice_is_kept_just_where_its_half_spaces_hold(name):
    case, active = case_and_active(name)
    compiled = ilin.compile(case.model, inputs=active, dtype="float64")
    step = step_at(compiled, case.feeds)
    random = np.random.default_rng(3)
    kept = []
    for size, _ in product((1e-4, 0.01, 0.1, 0.5, 2.0), range(5)):
        moved = {n: case.feeds[n] + size * random.standard_normal(case.feeds[n].shape) for n in active}
        z = {**case.feeds, **{n: v.astype(case.feeds[n].dtype) for n, v in moved.items()}}
        for here, there in zip(step.guards, step_at(compiled, z).guards, strict=True):
            same = np.array_equal(here.choice, there.choice)
            assert same == bool((sides(step, here, z) > 0).all())
            kept.append(same)
    for guard in step.guards:
        np.testing.assert_allclose(
            np.min(guard.margin, initial=np.inf),
            np.min(sides(step, guard, case.feeds), initial=np.inf),
            rtol=1e-5,
        )
    assert set(kept) == ({True, False} if step.guards else set())


TIED = np.random.default_rng(0).choice(np.float32([-1, -0.0, 0.0, 1]), (3, 5))


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_takes_the_entries_that_onnxruntime_reports(largest, k):
    case = case_of("TopK", {"x": TIED, "k": ints(k)}, 11, 2, largest=largest)
    both = case.model.__class__.FromString(case.model.SerializeToString())
    both.graph.output.append(helper.make_tensor_value_info("y1", TensorProto.INT64, [3, k]))
    indices = onnxruntime_of(both)(case.feeds)["y1"] + 5 * np.arange(3)[:, None]

    affine = ilin.linearize(case.model, case.feeds, inputs=["x"])

    np.testing.assert_array_equal(affine.W, np.eye(15)[indices.ravel()])
    assert affine.certificate.ties > 0
    assert affine.certificate.verified, str(affine.certificate)


@pytest.mark.parametrize("attributes", [{}, {"sorted": 0}, {"axis": 0}, {"axis": 1, "sorted": 0}], ids=str)
def test_unique_takes_the_first_of_equals(attributes):
    x = np.float32([[2, 1, 1, 2], [0, 3, 3, 0], [2, 1, 1, 2]])
    case = case_of("Unique", {"x": x}, 11, 2, **attributes)
    both = case.model.__class__.FromString(case.model.SerializeToString())
    both.graph.output.append(helper.make_tensor_value_info("y1", TensorProto.INT64, ["n"]))
    first = onnxruntime_of(both)({"x": x})["y1"]
    own = np.arange(12).reshape(3, 4)
    axis = attributes.get("axis")

    affine = ilin.linearize(case.model, x, engine="sparse", dtype="float64")

    taken = own.ravel()[first] if axis is None else np.take(own, first, axis).ravel()
    np.testing.assert_array_equal(affine.W, np.eye(12)[taken])
    np.testing.assert_array_equal(affine.b, 0)
    assert affine.certificate.ties > 0


@pytest.mark.parametrize("reduction", ["max", "min"])
def test_among_equals_data_wins_then_the_first_update(reduction):
    inputs = {"x": np.float32([1, 1, 1]), "i": ints(0, 1, 1, 2), "u": np.float32([1, 2, 2, 0])}
    case = case_of("ScatterElements", inputs, 18, reduction=reduction)
    affine = ilin.linearize(case.model, case.feeds, inputs=["x", "u"])
    first = {"max": [0, 4, 2], "min": [0, 1, 6]}[reduction]  # columns: x, then u
    np.testing.assert_array_equal(affine.W, np.eye(7)[first])
    assert affine.certificate.ties == {"max": 2, "min": 1}[reduction]


@pytest.mark.parametrize("fmod", [0, 1])
def test_a_multiple_of_the_divisor_starts_a_piece(fmod):
    a, b = np.float32([-3, -1.5, 0, 1.5, 3, 1]), np.float32(1.5)
    case = case_of("Mod", {"x": a, "b": b}, 28 if fmod == 0 else 13, fmod=fmod)
    affine = ilin.linearize(case.model, case.feeds, inputs=["x"])
    np.testing.assert_array_equal(affine.W, np.eye(6))
    np.testing.assert_array_equal(affine.b, [3, 1.5, 0, -1.5, -3, 0])
    assert affine.certificate.ties == (5 if fmod == 0 else 4)  # towards zero, 0 is within its piece


def test_the_ends_of_shrink_lie_between_them():
    x = np.float32([-2, -1, 0, 1, 2])
    affine = ilin.linearize(case_of("Shrink", {"x": x}, 9, lambd=1.0, bias=0.5).model, x)
    np.testing.assert_array_equal(affine.W, np.diag([1, 0, 0, 0, 1]))
    np.testing.assert_array_equal(affine.b, [0.5, 0, 0, 0, -0.5])
    assert affine.certificate.ties == 2


def test_top_k_of_none():
    affine = ilin.linearize(case_of("TopK", {"x": X, "k": ints(0)}, 11, 2).model, {"x": X, "k": ints(0)})
    assert affine.W.shape == (0, 12)


def test_a_range_is_as_long_as_onnxruntime_makes_it():
    """Of float32 numbers, 0.3 / 0.1 is a little above 3, and 3 once it is rounded to float32."""
    puts = {"start": np.float32(0), "limit": np.float32(0.3), "delta": np.float32(0.1)}
    affine = ilin.linearize(case_of("Range", puts, 11).model, puts, inputs=["start"])
    np.testing.assert_array_equal(affine.W, np.ones((4, 1)))
    assert affine.certificate.verified, str(affine.certificate)


TARGETS = {"t": ints(0, 1), "w": numbers(3)}
REFUSED = {
    "products of data and updates": (
        *("ScatterElements", {"x": X, "i": ints([1, 0, 0, 2]), "u": numbers(1, 4)}, 16, {"reduction": "mul"}),
        *(("x", "u"), "multiplies two values that both depend on x"),
    ),
    "products of updates": (
        *("ScatterElements", {"x": X, "i": ints([1], [1]), "u": numbers(2, 1)}, 16, {"reduction": "mul"}),
        *(("u",), "multiplies two values that both depend on x"),
    ),
    "an order left open": (
        *("TopK", {"x": X, "k": ints(2)}, 11, {"sorted": 0}),
        *(("x",), "the order of the values is left open; set sorted to 1"),
    ),
    "a mean by active weights": (
        *("NegativeLogLikelihoodLoss", {"x": numbers(2, 3), **TARGETS}, 13, {}),
        *(("w",), "its mean divides by the sum of weights that depend on x"),
    ),
    "scores and weights": (
        *("NegativeLogLikelihoodLoss", {"x": numbers(2, 3), **TARGETS}, 13, {"reduction": "sum"}),
        *(("x", "w"), "multiplies two values that both depend on x"),
    ),
    "no norm": ("GlobalLpPool", {"x": numbers(1, 2, 3)}, 2, {"p": -1}, ("x",), "p = -1 makes no norm"),
    "hot numbers": (
        *("OneHot", {"x": np.float32([0, 1]), "d": np.float32(2), "v": np.float32([0, 1])}, 11, {}),
        *(("x",), "its parameter 'x' depends on x"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_affine_is_refused(name):
    op_type, inputs, opset, attributes, active, message = REFUSED[name]
    case = case_of(op_type, inputs, opset, 2 if op_type == "TopK" else 1, **attributes)
    with pytest.raises(ilin.UnsupportedError, match=message) as raised:
        ilin.linearize(case.model, case.feeds, inputs=active)
    assert op_type in str(raised.value)


def test_the_bits_of_a_number_are_refused():
    nodes = [
        helper.make_node("BitCast", ["x"], ["bits"], to=TensorProto.INT32),
        helper.make_node("Cast", ["bits"], ["y"], to=TensorProto.FLOAT),
    ]
    puts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph(nodes, "bits", puts[:1], puts[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)], ir_version=10)
    case = Case("bits", model, (np.float32([1, 2]),))
    with pytest.raises(ilin.UnsupportedError, match=r"BitCast.* reads the bits of a value that depends on x"):
        ilin.linearize(case.model, case.feeds)


def test_like_a_whole_number_is_refused():
    nodes = [helper.make_node("CastLike", ["x", "k"], ["n"]), helper.make_node("CastLike", ["n", "x"], ["y"])]
    puts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    k = helper.make_tensor("k", TensorProto.INT64, [1], [3])
    graph = helper.make_graph(nodes, "like", puts[:1], puts[1:], [k])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    with pytest.raises(ilin.UnsupportedError, match=r"CastLike.* casts a value that depends on x to a type"):
        ilin.linearize(model, np.float32([1.2, 2.5]))


def test_a_number_of_the_type_of_x():
    """Where only the type depends on x, the value does not change around it."""
    case = case_of("CastLike", {"k": ints(3, 4), "x": np.float32([0.5])}, 19)
    affine = ilin.linearize(case.model, case.feeds, inputs=["x"])
    np.testing.assert_array_equal(affine.W, np.zeros((2, 1)))
    np.testing.assert_array_equal(affine.b, [3, 4])
