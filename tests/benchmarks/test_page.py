"""docs/performance.md says what was measured, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "performance" / "results.json"


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = load("page")


def side(name, seconds, verified=None, **more):
    return {
        "side": name,
        "options": {"call": "jacrev", "chunk": None},
        "ready_s": 0.5,
        "deviation": 3e-7,
        "median_s": seconds,
        "median_verified_s": verified,
        "seconds": [seconds],
        "verified_seconds": [verified],
        "peak_bytes": 300 << 20,
        "base_bytes": 200 << 20,
        "facts": {},
        **more,
    }


def results(**more):
    return {
        "date": "2026-01-02",
        "command": "python benchmarks/run.py",
        "machine": {"processor": "P", "threads": 2, "system": "S", "memory_bytes": 8 << 30, "python": "3.11"},
        "multiply_adds_per_second": 9e10,
        "versions": {"ilin": "1.2.3"},
        "complete": True,
        "cases": [],
        "growth": [],
        **more,
    }


def case(*sides, **more):
    return {
        "case": "a case",
        "K": 10,
        "N": 3072,
        "points": 0,
        "shifts": [],
        "active": 0.5,
        "skipped": {},
        "sides": list(sides),
        "ratios": {"ilin": {"peer": "jax", "map": 2.0, "verified": 0.8}},
        **more,
    }


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_summary_names_the_fastest_peer_and_the_ratios():
    text = page.page(
        results(cases=[case(side("ilin", 0.01, 0.025), side("torch", 0.5), side("jax", 0.02))]), "p", []
    )
    assert rows(text)[2] == ["a case", "jax 20.0 ms", "10.0 ms / 25.0 ms", "2.00", "0.800", "", "", ""]


def test_what_was_left_out_is_said():
    text = page.page(results(cases=[case(side("ilin", 1.5, 2), skipped={"jax": "not installed"})]), "p", [])
    assert "Left out: jax: not installed." in text
    assert ["a case", "none", "1.50 s / 2.00 s", "2.00", "0.800", "", "", ""] in rows(text)


def test_growth_has_a_row_for_each_value_and_the_floor_of_ilins_plan():
    point = {"value": 100, "points": 0, **case(side("ilin", 0.01, 0.02, floor_s=0.004), side("torch", 0.5))}
    series = {"name": "outputs", "network": "CNN", "axis": "outputs K", "points": [point]}
    text = page.page(results(growth=[series]), "p", ["growth-outputs.png"])
    assert "(p/growth-outputs.png)" in text
    assert rows(text)[-1] == ["100", "10.0 ms / 20.0 ms", "300", "500 ms", "300", "4.00 ms"]


def test_a_run_that_was_stopped_says_so():
    assert "stopped before its end" in page.page(results(complete=False), "p", [])
    assert "stopped before its end" not in page.page(results(), "p", [])


@pytest.mark.skipif(not RESULTS.exists(), reason="nothing was measured yet")
def test_the_published_page_is_what_the_results_give():
    published = (ROOT / "docs" / "performance.md").read_text()
    pictures = re.findall(r"\(performance/([\w-]+\.png)\)", published)
    assert all((RESULTS.parent / name).exists() for name in pictures)
    assert published == page.page(json.loads(RESULTS.read_text()), "performance", pictures)
