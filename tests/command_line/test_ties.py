"""`--ties`: which ties matter, in the summary, as JSON, and in the saved file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import helper

import ilin as library

from .models import save, tensor, write


@pytest.fixture
def halves(tmp_path):
    """|x| as Relu(x) + Relu(-x), and a point where the first entry is 0."""
    nodes = [
        helper.make_node("Neg", ["x"], ["n"], name="turned"),
        helper.make_node("Relu", ["x"], ["p"], name="above"),
        helper.make_node("Relu", ["n"], ["q"], name="below"),
        helper.make_node("Add", ["p", "q"], ["y"], name="sum"),
    ]
    file = save(tmp_path / "halves.onnx", nodes, [tensor("x", [1, 2])], [tensor("y", [1, 2])])
    return file, write(tmp_path / "tied.npy", np.float32([[0, 2]]))


def test_the_summary_names_what_matters(ilin_compile, halves):
    result = ilin_compile(*halves, "--ties")

    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.split("\n")]
    first = lines.index("ties       2 may matter: their choices are those of no region")
    assert lines[first + 1 : first + 5] == [
        "1 of 1 Relu above: a kink belongs to the piece below it",
        "1 of 1 Relu below: a kink belongs to the piece below it",
        "ahead   differs in 1 of 2 rows, W by up to 1",
        "behind  differs in 1 of 2 rows, W by up to 1",
    ]
    assert "2 of 4 units lie exactly on a kink at x (ties, 2 of them may matter)" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.split("\n"))


def test_without_the_option_they_are_counted(ilin_compile, halves):
    text = ilin_compile(*halves).stdout

    assert "2 of 4 units lie exactly on a kink at x (ties; see --ties)" in text
    assert "may matter" not in text


def test_json_and_the_saved_file_hold_them(ilin_compile, halves, tmp_path):
    document = json.loads(ilin_compile(*halves, "--ties", "--json", "-o", tmp_path / "map.npz").stdout)

    assert document["ties"]["matter"] == document["certificate"]["ties_that_matter"] == 2
    assert document["ties"]["genuine"] is document["certificate"]["ties_genuine"] is False
    assert [side["rows"] for side in document["ties"]["sides"]] == [[0], [0]]
    loaded = library.load(tmp_path / "map.npz").ties.as_dict()
    assert json.loads(json.dumps(loaded)) == document["ties"]


def test_without_ties_it_says_so(ilin_compile, model, x):
    assert "ties       none" in ilin_compile(model, x, "--ties").stdout
