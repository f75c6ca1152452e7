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
    IN_FLOAT32,
    IN_FLOAT64,
    flat_function,
    flattened,
    onnxruntime_of,
    reference_of,
    slopes,
)
from .builder import Graph
from .graphs import KNOWN, WITHOUT_EMITTER, graphs

DIRECTIONS = 3
ENGINES = ("auto", "sparse", "matrix-free")
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
    affine = ilin.linearize(
        graph.model, graph.feeds, inputs=graph.active, outputs=graph.outputs, dtype="float64", engine=engine
    )
    assert affine.certificate.verified, str(affine.certificate)
    assert affine.W.shape == (sum(graph.values[name].size for name in graph.outputs), x.size)
    np.testing.assert_allclose(affine.bias_shares.sum(axis=0), affine.b, rtol=1e-9, atol=1e-9)

    feeds = {**graph.feeds, **{name: graph.values[name] for name in graph.active}}
    if graph.without_reference:
        runner, accuracy, keep_type = onnxruntime_of(graph.between), IN_FLOAT32, True
    else:
        runner, accuracy, keep_type = reference_of(graph.between), IN_FLOAT64, False
    if {"Resize", "Upsample"} & set(graph.operators):  # onnxruntime has their coordinates in float32
        accuracy = replace(accuracy, relative=1e-4)
    function = flat_function(runner, feeds, graph.active, graph.outputs, keep_type=keep_type)
    _assert_value(affine, x, function(x), "at x")

    random = np.random.default_rng(zlib.crc32(graph.model.SerializeToString(deterministic=True)))
    kinked = 0
    # Where several kinks meet at x, W is the map of a side that a random line need not touch, even if the
    # differences ahead and behind agree. (Elsewhere only what is equal all around, such as dead units, ties.)
    directions = 0 if graph.on_grid and affine.certificate.ties else DIRECTIONS
    for _ in range(directions):
        d = random.standard_normal(x.shape)
        ours, found = affine.W @ d, slopes(function, x, d, accuracy, np.abs(affine.W) @ np.abs(d))
        wrong = ~found.kinked & found.misses(ours)
        assert not wrong.any(), f"rows {np.flatnonzero(wrong)}: {ours[wrong]} instead of {found.ahead[wrong]}"
        kinked += int(found.kinked.sum())
    if affine.kind == "affine":
        z = x + 5 * random.standard_normal(x.shape)
        _assert_value(affine, z, function(z), "far from x, though the map is called affine")
    return directions * affine.W.shape[0], kinked


def _assert_value(affine: ilin.AffineMap, z: np.ndarray, theirs: np.ndarray, where: str) -> None:
    """W z + b to the accuracy of float32: next to a kink, onnxruntime may be on its other side."""
    deviation = np.abs(affine.W @ z + affine.b - theirs)
    terms = np.abs(affine.W) @ np.abs(z) + np.abs(affine.b)
    assert (deviation <= 1e-5 * (1 + terms)).all(), f"W z + b is off by {deviation.max():.3g} {where}"


def run_many(count: int, *, must: str | None = None, most: int = 7) -> Tally:
    tally = Tally()

    @settings(COMMON, max_examples=count)
    @given(graphs(must=must, most=most), st.sampled_from(ENGINES))
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
    tally = run_many(600)
    assert set(KNOWN) <= set(tally.operators)


@pytest.mark.slow
@pytest.mark.parametrize("operator", KNOWN)
def test_many_graphs_around_each_operator(operator: str) -> None:
    assert run_many(40, must=operator, most=3).operators[operator]
