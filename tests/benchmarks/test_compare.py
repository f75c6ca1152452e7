"""A comparison times no wrong answer, and its ratios are those of rounds that both sides took part in."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("compare")


def measured(compare, **seconds):
    return {name: compare.Measured(name, {}, 0.0, seconds=times) for name, times in seconds.items()}


def test_a_side_with_another_w_is_left_out(compare, tmp_path):
    W = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    wrong = W.copy()
    wrong[2, 4] += 0.01 * np.abs(W).max()
    for name, found in {"ilin": W, "torch": W * (1 + 1e-6), "jax": wrong, "onnx-ad": W * np.nan}.items():
        np.save(tmp_path / f"{name}.npy", found)
    sides = measured(compare, ilin=[], torch=[], jax=[]) | {"onnx-ad": compare.Measured("onnx-ad", {}, 0.0)}
    skipped = {}
    compare.drop_wrong(sides, skipped, tmp_path, lambda line: None)
    assert set(sides) == {"ilin", "torch"}
    assert set(skipped) == {"jax", "onnx-ad"}
    assert sides["torch"].deviation == pytest.approx(1e-6, rel=0.2)


def test_ratios_pair_the_rounds_of_the_fastest_peer(compare):
    sides = measured(compare, ilin=[1.0, 2.0, 4.0], torch=[2.0, 6.0], jax=[9.0, 9.0, 9.0])
    sides["ilin"].verified = [2.0, 4.0, 8.0]
    assert compare.ratios(sides) == {"ilin": {"peer": "torch", "map": 2.5, "verified": 1.25}}


def test_without_a_peer_there_is_no_ratio(compare):
    assert compare.ratios(measured(compare, ilin=[1.0])) == {}
