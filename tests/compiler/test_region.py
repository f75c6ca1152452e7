"""Regions against matrices by hand, differences of onnx's reference evaluator, linear programs and runs."""

import math
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import linprog, minimize
from scipy.spatial import HalfspaceIntersection

import ilin
from ilin.compiler.distances import nearest_step
from ilin.compiler.region import Survey
from ilin.runtime.region import NORMS
from ilin.runtime.widen import as_float64

from ..conformance.oracle import onnxruntime_of, reference_of

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
UNREAD = {"TopK": ("indices",)}  # outputs that an operator must have
DUAL = {1: math.inf, 2: 2, math.inf: 1}


def model(nodes, shape, initializers=(), inputs=("x",)):
    """A float64 model from inputs of one shape to y."""
    graph = helper.make_graph(
        [
            helper.make_node(op, read, [made, *UNREAD.get(op, ())], name=made, **attributes)
            for op, read, made, attributes in nodes
        ],
        "region",
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(initializers).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)  # of y


def perceptron(sizes, seed=0):
    """A network of Gemm and Relu, and its weights."""
    random = np.random.default_rng(seed)
    weights = {}
    nodes, below = [], "x"
    for i, (m, n) in enumerate(pairwise(sizes)):
        weights |= {f"W{i}": random.standard_normal((n, m)), f"b{i}": random.standard_normal(n)}
        last = i == len(sizes) - 2
        nodes.append(("Gemm", [below, f"W{i}", f"b{i}"], "y" if last else f"u{i}", {"transB": 1}))
        if not last:
            nodes.append(("Relu", [f"u{i}"], f"h{i}", {}))
        below = f"h{i}"
    return model(nodes, [1, sizes[0]], weights), weights


def by_hand(weights, x, layers):
    """Half-spaces a z + c ≥ 0 of every hidden unit, from the definition: (units, N), (units,) and names."""
    A, c = np.eye(x.size), np.zeros(x.size)
    rows, offsets, names = [], [], []
    for i in range(layers):
        A, c = weights[f"W{i}"] @ A, weights[f"W{i}"] @ c + weights[f"b{i}"]
        on = A @ x.ravel() + c > 0
        sign = np.where(on, 1, -1)
        rows.append(sign[:, None] * A)
        offsets.append(sign * c)
        names += [(f"h{i}", (0, unit)) for unit in range(len(c))]
        A, c = on[:, None] * A, on * c
    return np.concatenate(rows), np.concatenate(offsets), names


@pytest.fixture(scope="module", params=[(3, 6, 5, 2), (30, 8, 7, 2)], ids=["tangents", "rows"])
def net(request):
    """A small perceptron at a point with its half-spaces by hand; wide inputs are searched row by row."""
    proto, weights = perceptron(request.param)
    x = np.random.default_rng(1).standard_normal((1, request.param[0]))
    return proto, x, ilin.compile(proto, dtype="float64").at(x), *by_hand(weights, x, 2)


