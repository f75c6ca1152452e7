"""What a certificate says on its two levels, as data and in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

import ilin
from ilin.compiler import combined, inside, verify
from ilin.compiler.observer import Observer
from ilin.compiler.pipeline import CompiledModel
from ilin.ops import REGISTRY
from ilin.runtime.certificate import Certificate
from ilin.runtime.primitives import Chain, Scale
from ilin.runtime.session import ReferenceSession

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "certificate.schema.json").read_text())
DIGITS = ROOT / "examples" / "digits"


def model(*nodes: str, shape: str = "1,4") -> onnx.ModelProto:
    """Nodes from x to y; the first also makes the constants that it names."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> net (float[{shape}] x) => (float[N,M] y) {{'
    return onnx.parser.parse_model(text + "\n".join(nodes) + "}")


W = "W = Constant<value = float[4,3] {1, 2, 3, -1, 1, 2, 2, -3, 1, 1, 1, -2}> ()"
KINDS = {
    "affine": (W, "y = MatMul(x, W)"),
    "piecewise-linear": (W, "u = MatMul(x, W)", "y = Relu(u)"),
    "locally constant": (W, "u = MatMul(x, W)", "y = Floor(u)"),
    "smooth": (W, "u = MatMul(x, W)", "y = Sigmoid(u)"),
}
X = np.array([[0.7, -0.4, 0.2, 1.1]], np.float32)


