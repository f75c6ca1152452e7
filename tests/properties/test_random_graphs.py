"""Random graphs: the map is verified, and equals the reference evaluator in value and in slope."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ilin

from ..conformance.oracle import (
    IN_FLOAT16,
    IN_FLOAT32,
    IN_FLOAT64,
    ROUNDED,
    Accuracy,
    Function,
    flat_function,
    flattened,
    onnxruntime_of,
    reference_of,
    slopes,
    smooth_slope,
)
from .builder import Graph
from .graphs import KNOWN, WITHOUT_EMITTER, graphs

DIRECTIONS = 3
# The adjoint runs in onnxruntime, which has no float64 Conv.
ENGINES = {"auto": "float64", "sparse": "float64", "matrix-free": "float64", "adjoint": "float32"}
COMMON = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)


@dataclass
class Tally:
    """What a run of many graphs came across."""

    graphs: int = 0
    operators: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    kinked: int = 0

    def add(self, graph: Graph, compared: int, kinked: int) -> None:
        self.graphs += 1
        self.operators.update(graph.operators)
        self.compared += compared
        self.kinked += kinked


def check(graph: Graph, engine: str) -> tuple[int, int]:
    """Raise AssertionError where ilin is wrong; return how many slopes were compared, and met a kink."""
    x = flattened([graph.values[name] for name in graph.active])
    compiled = ilin.compile(
        graph.model, inputs=graph.active, outputs=graph.outputs, engine=engine, dtype=ENGINES[engine]
    )
    elsewhere = compiled.at(graph.elsewhere)
    assert elsewhere.certificate.verified, str(elsewhere.certificate)
    affine = compiled.at(graph.feeds)
    assert affine.certificate.verified, str(affine.certificate)
    assert affine.W.shape == (sum(graph.values[name].size for name in graph.outputs), x.size)
    np.testing.assert_allclose(affine.bias_shares.sum(axis=0), affine.b, rtol=1e-6, atol=1e-6)

    function, accuracy = _oracle(graph)
    if affine.W.dtype == np.float32:
        accuracy = replace(accuracy, relative=max(accuracy.relative, 1e-5))
    _assert_value(graph, affine, x, function(x), "at x")
    random = np.random.default_rng(zlib.crc32(graph.model.SerializeToString(deterministic=True)))
    kinked, directions = 0, DIRECTIONS if _one_piece(graph, affine) else 0
    if affine.kind == "smooth":
        if directions and graph.dtype != np.float16:
            _assert_tangent(graph, affine, function, x, accuracy, random)
        return directions * affine.W.shape[0], kinked
    for _ in range(directions):
        d = random.standard_normal(x.shape)
        ours, found = affine.W @ d, slopes(function, x, d, accuracy, _sizes(affine, d))
        wrong = ~found.kinked & found.misses(ours)
        assert not wrong.any(), f"rows {np.flatnonzero(wrong)}: {ours[wrong]} instead of {found.ahead[wrong]}"
        kinked += int(found.kinked.sum())
    if affine.kind == "affine":
        z = x + 5 * random.standard_normal(x.shape)
        _assert_value(graph, affine, z, function(z), "far from x, though the map is called affine")
    return directions * affine.W.shape[0], kinked


def _assert_tangent(
    graph: Graph,
    affine: ilin.AffineMap,
    function: Function,
    x: np.ndarray,
    accuracy: Accuracy,
    random: np.random.Generator,
) -> None:
    """W d is the derivative along d, but for what rounding does to the values that slopes are taken at.

    Curvature turns a unit of roundoff of such a value into several of a slope: into fewer than 2^10 in graphs
    of a few nodes whose values are tame.
    """
    relative = max(accuracy.relative, 2.0**10 * float(np.finfo(graph.dtype).eps))
    accuracy = replace(accuracy, relative=relative)
    for _ in range(DIRECTIONS):
        d = random.standard_normal(x.shape)
        ours, size = affine.W @ d, (np.abs(affine.W) @ np.abs(d)).max(initial=1)
        found = smooth_slope(function, x, d, accuracy, size, kinks=True)
        wrong = found.misses(ours)
        assert not wrong.any(), f"rows {np.flatnonzero(wrong)}: {ours[wrong]} instead of {found.value[wrong]}"


def _one_piece(graph: Graph, affine: ilin.AffineMap) -> bool:
    """Whether the oracle is sure to be on x's piece where its differences ahead and behind agree.

    Not where several kinks meet exactly at x: W is the map of a side then, which a line through x need not
    touch. (Off the grid, only what is equal all around x ties, such as dead units.) And not where
    onnxruntime's half precision may decide otherwise than float64.
    """
    if graph.dtype == np.float16:
        return affine.kind == "affine"
    return not (graph.on_grid and affine.certificate.ties)


def _oracle(graph: Graph) -> tuple[Function, Accuracy]:
    feeds = {**graph.feeds, **{name: graph.values[name] for name in graph.active}}
    if graph.without_reference:
        accuracy = IN_FLOAT16 if graph.dtype == np.float16 else IN_FLOAT32
        runner = onnxruntime_of(graph.between)
        return flat_function(runner, feeds, graph.active, graph.outputs, keep_type=True), accuracy
    accuracy = IN_FLOAT64
    if ROUNDED & set(graph.operators):
        accuracy = IN_FLOAT32
    # onnxruntime has the coordinates of these in float32.
    if {"GridSample", "Resize", "RoiAlign", "Upsample"} & set(graph.operators):
        accuracy = replace(accuracy, relative=1e-4)
    return flat_function(reference_of(graph.between), feeds, graph.active, graph.outputs), accuracy


def _sizes(affine: ilin.AffineMap, z: np.ndarray) -> np.ndarray:
    """|W| |z|; in float32 the largest of all rows, as the entries of W are sums that may cancel as well."""
    terms = np.abs(affine.W) @ np.abs(z)
    return np.full_like(terms, terms.max(initial=0)) if affine.W.dtype == np.float32 else terms


def _assert_value(
    graph: Graph, affine: ilin.AffineMap, z: np.ndarray, theirs: np.ndarray, where: str
) -> None:
    """W z + b to the accuracy of the model's type: next to a kink, onnxruntime may be on its other side."""
    deviation = np.abs(affine.W @ z + affine.b - theirs)
    terms = _sizes(affine, z) + np.abs(affine.b)
    if {"DFT", "STFT"} & set(graph.operators):  # onnxruntime's errors there are of the largest entry's size
        terms = np.full_like(terms, terms.max(initial=0))
    relative = 2e-2 if graph.dtype == np.float16 else 1e-5
    assert (deviation <= relative * (1 + terms)).all(), f"W z + b is off by {deviation.max():.3g} {where}"


