"""If, Loop and Scan along the way that x takes, against onnxruntime (by the certificate) and maps by hand."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner

import ilin
from ilin.command_line import main
from ilin.compiler.observer import Observer
from ilin.compiler.paths import OffPath
from ilin.compiler.to_folder import linearize_to
from ilin.ops import REGISTRY, Entry
from ilin.runtime.program import Kind


@pytest.fixture(autouse=True)
def comparisons(monkeypatch):
    """The operators that conditions are made of jump, wherever they have no rule of their own yet."""
    for op_type in ("Greater", "Less", "Not", "And", "Or"):
        if ("", op_type) not in REGISTRY:
            entry = Entry(op_type, "", Kind.LOCALLY_CONSTANT, None)
            monkeypatch.setitem(REGISTRY, ("", op_type), entry)


def model_of(text, opset=17):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')


def verified(affine, points=1):
    assert affine.certificate.verified, affine.certificate
    assert affine.certificate.points_held == points, affine.certificate
    return affine


IF = """
if_by_sign (float[3] x) => (float[3] y) {
  zero = Constant <value = float {0.0}> ()
  total = ReduceSum <keepdims = 0> (x)
  positive = Greater (total, zero)
  [choose] y = If (positive) <
    then_branch = doubled () => (float[3] out) {
      two = Constant <value = float {2.0}> ()
      h = Relu (x)
      out = Mul (h, two)
    },
    else_branch = negated () => (float[3] out) { h = Neg (x)  out = Add (h, total) }
  >
}"""


def test_if_takes_the_branch_of_x():
    compiled = ilin.compile(model_of(IF))
    above = verified(compiled.at(np.array([3, -1, 0.5], np.float32)))
    below = verified(compiled.at(np.array([-3, 1, 0.5], np.float32)))
    np.testing.assert_array_equal(above.W, np.diag([2, 0, 2]))
    np.testing.assert_array_equal(below.W, np.ones((3, 3)) - np.eye(3))
    assert above.kind == below.kind == "piecewise-linear"  # the second one's nodes are affine
    assert [layer.name for layer in above.layers] == ["choose/then/Relu", "choose/then/Mul"]


def test_fresh_points_are_those_that_take_the_same_branch():
    compiled = ilin.compile(model_of(IF))
    x = np.array([1, -1, 1e-3], np.float32)  # a step of a thousandth leads to the other branch
    verified(compiled.at(x))
    trace = compiled._observer.trace({"x": x})
    with pytest.raises(OffPath):
        compiled._observer.probe(trace, {"x": np.array([1, -1, -1e-3], np.float32)})
    there = compiled._observer.probe(trace, {"x": np.array([1, -1, 2e-3], np.float32)})
    np.testing.assert_array_equal(there.values["y"], np.array([2, 0, 4e-3], np.float32))


def test_one_flat_graph_is_kept_for_each_way():
    compiled = ilin.compile(model_of(IF))
    points = ([1, 1, 1], [-1, -1, -1], [2, 1, -1], [-2, 0, 1])
    paths = [compiled._observer.trace({"x": np.array(x, np.float32)}).path for x in points]
    assert paths[0] is paths[2]
    assert paths[1] is paths[3]
    assert paths[0] is not paths[1]


def test_models_without_composite_nodes_are_observed_as_they_are():
    text = "plain (float[2] x) => (float[2] y) { y = Relu (x) }"
    assert type(ilin.compile(model_of(text))._observer) is Observer


def test_many_points_on_several_ways():
    X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    found = list(ilin.compile(model_of(IF)).at_many(X))
    assert {affine.W[0, 1] for affine in found} == {0, 1}
    for affine, x in zip(found, X, strict=True):
        verified(affine)
        np.testing.assert_allclose(affine.W @ x + affine.b, affine.y.ravel(), atol=1e-6)


@pytest.mark.parametrize("engine", ["sparse", "matrix-free", "adjoint", "fused"])
def test_what_is_fixed_on_one_way_is_another_on_the_other(engine, tmp_path):
    """Both branches have the same structure, and differ in a parameter alone."""
    text = """
    slopes (float[1, 3] x) => (float[1, 3] y) {
      zero = Constant <value = float {0.0}> ()
      two = Constant <value = float {2.0}> ()
      three = Constant <value = float {3.0}> ()
      total = ReduceSum <keepdims = 0> (x)
      positive = Greater (total, zero)
      z = Relu (x)
      y = If (positive) <
        then_branch = a () => (float[1, 3] out) { out = Mul (z, two) },
        else_branch = b () => (float[1, 3] out) { out = Mul (z, three) }
      >
    }"""
    compiled = ilin.compile(model_of(text), engine=engine)
    X = np.array([[[2, 1, -1]], [[-5, 1, 1]], [[1, 1, 1]], [[-3, 1, 1]]], np.float32)
    for affine, x in zip(compiled.at_many(X), X, strict=True):
        slope = 2 if x.sum() > 0 else 3
        np.testing.assert_array_equal(affine.W, np.diag(slope * (x.ravel() > 0)))
        verified(affine)
    for number, x in enumerate(X):
        slope = 2 if x.sum() > 0 else 3
        on_disk = linearize_to(compiled, tmp_path / str(number), x)
        np.testing.assert_array_equal(on_disk.W, np.diag(slope * (x.ravel() > 0)))


UNTIL = """
until_large (float[2] x) => (float[2] y, float[n, 2] all) {
  yes = Constant <value = bool {1}> ()
  most = Constant <value = int64 {20}> ()
  limit = Constant <value = float {10.0}> ()
  two = Constant <value = float {2.0}> ()
  [grow] y, all = Loop (most, yes, x) <
    body = step (int64 i, bool go, float[2] h) => (bool on, float[2] next, float[2] seen) {
      next = Mul (h, two)
      seen = Add (next, x)
      total = ReduceSum <keepdims = 0> (next)
      on = Less (total, limit)
    }
  >
}"""


def test_a_loop_runs_as_often_as_at_x():
    compiled = ilin.compile(model_of(UNTIL))
    for x, trips in (([1, 1], 3), ([4, 4], 1), ([1, 1.5], 2), ([-1, 0], 20), ([0.9, 0.9], 3)):
        affine = verified(compiled.at(np.array(x, np.float32)))
        powers = [2.0 ** (i + 1) for i in range(trips)]
        expected = np.vstack([powers[-1] * np.eye(2), *((power + 1) * np.eye(2) for power in powers)])
        np.testing.assert_array_equal(affine.W, expected)
        assert affine.kind == "piecewise-linear"


NESTED = """
nested (float[4] x, bool flag) => (float[4] y) {
  count = Constant <value = int64 {3}> ()
  zero = Constant <value = float {0.0}> ()
  half = Constant <value = float {0.5}> ()
  outer = Mul (x, half)
  [top] y = If (flag) <
    then_branch = looped () => (float[4] out) {
      [inner] out = Loop (count, , outer) <
        body = step (int64 i, bool go, float[4] h) => (bool on, float[4] next) {
          on = Identity (go)
          total = ReduceSum <keepdims = 0> (h)
          up = Greater (total, zero)
          [pick] moved = If (up) <
            then_branch = a () => (float[4] r) { t = Sub (h, outer)  s = Sub (t, x)  r = Relu (s) },
            else_branch = b () => (float[4] r) { t = Add (h, x)  r = LeakyRelu <alpha = 0.1> (t) }
          >
          next = Sub (moved, half)
        }
      >
    },
    else_branch = handed_on () => (float[4] out) { out = Identity (outer) }
  >
}"""


def by_hand(x):
    outer = h = x / 2
    for _ in range(3):
        up, leaky = np.maximum(h - outer - x, 0), np.where(h + x > 0, h + x, 0.1 * (h + x))
        h = (up if h.sum() > 0 else leaky) - 0.5
    return h


@pytest.mark.parametrize("seed", range(6))
def test_nested_bodies_that_read_from_outside(seed):
    x = np.random.default_rng(seed).standard_normal(4)
    affine = ilin.compile(model_of(NESTED), dtype="float64").at(
        {"x": x.astype(np.float32), "flag": np.array(True)}
    )
    verified(affine)
    x = affine.x["x"].astype(np.float64) if isinstance(affine.x, dict) else affine.x.astype(np.float64)
    columns = [(by_hand(x + step) - by_hand(x - step)) / 2e-7 for step in 1e-7 * np.eye(4)]
    np.testing.assert_allclose(affine.W, np.stack(columns, 1), atol=1e-6)
    assert any(layer.name.startswith("top/then/inner/2/pick/") for layer in affine.layers)


def test_a_branch_that_hands_on_a_tensor_from_outside():
    x = {"x": np.arange(4, dtype=np.float32), "flag": np.array(False)}
    affine = verified(ilin.compile(model_of(NESTED)).at(x))
    np.testing.assert_array_equal(affine.W, np.eye(4) / 2)
    assert affine.kind == "affine"  # x cannot change the flag


def test_between_two_layers_around_a_loop():
    compiled = ilin.compile(model_of(NESTED), inputs=["outer"])
    affine = verified(compiled.at({"x": -np.ones(4, np.float32), "flag": np.array(True)}))
    np.testing.assert_allclose(affine.W, 1e-3 * np.eye(4), rtol=1e-6)


def test_a_loop_without_iterations():
    text = """
    none (float[2] x) => (float[2] y, float[n, 2] all) {
      zero = Constant <value = int64 {0}> ()
      y, all = Loop (zero, , x) <
        body = step (int64 i, bool go, float[2] h) => (bool on, float[2] n, float[2] s) {
          on = Identity (go)  n = Neg (h)  s = Relu (h)
        }
      >
    }"""
    affine = ilin.linearize(model_of(text), np.ones(2, np.float32))
    assert affine.certificate.verified
    np.testing.assert_array_equal(affine.W, np.eye(2))


SCAN = """
scanned (float[2, 5, 3] a, float[5, 2] c, float[2] s)
  => (float[2] last, float[2, 5] back, float[5, 3, 2] on) {
  last, back, on = Scan (s, a, c) <
    num_scan_inputs = 2, scan_input_axes = [1, -2], scan_input_directions = [0, 1],
    scan_output_axes = [-1, 0], scan_output_directions = [1, 0],
    body = step (float[2] h, float[2, 3] p, float[2] q) => (float[2] next, float[2] r, float[3, 2] t) {
      three = Constant <value = float {3.0}> ()
      row = ReduceMax <axes = [1], keepdims = 0> (p)
      sum = Add (row, q)
      next = Sub (sum, h)
      r = Mul (next, three)
      moved = Transpose <perm = [1, 0]> (p)
      t = Add (moved, h)
    }
  >
}"""


def test_scan_axes_and_directions():
    random = np.random.default_rng(1)
    shapes = {"a": (2, 5, 3), "c": (5, 2), "s": (2,)}
    point = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    affine = verified(ilin.compile(model_of(SCAN), dtype="float64").at(point))

    def function(a, c, s):
        h, back, on = s, [], []
        for i in range(5):
            on.append(a[:, i].T + h)
            h = a[:, i].max(1) + c[4 - i] - h
            back.append(3 * h)
        return np.concatenate([np.ravel(v) for v in (h, np.stack(back[::-1], -1), np.stack(on))])

    x = np.concatenate([np.ravel(point[name]).astype(np.float64) for name in shapes])

    def flat(x):
        parts = np.split(x, [30, 40])
        return function(*(part.reshape(shape) for part, shape in zip(parts, shapes.values(), strict=True)))

    columns = [(flat(x + step) - flat(x - step)) / 2e-6 for step in 1e-6 * np.eye(42)]
    np.testing.assert_allclose(affine.W, np.stack(columns, 1), atol=1e-6)


def test_trips_that_depend_on_shapes_need_no_run():
    text = """
    by_shape (float[n, 2] x) => (float[2] y) {
      axis = Constant <value = int64 {0}> ()
      start = Constant <value = float[2] {0.0, 0.0}> ()
      shape = Shape (x)
      count = Gather (shape, axis)
      y = Loop (count, , start) <
        body = step (int64 i, bool go, float[2] h) => (bool on, float[2] next) {
          on = Identity (go)  row = Gather (x, i)  next = Add (h, row)
        }
      >
    }"""
    compiled = ilin.compile(model_of(text))
    for length in (3, 5, 3):
        affine = verified(compiled.at(np.ones((length, 2), np.float32)))
        np.testing.assert_array_equal(affine.W, np.tile(np.eye(2), length))
        assert affine.kind == "affine"
    assert {type(way).__name__ for way in compiled._observer._starts.values()} == {"Path"}


def test_what_would_be_too_many_nodes_is_refused():
    text = """
    endless (float[2] x) => (float[2] y) {
      many = Constant <value = int64 {300000}> ()
      [long] y = Loop (many, , x) <
        body = step (int64 i, bool go, float[2] h) => (bool on, float[2] n) {
          on = Identity (go)  n = Neg (h)
        }
      >
    }"""
    with pytest.raises(
        ilin.UnsupportedError, match=r"'long' \(Loop.*300,000 iterations would be 600,000 nodes"
    ):
        ilin.linearize(model_of(text), np.ones(2, np.float32))


MYSTERY = """
<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
holds_something_unknown (float[2] x) => (float[2] y) {
  three = Constant <value = int64 {3}> ()
  [outer] y = Loop (three, , x) <
    body = step (int64 i, bool go, float[2] h) => (bool on, float[2] n) {
      on = Identity (go)
      [inside] n = com.example.Mystery (h)
    }
  >
}"""


def test_an_unsupported_node_in_a_body_is_named_before_anything_runs():
    with pytest.raises(ilin.UnsupportedError) as caught:
        ilin.compile(onnx.parser.parse_model(MYSTERY))
    text = str(caught.value)
    assert text.startswith("node 'outer' (Loop, ai.onnx opset 17): no rule for this operator")
    assert "holds node 'outer/0/inside' (Mystery, com.example opset 1), which has none either" in text
    assert "it reads 'x'" in text


def test_inspect_judges_by_what_bodies_hold(tmp_path):
    onnx.save(model_of(NESTED), tmp_path / "nested.onnx")
    onnx.save(onnx.parser.parse_model(MYSTERY), tmp_path / "mystery.onnx")
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "nested.onnx"), "--json"])
    assert result.exit_code == 0, result.output
    verdicts = {node["name"]: node["verdict"] for node in json.loads(result.output)["nodes"]}
    assert verdicts["top"] == "piecewise-linear"
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "mystery.onnx"), "--json"])
    assert result.exit_code == 3
    facts = json.loads(result.output)
    assert facts["obstacle"]["node"] == "outer"
    assert "'outer/0/inside' (Mystery" in facts["obstacle"]["reason"]


def test_one_supported_branch_is_enough_until_x_takes_the_other(monkeypatch):
    monkeypatch.delitem(REGISTRY, ("", "Erf"))
    text = IF.replace("h = Neg (x)", "h = Erf (x)")
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\n{text}'.replace(
            "float[3] x) => (float[3] y", "float[3] x, bool flag) => (float[3] y"
        ).replace("If (positive)", "If (flag)")
    )
    compiled = ilin.compile(model)
    point = {"x": np.ones(3, np.float32), "flag": np.array(False)}
    with pytest.raises(ilin.UnsupportedError, match=r"node 'choose/else/Erf' \(Erf"):
        compiled._observer._path(point)


def test_function_bodies():
    text = "norms (float[2, 3] x) => (float[2] y) { axes = Constant <value = int64[1] {1}> ()\n"
    text += "y = ReduceL1 <keepdims = 0> (x, axes) }"
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    affine = verified(ilin.linearize(model_of(text, 18), x))
    np.testing.assert_array_equal(affine.W, [[1, -1, 1, 0, 0, 0], [0, 0, 0, -1, 1, -1]])


def test_an_explainer_is_made_where_x_decides_nothing(tmp_path):
    with pytest.raises(ilin.UnsupportedError, match=r"which nodes of .* run depends on x"):
        ilin.compile(model_of(IF)).export_explainer(tmp_path / "e.onnx", x=np.ones(3, np.float32))
    point = {
        name: np.zeros(shape, np.float32) for name, shape in {"a": (2, 5, 3), "c": (5, 2), "s": (2,)}.items()
    }
    ilin.compile(model_of(SCAN)).export_explainer(tmp_path / "e.onnx", x=point)
    assert (tmp_path / "e.onnx").exists()