def test_the_half_spaces_are_those_of_the_definition(net):
    _, x, affine, rows, offsets, names = net

    found = affine.region.half_spaces()

    np.testing.assert_allclose(-found.A, rows, atol=1e-12)
    np.testing.assert_allclose(found.c, offsets, atol=1e-12)
    assert [(b.node, b.unit) for b in found.boundaries] == names
    assert {b.op_type for b in found.boundaries} == {"Relu"}
    np.testing.assert_allclose([b.margin for b in found.boundaries], rows @ x.ravel() + offsets, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_the_radius_is_the_least_distance_of_all(net, norm):
    _, x, affine, rows, offsets, names = net

    radius = affine.region.radius(norm)

    distances = (rows @ x.ravel() + offsets) / np.linalg.norm(rows, DUAL[norm], axis=1)
    assert radius.exact
    assert radius.distance == pytest.approx(distances.min(), rel=1e-12)
    assert (radius.boundary.node, radius.boundary.unit) == names[distances.argmin()]
    assert np.linalg.norm(radius.step, norm) == pytest.approx(radius.distance, rel=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_just_inside_nothing_changes_and_just_outside_that_unit_alone(net, norm):
    proto, x, affine, *_ = net
    radius = affine.region.radius(norm)
    shown = model_with(proto, ["u0", "u1"])

    def pattern(z):
        values = onnxruntime_of(shown)({"x": z})
        return {name: values[f"u{name[1]}"] > 0 for name in ("h0", "h1")}

    at_x = pattern(x)
    inside, outside = (x + factor * radius.step.reshape(x.shape) for factor in (1 - 1e-4, 1 + 1e-4))

    assert all(np.array_equal(now, at_x[name]) for name, now in pattern(inside).items())
    there = pattern(outside)
    flipped = [(name, tuple(at)) for name, now in there.items() for at in np.argwhere(now != at_x[name])]
    assert flipped == [(radius.boundary.node, radius.boundary.unit)]
    assert affine.region.contains(inside)
    assert affine.region.changed(outside) == affine.region.crossed(outside) == (radius.boundary.chooser,)


def model_with(proto, outputs):
    """The same model with further outputs."""
    more = onnx.ModelProto()
    more.CopyFrom(proto)
    more.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in outputs
    )
    return more


def test_a_ray_leaves_where_bisection_by_runs_says(net):
    _, x, affine, *_ = net
    direction = np.random.default_rng(5).standard_normal(x.shape)

    ahead, behind = affine.region.along(direction)

    for crossing, way in ((ahead, direction), (behind, -direction)):
        low, high = 0.0, 1.0
        while affine.region.contains(x + high * way):
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if affine.region.contains(x + middle * way) else (low, middle)
        assert crossing.exact
        assert crossing.t == pytest.approx(low, rel=1e-9)
        assert crossing.boundary.chooser in affine.region.changed(x + 1.0001 * low * way)


def test_facets_are_those_that_qhull_finds():
    proto, _ = perceptron((3, 12, 10, 2), seed=3)
    x = np.random.default_rng(1).standard_normal((1, 3))
    region = ilin.compile(proto, dtype="float64").at(x).region
    told = []
    every, minimal = region.half_spaces(), region.minimal(progress=lambda *now: told.append(now))
    box = np.concatenate([np.eye(3), -np.eye(3)]), np.full(6, 1e6)  # qhull takes bounded sets alone
    A, c = np.concatenate([every.A, box[0]]), np.concatenate([every.c, box[1]])

    hull = HalfspaceIntersection(np.column_stack([A, -c]), x.ravel())

    facets = {i for i in hull.dual_vertices if i < len(every)}
    assert 0 < len(facets) < len(every)
    assert set(minimal.boundaries) == {every.boundaries[i] for i in facets}
    assert told == sorted(told)
    assert (len(told) > 2, told[-1]) == (True, (len(every), len(every)))


@pytest.fixture(scope="module")
def digits():
    """The example in float64, which onnx's reference evaluator runs."""
    proto = as_float64(onnx.load(DIGITS / "model.onnx"))
    x = np.load(DIGITS / "x.npy").astype(np.float64)
    return proto, x, ilin.compile(proto, dtype="float64").at(x)


def distances_by_differences(proto, x, region):
    """Distances to every boundary of Relu and MaxPool nodes by differences of their inputs, per norm.

    Every step stays within the region, where all tensors are affine in x.
    """
    read = {node.output[0]: node for node in proto.graph.node if node.op_type in ("Relu", "MaxPool")}
    shown = model_with(proto, [node.input[0] for node in read.values()])
    run = reference_of(shown)
    step = 0.5 * region.radius(math.inf).distance
    base = run({"image": x})
    moved = []
    for j in range(x.size):
        ahead, behind = x.copy().ravel(), x.copy().ravel()
        ahead[j] += step
        behind[j] -= step
        pair = [run({"image": z.reshape(x.shape)}) for z in (ahead, behind)]
        moved.append({name: (pair[0][name] - pair[1][name]) / (2 * step) for name in base})
    slopes, margins = [], []
    for node in read.values():
        u = base[node.input[0]]
        J = np.stack([one[node.input[0]] for one in moved], axis=-1)  # (*u.shape, N)
        if node.op_type == "Relu":
            slopes.append(J.reshape(-1, x.size))
            margins.append(np.abs(u).ravel())
            continue
        kernel = helper.get_node_attr_value(node, "kernel_shape")
        assert kernel == helper.get_node_attr_value(node, "strides") == [2, 2]
        windows = u.reshape(*u.shape[:2], u.shape[2] // 2, 2, u.shape[3] // 2, 2)
        taps = np.moveaxis(windows, 3, 4).reshape(-1, 4)
        ways = np.moveaxis(J.reshape(*windows.shape, x.size), 3, 4).reshape(-1, 4, x.size)
        best = taps.argmax(axis=1)
        rows = np.arange(len(taps))
        slopes.append((ways[rows, best][:, None] - ways).reshape(-1, x.size))
        margins.append((taps[rows, best][:, None] - taps).ravel())
    A, m = np.concatenate(slopes), np.concatenate(margins)
    live = np.abs(A).max(axis=1) > 1e-6  # differences are good to ten digits
    return {norm: (m[live] / np.linalg.norm(A[live], DUAL[norm], axis=1)).min() for norm in NORMS}


def test_the_radius_of_the_example_is_that_of_brute_force(digits):
    proto, x, affine = digits

    expected = distances_by_differences(proto, x, affine.region)

    for norm in NORMS:
        radius = affine.region.radius(norm)
        assert radius.exact
        assert radius.distance == pytest.approx(expected[norm], rel=1e-6)
        step = radius.step.reshape(x.shape)
        assert affine.region.contains(x + (1 - 1e-4) * step)
        assert affine.region.changed(x + (1 + 1e-4) * step) == (radius.boundary.chooser,)
        assert radius.ties == affine.certificate.ties > 0


def test_a_map_in_single_precision_has_the_same_region(digits):
    _, x, affine = digits
    single = ilin.compile(DIGITS / "model.onnx").at(x.astype(np.float32))

    for norm in NORMS:
        ours, theirs = single.region.radius(norm), affine.region.radius(norm)
        assert ours.distance == pytest.approx(theirs.distance, rel=1e-9)
        assert ours.boundary.chooser == theirs.boundary.chooser
    assert single.region.pattern_sha256 == affine.region.pattern_sha256


# -- boxes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("norm", NORMS)
def test_the_shortest_step_within_a_box_is_the_programs(norm, seed):
    random = np.random.default_rng(seed)
    a = random.standard_normal(7) * (random.random(7) < 0.8)
    low, high = -random.random(7), random.random(7)
    high[0], low[1] = np.inf, -np.inf
    reach = np.where(a > 0, -a * np.maximum(low, -3), np.where(a < 0, -a * np.minimum(high, 3), 0)).sum()
    m = float(random.uniform(0.3, 0.9) * reach)

    step = nearest_step(a, m, norm, (low, high))

    assert a @ step + m == pytest.approx(0, abs=1e-12)
    assert ((low <= step) & (step <= high)).all()
    assert np.linalg.norm(step, norm) == pytest.approx(least_norm(a, m, norm, low, high), rel=1e-6)


def least_norm(a, m, norm, low, high):
    """By scipy's solvers: d = p - q with p, q ≥ 0, and t over all of them for L∞."""
    n = len(a)
    if norm == 2:
        start = least_step(a, m, low, high)
        bounds = list(zip(np.maximum(low, -1e3), np.minimum(high, 1e3), strict=True))
        through = {"type": "eq", "fun": lambda d: a @ d + m, "jac": lambda d: a}
        options = {"ftol": 1e-15, "maxiter": 1000}
        found = minimize(
            lambda d: d @ d, start, jac=lambda d: 2 * d, bounds=bounds, constraints=through, options=options
        )
        return np.sqrt(found.fun)
    bounds = [*((0, max(end, 0)) for end in high), *((0, max(-end, 0)) for end in low), (0, None)]
    equal = np.concatenate([a, -a, [0]])[None]
    cost = np.concatenate([np.ones(2 * n), [0]]) if norm == 1 else np.eye(2 * n + 1)[-1]
    above = np.column_stack([np.eye(2 * n), -np.ones(2 * n)]) if norm == math.inf else None
    limit = np.zeros(2 * n) if norm == math.inf else None
    return linprog(cost, above, limit, equal, [-m], bounds=bounds, method="highs").fun


def least_step(a, m, low, high):
    """Some step through the boundary within the box."""
    bounds = list(zip(low, high, strict=True))
    return linprog(np.zeros(len(a)), None, None, a[None], [-m], bounds=bounds, method="highs").x


def test_a_box_out_of_which_every_boundary_lies_is_no_limit(net):
    _, x, affine, *_ = net
    near = 0.5 * affine.region.radius(math.inf).distance

    inside = affine.region.radius(2, lower=x - near, upper=x + near)

    assert inside.exact
    assert inside.distance == math.inf
    assert inside.boundary is None


def test_a_box_takes_the_nearest_boundary_within_it(net):
    _, x, affine, rows, offsets, _ = net
    low, high = x.ravel() - 0.05, x.ravel() + 3.0
    m = rows @ x.ravel() + offsets
    expected = min(
        np.nan_to_num(np.linalg.norm(nearest_step(a, v, 2, (low - x.ravel(), high - x.ravel()))), nan=np.inf)
        for a, v in zip(rows, m, strict=True)
    )

    radius = affine.region.radius(2, lower=low.reshape(x.shape), upper=high.reshape(x.shape))

    assert radius.distance == pytest.approx(expected, rel=1e-12)
    assert radius.distance >= affine.region.radius(2).distance
    with pytest.raises(ilin.OptionError, match="outside of the box"):
        affine.region.radius(2, lower=x + 1)


# -- ties, jumps and kinds -----------------------------------------------------------------------------


def test_a_tie_with_a_slope_limits_and_one_without_does_not():
    pooled = model(
        [("Relu", ["x"], "h", {}), ("MaxPool", ["h"], "y", {"kernel_shape": [2], "strides": [2]})], [1, 1, 4]
    )
    compiled = ilin.compile(pooled, dtype="float64")

    dead = compiled.at(np.array([[[-1.0, -2.0, 3.0, 1.0]]])).region.radius(2)
    live = compiled.at(np.array([[[-1.0, -2.0, 3.0, 3.0]]])).region.radius(2)

    assert (dead.distance, dead.boundary.node, dead.ties) == (1.0, "h", 1)
    assert live.exact
    assert (live.distance, live.boundary.node, live.boundary.unit) == (0.0, "y", (0, 0, 1))


def test_the_same_sum_in_two_orders_is_idle():
    W = np.random.default_rng(0).standard_normal((5, 5))
    proto = model(
        [
            ("MatMul", ["x", "A"], "a", {}),
            ("MatMul", ["x", "B"], "b", {}),
            ("Add", ["a", "b"], "ab", {}),
            ("MatMul", ["x", "C"], "c", {}),
            ("Sub", ["ab", "c"], "nothing", {}),
            ("Relu", ["nothing"], "idle", {}),
            ("Relu", ["c"], "busy", {}),
            ("Add", ["idle", "busy"], "y", {}),
        ],
        [1, 5],
        {"A": W, "B": 0.1 * W[::-1], "C": W + 0.1 * W[::-1]},
    )
    x = np.random.default_rng(1).standard_normal((1, 5))
    region = ilin.compile(proto, dtype="float64").at(x).region

    radius = region.radius(2)

    C = W + 0.1 * W[::-1]
    assert radius.exact
    assert radius.boundary.node == "busy"
    assert radius.distance == pytest.approx((np.abs(x @ C) / np.linalg.norm(C, axis=0)).min(), rel=1e-12)
    for share in (0.1, 0.5, 0.9):
        assert region.contains(x + share * radius.step)


def test_an_affine_map_has_no_boundary():
    proto = model([("Gemm", ["x", "W"], "y", {})], [1, 3], {"W": np.eye(3)})

    region = ilin.compile(proto, dtype="float64").at(np.ones((1, 3))).region

    assert [(region.radius(norm).distance, region.radius(norm).exact) for norm in NORMS] == [
        (math.inf, True)
    ] * 3
    assert len(region.half_spaces()) == len(region.minimal()) == 0
    assert region.along(np.ones((1, 3)))[0].t == math.inf


def test_a_smooth_map_has_no_region():
    proto = model([("Sigmoid", ["x"], "y", {})], [1, 3])
    region = ilin.compile(proto, dtype="float64").at(np.ones((1, 3))).region

    with pytest.raises(ilin.UnsupportedError, match="holds at x only and has no region"):
        region.radius(2)


def test_a_jump_limits_and_one_that_nobody_knows_makes_the_radius_a_bound():
    floor = model([("Floor", ["x"], "n", {}), ("Add", ["x", "n"], "y", {})], [1, 2])
    unknown = model([("IsInf", ["x"], "n", {}), ("Where", ["n", "x", "x"], "y", {})], [1, 2])

    known = ilin.compile(floor, dtype="float64").at(np.array([[0.25, 7.4]])).region.radius(1)
    open_ended = ilin.compile(unknown, dtype="float64").at(np.array([[0.25, 7.4]])).region.radius(1)

    assert known.exact
    assert (known.distance, known.boundary.op_type, known.boundary.unit) == (0.25, "Floor", (0, 0))
    assert not open_ended.exact
    assert open_ended.at_least == 0
    assert "'n' jumps next is not known" in str(open_ended)


def test_a_pool_names_its_window():
    proto = model([("MaxPool", ["x"], "y", {"kernel_shape": [2, 2], "strides": [2, 2]})], [1, 1, 4, 4])
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    x[0, 0, 3, 0] = 12.75  # window (1, 0) holds 8, 9, 12.75, 13
    region = ilin.compile(proto, dtype="float64").at(x).region

    radius = region.radius(math.inf)

    assert radius.distance == pytest.approx(0.125)
    assert radius.boundary.unit == (0, 0, 1, 0)
    assert region.changed(x + 1.01 * radius.step.reshape(x.shape)) == (radius.boundary.chooser,)


# -- budgets, laziness, files --------------------------------------------------------------------------


def test_a_search_that_is_given_up_is_labelled(net):
    proto, x, affine, *_ = net
    fresh = ilin.compile(proto, dtype="float64").at(x)

    none, some = fresh.region.radius(2, rows=0), fresh.region.radius(2, rows=2)

    whole = affine.region.radius(2)
    assert not none.exact
    assert none.boundary is None
    assert "given up" in str(none)
    for part in (none, some):
        assert 0 < part.at_least <= whole.distance <= part.distance
    assert fresh.region.radius(2).distance == whole.distance


def test_nothing_of_a_region_is_computed_before_it_is_asked_for():
    proto, _ = perceptron((3, 6, 2))
    compiled = ilin.compile(proto)
    affine = compiled.at(np.ones((1, 3)))

    assert affine.certificate.verified
    assert not compiled._double
    assert affine.region.found == {}
    assert not compiled._double

    affine.region.radius(1)
    assert compiled._double


def test_a_saved_map_keeps_what_was_computed(net, tmp_path):
    _, x, affine, *_ = net
    radius, pattern = affine.region.radius(2), affine.region.pattern_sha256
    affine.save(tmp_path / "map.npz")

    for copy in (ilin.load(tmp_path / "map.npz"), pickle.loads(pickle.dumps(affine))):
        kept = copy.region.radius(2)
        assert (kept.distance, kept.boundary, kept.exact) == (radius.distance, radius.boundary, True)
        assert copy.region.pattern_sha256 == pattern
        with pytest.raises(ilin.OptionError, match="linearize again for along"):
            copy.region.along(x)


def test_points_of_one_region_have_one_pattern(net):
    proto, x, affine, *_ = net
    radius = affine.region.radius(2)
    compiled = ilin.compile(proto, dtype="float64")

    inside, outside = (
        compiled.at(x + factor * radius.step.reshape(x.shape)).region.pattern_sha256 for factor in (0.9, 1.1)
    )

    assert inside == affine.region.pattern_sha256 != outside


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda region: region.radius(3), "choose from 1, 2 and inf"),
        (lambda region: next(region.blocks(0)), "at least one row"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(net, ask, message):
    with pytest.raises(ilin.OptionError, match=message):
        ask(net[2].region)


def test_a_point_of_another_shape_is_refused(net):
    with pytest.raises(ilin.InputError, match="but z has shape"):
        net[2].region.contains(np.ones((2, 9)))


# -- every kind of choice ------------------------------------------------------------------------------

CHOICES = {
    "Abs": (("Abs", {}), {}),
    "Clip": (("Clip", {}), {"low": np.array(-0.5), "high": np.array(0.5)}),
    "LeakyRelu": (("LeakyRelu", {"alpha": 0.1}), {}),
    "Max": (("Max", {}), {"a": np.linspace(-1, 1, 4)}),
    "Min": (("Min", {}), {"a": np.linspace(-1, 1, 4), "b": np.zeros((3, 1))}),
    "MaxPool": (("MaxPool", {"kernel_shape": [2], "strides": [1], "pads": [0, 1]}), {}),
    "Mod": (("Mod", {"fmod": 1}), {"b": np.array(0.7)}),
    "ReduceMax": (("ReduceMax", {"keepdims": 0}), {"axes": np.array([1])}),
    "ReduceMin": (("ReduceMin", {"keepdims": 1}), {"axes": np.array([2])}),
    "ScatterElements": (
        ("ScatterElements", {"axis": 2, "reduction": "max"}),
        {
            "indices": np.array([[[1, 1], [0, 3], [2, 2]]]),
            "updates": np.array([[[0.3, -0.2], [0.1, 0.5], [0, 1]]]),
        },
    ),
    "TopK": (("TopK", {"axis": 1}), {"K": np.array([2])}),
    "Unique": (("Unique", {}), {}),
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("seed", range(3))
def test_the_unit_that_is_named_is_the_one_that_changes(name, seed):
    (op_type, attributes), parameters = CHOICES[name]
    proto = model([(op_type, ["x", *parameters], "y", attributes)], [1, 3, 4], parameters)
    x = np.random.default_rng(seed).standard_normal((1, 3, 4))
    region = ilin.compile(proto, dtype="float64").at(x).region

    for norm in NORMS:
        radius = region.radius(norm)
        step = radius.step.reshape(x.shape)
        assert radius.exact
        assert region.contains(x + (1 - 1e-6) * step)
        assert radius.boundary.chooser in region.changed(x + (1 + 1e-6) * step)
        assert radius.boundary.chooser in region.crossed(x + (1 + 1e-6) * step)


def test_a_point_of_several_inputs_goes_by_name():
    nodes = [("Sub", ["x", "z"], "d", {}), ("Relu", ["d"], "y", {})]
    proto = model(nodes, [1, 2], inputs=("x", "z"))
    point = {"x": np.array([[3.0, 1.0]]), "z": np.array([[1.0, 5.0]])}

    region = ilin.compile(proto, dtype="float64").at(point).region

    radius = region.radius(2)
    assert radius.distance == pytest.approx(math.sqrt(2))
    np.testing.assert_allclose(radius.step, [-1, 0, 1, 0], atol=1e-15)
    ahead, behind = region.along({"x": np.array([[-1.0, 0.0]]), "z": np.zeros((1, 2))})
    assert (ahead.t, ahead.boundary.unit, behind.t) == (2.0, (0, 0), math.inf)
    boxed = region.radius(1, lower={"x": 0, "z": point["z"]}, upper={"x": 3, "z": 9})
    assert (boxed.distance, boxed.boundary.unit) == (2.0, (0, 0))


def test_equality_is_a_region_of_its_own():
    nodes = [("Less", ["x", "a"], "l", {}), ("Where", ["l", "x", "b"], "y", {})]
    proto = model(nodes, [1, 2], {"a": np.array([1.0, 5.0]), "b": np.array([3.0, 3.0])})
    compiled = ilin.compile(proto, dtype="float64")

    equal, apart = (compiled.at(np.array([[value, 2.0]])).region for value in (1.0, 1.5))

    assert equal.radius(2).exact
    assert (equal.radius(2).distance, equal.radius(2).boundary.unit) == (0.0, (0, 0))
    assert not equal.contains(np.array([[1.001, 2.0]]))
    assert (apart.radius(2).distance, apart.radius(2).boundary.unit) == (0.5, (0, 0))


def test_facets_of_one_inequality_said_twice():
    proto = model([("Concat", ["x", "x"], "c", {"axis": 1}), ("Relu", ["c"], "y", {})], [1, 1])
    region = ilin.compile(proto, dtype="float64").at(np.array([[2.0]])).region

    assert len(region.half_spaces()) == 2
    assert [boundary.unit for boundary in region.minimal().boundaries] == [(0, 0)]


# -- the half-space form, by either way ----------------------------------------------------------------


def convolutions():
    """A convolution, a residual sum, a pool, a permutation and a product, on 1×2×6×6."""
    random = np.random.default_rng(4)
    weights = {
        "K": random.standard_normal((3, 2, 3, 3)),
        "R": random.standard_normal((3, 3, 3, 3)),
        "low": np.full(3, -6.0),
        "scale": random.uniform(0.5, 2, (1, 2, 1, 1)),
        "flat": np.array([1, -1]),
        "M": random.standard_normal((27, 8)),
        "m": random.standard_normal(8),
    }
    nodes = [
        ("Mul", ["x", "scale"], "s", {}),
        ("Conv", ["s", "K"], "u", {"pads": [1, 1, 1, 1]}),
        ("Relu", ["u"], "h", {}),
        ("Conv", ["h", "R", "low"], "r", {"pads": [1, 1, 1, 1]}),
        ("Add", ["r", "h"], "a", {}),
        ("Relu", ["a"], "g", {}),
        ("MaxPool", ["g"], "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Transpose", ["p"], "t", {"perm": [0, 2, 3, 1]}),
        ("Reshape", ["t", "flat"], "f", {}),
        ("Gemm", ["f", "M", "m"], "v", {}),
        ("LeakyRelu", ["v"], "y", {"alpha": 0.1}),
    ]
    return model(nodes, [1, 2, 6, 6], weights), random.standard_normal((1, 2, 6, 6))


def test_the_half_spaces_of_a_residual_network_are_those_of_its_layers_maps():
    """Relu and LeakyRelu compare with 0, MaxPool the winner with the others: by the maps to them."""
    proto, x = convolutions()
    found = ilin.compile(proto, dtype="float64").at(x).region.half_spaces()
    rows, offsets = [], []
    for tensor in ("u", "a", "g", "v"):
        inner = ilin.compile(proto, outputs=[tensor], dtype="float64", direction="reverse").at(x)
        W, b, y = inner.W, inner.b, inner.y.ravel()
        if tensor != "g":
            sign = np.where(y > 0, 1, -1)
            rows.append(sign[:, None] * W)
            offsets.append(sign * b)
            continue
        windows = np.arange(y.size).reshape(3, 3, 2, 3, 2).swapaxes(2, 3).reshape(-1, 4)
        for window in windows:
            best = window[y[window].argmax()]
            losers = [entry for entry in window if entry != best]
            rows.append(W[best] - W[losers])
            offsets.append(b[best] - b[losers])
    A, c = np.concatenate(rows), np.concatenate(offsets)
    live = A.any(axis=1)

    expected = np.column_stack([-A, c])[live]
    ours = np.column_stack([found.A, found.c])
    assert ours.shape == expected.shape
    assert (~live).any()  # two dead units of one window
    np.testing.assert_allclose(ordered(ours), ordered(expected), atol=1e-11)
    assert (found.A @ x.ravel() <= found.c + 1e-11).all()


def ordered(rows):
    """Sorted as numbers of ten digits."""
    return rows[np.lexsort(np.round(rows, 9).T)]


@pytest.mark.parametrize("shape", [(40, 6, 5, 2), (3, 30, 20, 2)])
def test_both_ways_to_the_half_spaces_agree(shape, monkeypatch):
    proto, _ = perceptron(shape)
    for net, x in ((proto, np.random.default_rng(1).standard_normal((1, shape[0]))), convolutions()):
        compiled = ilin.compile(net, dtype="float64")
        found = []
        for pays in (True, False):
            monkeypatch.setattr(Survey, "_onward_pays", lambda *_, pays=pays: pays)
            found.append(compiled.at(x).region.half_spaces())

        onward, back = found
        np.testing.assert_allclose(onward.A, back.A, atol=1e-12)
        np.testing.assert_array_equal(onward.c, back.c)
        assert onward.boundaries == back.boundaries


def test_columns_come_in_blocks_where_they_take_much_memory(monkeypatch):
    proto, x = convolutions()
    compiled = ilin.compile(proto, dtype="float64")
    whole = compiled.region(x).half_spaces()

    monkeypatch.setattr("ilin.compiler.jacobians._BLOCK_BYTES", 7 * 4 * 8 * 324)  # 7 columns of the largest
    monkeypatch.setattr(Survey, "_onward_pays", lambda *_: True)
    parts = list(compiled.region(x).blocks(50))

    assert [len(part) <= 50 for part in parts] == [True] * len(parts)
    assert len(parts) > 5
    np.testing.assert_allclose(np.concatenate([part.A for part in parts]), whole.A, atol=1e-12)
    np.testing.assert_array_equal(np.concatenate([part.c for part in parts]), whole.c)
    assert tuple(one for part in parts for one in part.boundaries) == whole.boundaries


def test_half_spaces_of_several_inputs_stand_side_by_side():
    nodes = [("MatMul", ["x", "A"], "a", {}), ("MatMul", ["z", "B"], "b", {}), ("Sub", ["a", "b"], "d", {})]
    random = np.random.default_rng(0)
    A, B = random.standard_normal((3, 5)), random.standard_normal((3, 5))
    proto = model([*nodes, ("Relu", ["d"], "y", {})], [1, 3], {"A": A, "B": B}, inputs=("x", "z"))
    point = {"x": random.standard_normal((1, 3)), "z": random.standard_normal((1, 3))}

    found = ilin.compile(proto, dtype="float64").region(point).half_spaces()

    sign = np.where(point["x"] @ A - point["z"] @ B > 0, 1, -1).ravel()
    np.testing.assert_allclose(-found.A, sign[:, None] * np.hstack([A.T, -B.T]), atol=1e-15)
    np.testing.assert_array_equal(found.c, np.zeros(5))


def test_half_spaces_are_pickled_with_their_names(net):
    found = net[2].region.half_spaces()

    copy = pickle.loads(pickle.dumps(found)).select(np.array([2, 0]))

    np.testing.assert_array_equal(copy.A, found.A[[2, 0]])
    assert copy.boundaries == (found.boundaries[2], found.boundaries[0])


def test_half_spaces_over_the_limit_are_refused_and_come_in_blocks(net):
    proto, x, _, rows, *_ = net
    region = ilin.compile(proto, dtype="float64", memory_limit=8 * rows.size - 1).region(x)

    with pytest.raises(ilin.MemoryLimitError, match="take them in blocks"):
        region.half_spaces()
    assert sum(len(block) for block in region.blocks(3)) == len(rows)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_region_by_itself_is_that_of_the_map(dtype):
    proto, x = convolutions()
    compiled = ilin.compile(proto, dtype=dtype)

    alone, of_map = compiled.region(x), compiled.at(x).region

    assert alone.kind == of_map.kind
    assert alone.pattern_sha256 == of_map.pattern_sha256
    ours, theirs = alone.half_spaces(), of_map.half_spaces()
    np.testing.assert_array_equal(ours.A, theirs.A)
    np.testing.assert_array_equal(ours.c, theirs.c)
    assert ours.boundaries == theirs.boundaries
    assert alone.radius(2).distance == of_map.radius(2).distance
    with pytest.raises(ilin.InputError, match="takes shape"):
        compiled.region(np.ones((1, 3)))
