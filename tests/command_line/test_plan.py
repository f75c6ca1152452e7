"""`ilin plan`: the cost before anything is computed."""

from __future__ import annotations

import json

import numpy as np
from onnx import helper

from .models import save, tensor, write


def test_a_plan(ilin, identity):
    result = ilin("plan", identity)
    assert result.exit_code == 0
    assert "W          1,000 × 1,000, 3.8 MiB" in result.stdout
    assert "1,000 passes" in result.stdout
    alone = ilin("plan", identity, "--rows", "5")
    assert "multiply-adds, 1 pass\n" in alone.stdout


def test_a_plan_at_a_point_for_machines(ilin, model, x):
    told = json.loads(ilin("plan", model, x, "--rows", "top2", "--direction", "cut", "--json").stdout)
    assert (told["rows"], told["columns"], told["W_bytes"]) == (2, 4, 32)
    assert told["direction"] == "cut"
    assert told["fits"] is True
    assert told["legs"][0]["from"] == ["y"]
    assert told["legs"][-1]["to"] == ["x"]


def test_a_map_that_does_not_fit(ilin, identity):
    result = ilin("plan", identity, "--memory-limit", "1MB")
    assert result.exit_code == 2
    assert "3.8 MiB" in result.stdout
    assert result.stderr.startswith(
        "error: W would have 1,000 × 1,000 entries, 3.8 MiB, over the limit of 976.6 KiB"
    )


def test_a_map_that_fits_while_its_sweep_does_not(ilin, ilin_compile, identity, tmp_path):
    path = write(tmp_path / "x.npy", np.ones((1, 1000), np.float32))
    for result in (
        ilin("plan", identity, path, "--rows", "top1", "--memory-limit", "5kB"),
        ilin_compile(identity, path, "--rows", "top1", "--memory-limit", "5kB"),
    ):
        assert result.exit_code == 2
        assert "W would fit, but composing it takes about" in result.stderr


def test_zeros_that_are_no_valid_point(ilin, tmp_path):
    nodes = [helper.make_node("Div", ["x", "d"], ["y"], "divide")]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 2]), tensor("d", [1, 2])], [tensor("y", [1, 2])])
    result = ilin("plan", path, "--inputs", "x")
    assert result.exit_code == 2
    assert "do not go through this model; give an x (tensor 'y' holds NaN" in result.stderr


def test_an_engine_that_cannot_run_it(ilin, tmp_path):
    weights = {"w": np.ones((1, 1, 3, 3), np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 1, 5, 5])], [tensor("y", [1, 1, 3, 3])], weights)
    result = ilin("plan", path, "--engine", "adjoint", "--dtype", "float64")
    assert result.exit_code == 2
    assert "no float64 Conv on the CPU" in result.stderr


def test_verbose_shows_the_plan_before_the_answer(ilin_compile, model, x):
    result = ilin_compile(model, x, "--verbose")
    assert result.stderr.startswith("note: plan: W 3 × 4: 3 rows back to x[1, 4], matrix-free; ")