@pytest.fixture(scope="module")
def digits() -> ilin.AffineMap:
    return ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("deep", [False, True], ids=["default", "deep"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_describes_every_certificate(kind, deep, dtype):
    affine = ilin.linearize(model(*KINDS[kind]), X, dtype=dtype)
    found = affine.certify_deeply() if deep else affine.certificate
    assert found.verified, str(found)
    assert found.kind == affine.kind == kind
    assert found.level == ("deep" if deep else "default")
    assert (found.double is not None) is deep
    data = found.as_dict()
    jsonschema.validate(data, SCHEMA, jsonschema.Draft202012Validator)
    assert Certificate.from_dict(json.loads(json.dumps(data))) == found


def test_the_schema_describes_a_certificate_of_a_real_network(digits):
    for found in (digits.certificate, digits.certify_deeply()):
        jsonschema.validate(found.as_dict(), SCHEMA, jsonschema.Draft202012Validator)
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == set(digits.certificate.as_dict())


def test_deep_takes_the_place_of_default():
    affine = ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy"))
    assert (affine.certificate.steps, affine.certificate.points_held) == (None, 1)
    deep = affine.certify_deeply()
    assert affine.certificate is deep
    assert (deep.steps.compared, deep.points_held) == (14, 4)
    assert [row.node for row in deep.by_step] == [layer.name for layer in affine.layers]
    assert deep.steps.worst == max(row.over_bound for row in deep.by_step)
    assert all(row.deviation <= row.bound for row in deep.by_step)


def test_a_certificate_of_an_older_version_is_read():
    old = {
        "verified": True,
        "steps": {"passed": True, "worst": 0.1, "worst_node": "a", "first_bad_node": "", "compared": 3},
        "at_x": 0.0,
        "at_x_over_bound": 0.0,
        "in_region": 0.0,
        "in_region_over_bound": 0.0,
        "points_tried": 2,
        "points_held": 2,
        "ties": 0,
        "guards": 5,
        "reason": "",
        "slopes": None,
    }
    found = Certificate.from_dict(old)
    assert found.verified
    assert found.steps.compared == 3
    assert (found.by_step, found.double) == ((), None)


@pytest.mark.parametrize(("kind", "nodes"), [("smooth", ("gate",)), ("locally constant", ("steps",))])
def test_the_nodes_that_decide_the_kind_are_named(kind, nodes):
    proto = model(*KINDS[kind])
    proto.graph.node[-1].name = nodes[0]
    assert ilin.linearize(proto, X).certificate.decided_by == nodes


def test_the_page_runs(monkeypatch):
    """The block of docs/certificate.md, as it stands there."""
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "certificate.md").read_text()
    block = page.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(block, names)
    assert names["deep"] is names["affine"].certificate
    for field in SCHEMA["properties"]:
        assert f"`{field}`" in page, field


# -- the default level ------------------------------------------------------------------------------


def test_it_runs_the_model_once_more_and_no_step_by_itself(monkeypatch):
    runs = []
    probe = Observer.probe
    monkeypatch.setattr(Observer, "probe", lambda *given: runs.append(given) or probe(*given))
    monkeypatch.setattr(Observer, "audit", None)
    monkeypatch.setattr(verify, "check_steps", None)
    affine = ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy"))
    assert affine.certificate.verified
    assert len(runs) == affine.certificate.points_tried == 1


@pytest.mark.parametrize("level", ["default", "deep"])
def test_a_record_goes_on_with_the_points_of_the_certificate(monkeypatch, level):
    """Every point is looked at once, and the record is that of a map that was saved at once."""
    x = np.load(DIGITS / "x.npy")
    at_once = ilin.linearize(DIGITS / "model.onnx", x).record
    looked = []
    probe = Observer.probe
    monkeypatch.setattr(Observer, "probe", lambda self, trace, z: looked.append(z) or probe(self, trace, z))
    affine = ilin.linearize(DIGITS / "model.onnx", x)
    found = affine.certificate if level == "default" else affine.certify_deeply()
    before = len(looked)
    np.testing.assert_array_equal(affine.record.bounds, at_once.bounds)
    (name, points), *_ = affine.record.points.items()
    np.testing.assert_array_equal(points, at_once.points[name])
    assert (found.points_held, len(points)) == (1 if level == "default" else 4, 4)
    assert (len(looked) == before) is (level == "deep")
    every = [z[name].tobytes() for z in looked]
    assert len(set(every)) == len(every)
    assert replace(affine).certificate == ilin.linearize(DIGITS / "model.onnx", x).certificate


def test_no_row_is_weighted_away():
    for count in (1, 2, 1000):
        weights = combined.weights_of(count)
        assert np.all(np.abs(weights) >= 1)
        assert len(np.unique(np.abs(weights))) == count


@pytest.fixture
def tampered(monkeypatch):
    """Answers whose W or b is changed after it was composed."""

    def tamper(change):
        original = CompiledModel._compose

        def compose(self, asked, progress=None):
            found = original(self, asked, progress)
            return change(replace(found, W=found.W.copy(), b=found.b.copy()))

        monkeypatch.setattr(CompiledModel, "_compose", compose)
        return ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy"))

    return tamper


@pytest.mark.parametrize(("factor", "by_default"), [(1.1, True), (1.01, False)])
def test_one_wrong_row_is_caught(tampered, factor, by_default):
    """The bound of a combination is that of all its rows, so the deep level, row by row, sees finer."""

    def change(found):
        found.W[6] *= factor
        return found

    affine = tampered(change)
    assert affine.certificate.verified is not by_default
    found = affine.certify_deeply()
    assert not found.verified
    assert found.steps.passed
    assert found.reason.startswith("W x + b differs from onnxruntime's output at x, though every step agrees")


def test_two_exchanged_rows_are_caught(tampered):
    """Their deviations sum to nothing, so a combination by signs alone would miss them half of the time."""

    def change(found):
        found.W[[2, 5]], found.b[[2, 5]] = found.W[[5, 2]], found.b[[5, 2]]
        return found

    assert not tampered(change).certificate.verified


def test_a_wrong_step_is_named_without_being_asked(monkeypatch):
    entry = REGISTRY["", "Gemm"]

    def without_bias(site):
        return replace(entry.rule(site), offset=None)

    monkeypatch.setitem(REGISTRY, ("", "Gemm"), replace(entry, rule=without_bias))
    found = ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy")).certificate
    assert found.level == "default"
    assert found.steps.first_bad_node == "/dense1/Gemm"
    first = next(row for row in found.by_step if row.over_bound > 1)
    assert first.node == "/dense1/Gemm"
    far = f"by {first.deviation:.1e}, and rounding explains {first.bound:.1e}"
    assert found.reason == f"node '/dense1/Gemm' is the first that differs from onnxruntime at x ({far})"


# -- in float64 -------------------------------------------------------------------------------------


def test_double_is_the_distance_to_a_map_composed_in_float64(digits):
    wide = ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy"), dtype="float64")
    double = digits.certify_deeply().double
    assert pytest.approx(np.abs(digits.W - wide.W).max(), rel=1e-6) == double.W
    assert double.b == pytest.approx(np.abs(digits.b - wide.b).max(), rel=1e-6)
    assert double.W_largest == pytest.approx(np.abs(wide.W).max())
    assert 0 < double.over_bound <= 1


def test_a_unit_that_float32_puts_on_the_wrong_side_is_named():
    """100000011 is 100000008 in float32, whose spacing there is 8: the unit is 0 where it would be 3."""
    proto = model(
        "big = Constant<value = float {100000000}> ()",
        "bigger = Constant<value = float {100000008}> ()",
        "a = Add(x, big)",
        "u = Sub(a, bigger)",
        "y = Relu(u)",
        shape="1,2",
    )
    proto.graph.node[-1].name = "decides"
    affine = ilin.linearize(proto, np.array([[11.0, 1000.0]], np.float32))
    double = affine.certify_deeply().double
    assert (double.uncertain, double.otherwise) == (1, 1)
    (unit,) = double.units
    assert (unit.node, unit.op_type, unit.unit, unit.margin) == ("decides", "Relu", (0, 0), -3.0)
    assert unit.bound >= 3
    assert (double.points, double.left_out) == (0, "not comparable: units on the other side in float64: 1")


# -- the model in float64 ---------------------------------------------------------------------------


def cnn() -> tuple[onnx.ModelProto, np.ndarray]:
    """Eight convolutions with random weights, and x; its region at x is thinner than float32's rounding."""
    random = np.random.default_rng(0)
    nodes, weights, name, channels = [], {}, "x", 3
    for layer in range(8):
        weights[f"w{layer}"] = random.standard_normal((16, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5
        weights[f"b{layer}"] = 0.1 * random.standard_normal(16)
        reads = [name, f"w{layer}", f"b{layer}"]
        nodes.append(helper.make_node("Conv", reads, [f"c{layer}"], name=f"conv{layer}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"], name=f"relu{layer}"))
        name, channels = f"r{layer}", 16
    nodes.append(helper.make_node("MaxPool", [name], ["p"], kernel_shape=[2, 2], strides=[2, 2]))
    nodes.append(helper.make_node("Flatten", ["p"], ["f"]))
    weights["d"] = random.standard_normal((16 * 8 * 8, 10)) / 32
    nodes.append(helper.make_node("MatMul", ["f", "d"], ["y"], name="dense"))
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return proto, random.standard_normal((1, 3, 16, 16)).astype(np.float32)


def test_in_float64_a_thin_region_speaks_for_w():
    found = ilin.linearize(*cnn()).certify_deeply()
    assert found.verified, str(found)
    assert found.moved_over_bound < 0.01  # in float32 the points say nothing
    assert found.double.moved_over_bound > 1e5
    assert (found.double.points, found.double.left_out) == (4, "")
    assert found.double.evaluator == "onnx's reference evaluator"  # onnxruntime convolves no float64
    assert found.double.in_region_over_bound <= 1


def test_a_map_in_float64_is_compared_with_the_model_in_float64():
    """With the same composed again it need not be, so what tells of that is left empty."""
    found = ilin.linearize(*cnn(), dtype="float64").certify_deeply()
    assert found.verified, str(found)
    double = found.double
    assert (double.W, double.W_largest, double.b, double.over_bound, double.W_over_bound) == (None,) * 5
    assert (double.points, double.left_out, double.otherwise) == (4, "", 0)
    assert double.moved_over_bound > 1e5
    assert double.in_region_over_bound <= 1
    assert f"; in float64 W within {double.in_region_over_bound:.1e} at 4 points" in str(found)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_operator_is_compared_by_its_products(dtype):
    found = ilin.compile(cnn()[0], dtype=dtype).at(cnn()[1], materialize=False).certify_deeply()
    assert found.verified, str(found)
    double = found.double
    assert (double.W, double.W_largest) == (None, None)  # what its entries are nobody knows
    assert (double.points, double.left_out) == (4, "")
    assert double.moved_over_bound > 1e3
    assert double.in_region_over_bound <= 1
    compared = (double.b, double.over_bound, double.W_over_bound)
    assert all(each is None for each in compared) if dtype == "float64" else max(compared[1:]) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_operator_off_by_one_in_a_hundred_is_caught_whatever_b_hides_it(monkeypatch, dtype):
    from ilin.runtime import operator

    right = operator.ProgramOperator._matmat
    monkeypatch.setattr(operator.ProgramOperator, "_matmat", lambda self, V: right(self, V) * 1.01)
    affine = ilin.compile(cnn()[0], dtype=dtype).at(cnn()[1], materialize=False)
    affine.b.setflags(write=True)
    affine.b[:] -= affine(affine.x).ravel() - affine.y.ravel()  # right at x
    found = affine.certify_deeply()
    assert found.at_x_over_bound <= 1
    assert found.double.in_region_over_bound > 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("node", ["relu0", "relu5", "relu7"])
def test_a_slope_off_by_one_in_a_thousand_is_caught_whatever_offset_hides_it(monkeypatch, node, dtype):
    """The offset is fitted to what was observed, so that the step is right at x. Nothing in float32 tells."""
    entry = REGISTRY["", "Relu"]

    def rule(site):
        local = entry.rule(site)
        if site.name != node:
            return local
        ((position, L),) = local.by_position
        steeper = Chain((L, Scale(L.out_shape, np.array(1.001))))
        return replace(local, terms={position: steeper}, offset=-0.001 * L.apply(site.value()[None])[0])

    monkeypatch.setitem(REGISTRY, ("", "Relu"), replace(entry, rule=rule))
    affine = ilin.linearize(*cnn(), dtype=dtype)
    assert affine.certificate.verified
    found = affine.certify_deeply()
    assert found.steps.passed
    assert max(found.at_x_over_bound, found.in_region_over_bound, found.double.over_bound or 0) <= 1
    assert found.double.in_region_over_bound > 100
    assert found.reason.startswith("W (z - x) differs from the model in float64 at a point of the region (by")


def test_a_w_that_differs_from_its_float64_is_caught_whatever_b_hides_it(monkeypatch):
    proto, x = cnn()
    original = CompiledModel._compose

    def compose(self, asked, progress=None):
        found = original(self, asked, progress)
        W, b = found.W.copy(), found.b.copy()
        W[3] *= 1.01
        b[3] -= 0.01 * (found.W[3] @ x.ravel())
        return replace(found, W=W, b=b)

    monkeypatch.setattr(CompiledModel, "_compose", compose)
    found = ilin.linearize(proto, x).certify_deeply()
    assert max(found.at_x_over_bound, found.in_region_over_bound, found.double.over_bound) <= 1
    assert found.double.W_over_bound > 1
    assert found.reason.startswith("W differs from its float64 (")


def test_constants_keep_the_rounding_of_the_model():
    """A third is another number in float32 than in float64, and the model's is the one of float32."""
    proto = model(
        "three = Constant<value = float {3}> ()",
        "one = Constant<value = float {1}> ()",
        "third = Div(one, three)",
        "u = Mul(x, third)",
        "y = Relu(u)",
    )
    found = ilin.linearize(proto, X).certify_deeply()
    assert found.verified, str(found)
    assert found.double.evaluator == "onnxruntime"
    assert found.double.moved_over_bound > 1e12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_made_of_held_inputs_keeps_the_rounding_of_the_model(dtype):
    """A seventh of h is computed in float32, and W is made of that."""
    text = """<ir_version: 8, opset_import: ["" : 17]> net (float[1,4] x, float[1,4] h) => (float[1,4] y) {
        seven = Constant<value = float {7}> ()
        gate = Div(h, seven)
        u = Mul(x, gate)
        y = Relu(u)
    }"""
    compiled = ilin.compile(onnx.parser.parse_model(text), inputs=["x"], dtype=dtype)
    found = compiled.at({"x": X, "h": np.array([[1, 2, 3, 5]], np.float32)}).certify_deeply()
    assert found.verified, str(found)
    assert found.double.points == 4


def test_an_evaluator_that_is_not_the_model_is_not_believed(monkeypatch):
    """One that scales its outputs: slopes and values are off by 1 %, and W is right all the same."""
    run = ReferenceSession.run

    def scaled(self, feeds):
        return {name: 1.01 * value for name, value in run(self, feeds).items()}

    monkeypatch.setattr(ReferenceSession, "run", scaled)
    found = ilin.linearize(*cnn()).certify_deeply()
    assert found.verified, str(found)
    assert found.double.points == 0
    assert found.double.left_out.startswith(
        "onnx's reference evaluator differs at x from what was observed by"
    )


def test_an_evaluation_that_would_take_long_is_left_out(monkeypatch):
    monkeypatch.setattr(inside, "_SECONDS", 1e-9)
    double = ilin.linearize(*cnn()).certify_deeply().double
    assert double.points == 0
    assert double.left_out.startswith("it would take about ")


@pytest.mark.parametrize(
    ("kind", "why"), [("smooth", "smooth, so valid"), ("locally constant", "locally constant nodes")]
)
def test_what_float64_cannot_speak_for_is_left_out(kind, why):
    double = ilin.linearize(model(*KINDS[kind]), X).certify_deeply().double
    assert double.points == 0
    assert double.left_out.startswith(why)
