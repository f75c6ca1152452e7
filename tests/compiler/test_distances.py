"""The shortest step to a half-space within a box, against scipy's linear programs and root finder."""

import math
from itertools import pairwise

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import brentq, linprog

import ilin
from ilin.compiler.distances import nearest_step
from ilin.runtime.region import NORMS

FEW = 1e-12  # rounding of sums over a few entries


def rows(seed):
    """Random slopes, margins and boxes; slopes with one entry, with equal entries and of extreme size too."""
    random = np.random.default_rng(seed)
    N = int(random.integers(1, 7))
    a = random.standard_normal(N) * (random.random(N) < random.choice([0.2, 0.6, 1.0]))
    if random.random() < 0.2:
        a = np.sign(a)  # ties between entries
    if random.random() < 0.3:
        a[np.arange(N) != random.integers(N)] = 0
    a *= 10.0 ** random.integers(-12, 12)
    low, high = -random.random(N), random.random(N)
    low[random.random(N) < 0.2], high[random.random(N) < 0.2] = 0, 0  # x lies on sides of the box
    low[random.random(N) < 0.1], high[random.random(N) < 0.1] = -np.inf, np.inf
    size = np.abs(a).sum()
    return a, float(size * random.random() ** 3), low, high


def within_reach(a, m, low, high):
    """The least of aᵀ d + m over the box, by a linear program: at most 0 where the boundary meets it."""
    scale = np.abs(a).max()
    found = linprog(a / scale, bounds=list(zip(low, high, strict=True)), method="highs")
    return -math.inf if found.status == 3 else found.fun + m / scale


def shortest(a, m, norm, low, high):
    """The least norm of d in the box with aᵀ d + m = 0."""
    scale = np.abs(a).max()
    a, m, n = a / scale, m / scale, len(a)
    if norm == 2:  # the minimum of ½ dᵀd + λ (aᵀd + m) over the box is at d = clip(-λ a)
        excess = lambda level: a @ np.clip(-level * a, low, high) + m  # noqa: E731
        top = 1.0
        while excess(top) > 0:
            top *= 2
        level = brentq(excess, 0, top, xtol=1e-15, rtol=8.9e-16, maxiter=1000)
        return np.linalg.norm(np.clip(-level * a, low, high))
    bounds = [*((0, max(end, 0)) for end in high), *((0, max(-end, 0)) for end in low), (0, None)]
    equal = np.concatenate([a, -a, [0]])[None]
    cost = np.concatenate([np.ones(2 * n), [0]]) if norm == 1 else np.eye(2 * n + 1)[-1]
    above = np.column_stack([np.eye(2 * n), -np.ones(2 * n)]) if norm == math.inf else None
    limit = np.zeros(2 * n) if norm == math.inf else None
    found = linprog(cost, above, limit, equal, [-m], bounds=bounds, method="highs")
    assert found.status == 0, found.message
    return found.fun


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_within_a_box_is_the_shortest_and_there_is_one_wherever_the_boundary_meets_it(norm):
    met = 0
    for seed in range(300):
        a, m, low, high = rows(seed)

        step = nearest_step(a, m, norm, (low, high))

        if not a.any() or within_reach(a, m, low, high) > 0:
            assert np.isnan(step).all(), seed
            continue
        met += 1
        assert ((low <= step) & (step <= high)).all(), seed
        assert abs(a @ step + m) <= FEW * np.abs(a).max() * (1 + m / np.abs(a).max()), seed
        expected = shortest(a, m, norm, low, high)
        assert np.linalg.norm(step, norm) == pytest.approx(expected, rel=1e-6, abs=1e-7), seed
    assert 100 < met < 300


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_without_a_box_has_the_length_of_the_dual_norm(norm):
    dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
    for seed in range(300):
        a, m, _, _ = rows(seed)
        if not a.any():
            continue

        step = nearest_step(a, m, norm)

        scale = np.abs(a).max()
        assert abs(a @ step + m) <= FEW * (m + scale), seed
        expected = m / scale / np.linalg.norm(a / scale, dual)
        assert np.linalg.norm(step, norm) == pytest.approx(expected, rel=FEW), seed


