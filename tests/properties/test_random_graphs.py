"""Random graphs: the map is verified, agrees with the reference evaluator in value, and in slope along random lines."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
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

COMMON = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def check(graph: Graph, engine: str) -> None:
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
    if {"Resize", "Upsample"} & set(graph.operators):  # coordinates in float32, as in onnxruntime
        accuracy = replace(accuracy, relative=1e-4)
    function = flat_function(runner, feeds, graph.active, graph.outputs, keep_type=keep_type)
    terms = np.abs(affine.W) @ np.abs(x) + np.abs(affine.b)
    tolerance = 1e-5 * (1 + terms)
    assert (np.abs(affine.W @ x + affine.b - function(x)) <= tolerance).all(), "W x + b"

    random = np.random.default_rng(zlib.crc32(str(graph).encode()))
    for _ in range(3):
        d = random.standard_normal(x.shape)
        found = slopes(function, x, d, accuracy, np.abs(affine.W) @ np.abs(d))
        wrong = ~found.kinked & found.misses(affine.W @ d)
        assert not wrong.any(), (
            np.flatnonzero(wrong),
            (affine.W @ d)[wrong],
            found.ahead[wrong],
            found.behind[wrong],
        )
    if affine.kind == "affine":
        z = x + random.standard_normal(x.shape) * 5
        far = np.abs(affine.W) @ np.abs(z) + np.abs(affine.b)
        assert (np.abs(affine.W @ z + affine.b - function(z)) <= 1e-5 * (1 + far)).all(), (
            "affine, but not far away"
        )


ENGINES = st.sampled_from(["auto", "sparse", "matrix-free"])


@settings(COMMON, max_examples=40)
@given(graphs(), ENGINES)
def test_random_graphs(graph: Graph, engine: str) -> None:
    check(graph, engine)