def run_many(count: int, *, must: str | None = None, most: int = 7) -> Tally:
    tally = Tally()

    @settings(COMMON, max_examples=count)
    @given(graphs(must=must, most=most), st.sampled_from(sorted(ENGINES)))
    def run(graph: Graph, engine: str) -> None:
        tally.add(graph, *check(graph, engine))

    run()
    assert tally.graphs >= count
    assert tally.kinked < 0.25 * tally.compared, "most slopes met a kink, so that little was compared"
    return tally


def test_random_graphs() -> None:
    run_many(40)


@pytest.mark.parametrize("operator", KNOWN)
def test_graphs_around_each_operator(operator: str) -> None:
    assert run_many(3, must=operator, most=2).operators[operator]


def test_every_operator_can_be_drawn() -> None:
    if WITHOUT_EMITTER:
        pytest.skip(f"no emitter in tests/properties/operators.py for {', '.join(WITHOUT_EMITTER)}")


@pytest.mark.slow
def test_many_random_graphs() -> None:
    tally = run_many(1000)
    # All but some that few opsets know, or that take few shapes; each has graphs of its own below.
    assert len(set(KNOWN) - set(tally.operators)) <= len(KNOWN) // 20


@pytest.mark.slow
@pytest.mark.parametrize("operator", KNOWN)
def test_many_graphs_around_each_operator(operator: str) -> None:
    assert run_many(40, must=operator, most=3).operators[operator]