@pytest.mark.parametrize("norm", NORMS)
def test_a_corner_of_the_box_on_the_boundary_is_reached_in_every_norm(norm):
    random = np.random.default_rng(0)
    for _ in range(300):
        N = int(random.integers(1, 30))
        a, room = random.standard_normal(N), random.random(N)
        corner = -np.sign(a) * room
        m = math.fsum(np.abs(a) * room)

        for beside in (np.nextafter(m, math.inf), m, np.nextafter(m, 0)):
            step = nearest_step(a, float(beside), norm, (-room, room), slack=1e-14 * m)

            np.testing.assert_allclose(step, corner, rtol=1e-12, atol=1e-12 * np.abs(corner / a).max())


@pytest.mark.parametrize("norm", NORMS)
def test_squares_beyond_the_range_do_not_matter(norm):
    for size in (1e-200, 1e200):
        a = size * np.array([3.0, 4.0])

        step = nearest_step(a, 12.0 * size, norm, (np.full(2, -10.0), np.full(2, 10.0)))

        np.testing.assert_allclose(a / size @ step, -12.0)


# -- of a region ---------------------------------------------------------------------------------------


def elementwise(text, **values):
    """A model of x (1, 3) with constants of that shape."""
    constants = ", ".join(
        f"float[1,3] {name} = {{{', '.join(map(str, value))}}}" for name, value in values.items()
    )
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[1,3] x) => (float[1,3] y) <{constants}>'
        f" {{ {text} }}"
    )


@pytest.mark.parametrize("norm", NORMS)
def test_units_of_one_input_each_are_at_their_own_distance(norm):
    w, c = np.array([0.3, -0.7, 1.1], np.float32), np.array([0.1, 0.2, 0.3], np.float32)
    compiled = ilin.compile(elementwise("h = Mul(x, w) k = Add(h, c) y = Relu(k)", w=w, c=c))
    random = np.random.default_rng(0)
    for _ in range(50):
        x = random.standard_normal((1, 3)).astype(np.float32)
        distances = np.abs(x[0] * w.astype(float) + c) / np.abs(w.astype(float))
        region = compiled.at(x).region

        for found in (region.radius(norm), region.radius(norm, lower=-10, upper=10)):
            assert found.exact
            assert found.distance == pytest.approx(distances.min(), rel=1e-9)
            expected = np.where(np.arange(3) == distances.argmin(), -c / w.astype(float) - x[0], 0)
            if norm != math.inf:  # where the other entries may move too, though they need not
                np.testing.assert_allclose(found.step, expected, atol=1e-6)


def test_a_side_of_the_box_that_is_a_boundary_counts_in_every_norm():
    compiled = ilin.compile(elementwise("h = Mul(x, w) y = Relu(h)", w=[0.3, 0.7, 1.1]))
    random = np.random.default_rng(0)
    for _ in range(60):
        x = random.uniform(0, 1, (1, 3)).astype(np.float32)
        region = compiled.at(x).region

        for norm in NORMS:
            assert region.radius(norm, lower=0, upper=1).distance == pytest.approx(float(x.min()), rel=1e-12)


def test_a_corner_of_the_box_that_is_a_boundary_counts_in_every_norm():
    """Positive weights and no offsets, in several layers: each unit's boundary meets the box at 0 alone."""
    random = np.random.default_rng(0)
    for _ in range(30):
        sizes = (8, 5, 6, 4)
        layers = [random.uniform(0.1, 1, pair).astype(np.float32) for pair in pairwise(sizes)]
        nodes = [
            node
            for i in range(3)
            for node in (
                helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"u{i}"]),
                helper.make_node("Relu", [f"u{i}"], [f"h{i + 1}"]),
            )
        ]
        graph = helper.make_graph(
            nodes,
            "positive",
            [helper.make_tensor_value_info("h0", TensorProto.FLOAT, [1, 8])],
            [helper.make_tensor_value_info("h3", TensorProto.FLOAT, [1, 4])],
            [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(layers)],
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        x = random.uniform(0.1, 1, (1, 8)).astype(np.float32)
        region = ilin.compile(model).at(x).region

        for norm in NORMS:
            found = region.radius(norm, lower=0, upper=2)
            assert found.distance == pytest.approx(np.linalg.norm(x[0].astype(float), norm), rel=1e-9)
            np.testing.assert_allclose(found.step, -x[0], rtol=1e-9)
