"""`--region`: how far the map holds, in the summary, as JSON, and in the saved file."""

from __future__ import annotations

import json
import math

import pytest
from onnx import helper

import ilin as library

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
