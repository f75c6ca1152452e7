"""`ilin plan`: the cost before anything is computed."""

from __future__ import annotations

import json


def test_a_plan(ilin, identity):
    result = ilin("plan", identity)
    assert result.exit_code == 0
    assert "W          1,000 × 1,000, 3.8 MiB" in result.stdout
    assert "1,000 passes" in result.stdout


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
    assert "no: the limit is 976.6 KiB; ask for fewer rows" in result.stdout


def test_verbose_shows_the_plan_before_the_answer(ilin_compile, model, x):
    result = ilin_compile(model, x, "--verbose")
    assert result.stderr.startswith("note: plan: W 3 × 4: 3 rows back to x[1, 4], matrix-free; ")
