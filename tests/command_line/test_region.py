"""`--region`: how far the map holds, in the summary, as JSON, and in the saved file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click import unstyle
from onnx import helper

import ilin as library
from ilin.command_line.summary import _region
from ilin.report.words import between
from ilin.runtime.region import GIVEN_UP, Boundary, Radius

from .models import save, tensor

# The hidden units (1, 0, 2, 0), (0, 1, 0, -1) and (1, 1, 1, 1) have the margins 2, 1 and 6.5 at x.
DISTANCES = {"1": 1.0, "2": 1 / math.sqrt(2), "inf": 0.5}


def test_the_summary_names_the_distance_and_the_unit(ilin_compile, model, x):
    result = ilin_compile(model, x, "--region")

    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.split("\n")]
    node = library.compile(model).graph.nodes[1].name
    assert [line for line in lines if line.startswith(("L2", "L∞"))] == [
        f"L2  0.70711    Relu {node} [0, 1]",
        f"L∞  0.5        Relu {node} [0, 1]",
    ]
    assert any(line.startswith("region     L1  1 ") for line in lines)


def test_json_holds_every_radius(ilin_compile, model, x):
    document = json.loads(ilin_compile(model, x, "--region", "--json").stdout)

    radii = {radius["norm"]: radius for radius in document["region"]["radii"]}
    assert {norm: radius["distance"] for norm, radius in radii.items()} == pytest.approx(DISTANCES, rel=1e-12)
    assert all(radius["exact"] for radius in radii.values())
    assert radii["inf"]["boundary"]["unit"] == [0, 1]
    assert len(document["region"]["pattern_sha256"]) == 64


def test_without_the_option_nothing_is_said(ilin_compile, model, x):
    assert "region" not in json.loads(ilin_compile(model, x, "--json").stdout)


def test_the_saved_file_keeps_it(ilin_compile, model, x, tmp_path):
    ilin_compile(model, x, "--region", "-o", tmp_path / "map.npz")

    region = library.load(tmp_path / "map.npz").region

    for norm, distance in DISTANCES.items():
        assert region.radius(norm).distance == pytest.approx(distance, rel=1e-12)


@pytest.mark.parametrize(
    ("op_type", "said"),
    [("Sigmoid", "region     x alone: the map is smooth"), ("Identity", "region     L1  unbounded")],
)
def test_other_kinds_say_what_they_are(ilin_compile, tmp_path, x, op_type, said):
    nodes = [helper.make_node(op_type, ["x"], ["y"], name="only")]
    model = save(tmp_path / "one.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])])

    result = ilin_compile(model, x, "--region")

    assert result.exit_code == 0
    assert said in result.stdout


@pytest.fixture
def wide(tmp_path):
    """200 units over 8 inputs."""
    rng = np.random.default_rng(5)
    arrays = {"A": rng.normal(size=(8, 200)), "o": rng.normal(size=200), "B": rng.normal(size=(200, 2))}
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h"], "first"),
        helper.make_node("Add", ["h", "o"], ["s"], "shift"),
        helper.make_node("Relu", ["s"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "B"], ["y"], "last"),
    ]
    weights = {name: value.astype(np.float32) for name, value in arrays.items()}
    path = save(tmp_path / "wide.onnx", nodes, [tensor("x", [1, 8])], [tensor("y", [1, 2])], weights)
    x = tmp_path / "wide.npy"
    np.save(x, rng.normal(size=(1, 8)).astype(np.float32))
    true = np.abs(np.load(x) @ weights["A"] + weights["o"]) / np.linalg.norm(weights["A"], axis=0)
    return path, x, float(true.min())


def test_a_search_out_of_time_says_what_is_known(ilin_compile, wide):
    path, x, true = wide

    given_up = ilin_compile(path, x, "--region-seconds", "1e-6")
    document = json.loads(ilin_compile(path, x, "--region-seconds", "1e-6", "--json").stdout)
    settled = json.loads(ilin_compile(path, x, "--region-seconds", "60", "--json").stdout)

    assert "--region-seconds S gives the search more time" in given_up.stdout
    (l2,) = (radius for radius in document["region"]["radii"] if radius["norm"] == "2")
    assert not l2["exact"] and 0 < l2["at_least"] <= true * (1 + 1e-6)
    (l2,) = (radius for radius in settled["region"]["radii"] if radius["norm"] == "2")
    assert l2["exact"] and l2["distance"] == pytest.approx(true, rel=1e-5)


def test_what_was_not_settled_is_put_in_words():
    found = Boundary("relu", "Relu", 0, (0, 1), 0, 0.5)
    radius = Radius(2, 0.5, 0.25, found, note=GIVEN_UP)

    lines = [unstyle(line).strip() for line in _region({"radii": [radius.as_dict()]})]

    assert lines == [
        "region     L2  at least 0.25, at most 0.5 Relu relu [0, 1]",
        "not settled: the map holds as far as the first number at least,",
        "and no farther than the second, as a boundary was found there",
        GIVEN_UP,
        "--region-seconds S gives the search more time",
    ]
    assert between(radius) == "at least 0.2500, at most 0.5000"


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
def test_seconds_are_a_positive_number(ilin_compile, model, x, seconds):
    result = ilin_compile(model, x, "--region-seconds", seconds)

    assert result.exit_code == 2
    assert result.stderr.startswith("error: --region-seconds")
