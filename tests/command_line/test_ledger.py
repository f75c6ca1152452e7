"""`--ledger` and `--against`: every term of the largest output, in the summary and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ilin.compiler.pipeline import CompiledModel

from .models import C, W, X, write


def test_the_summary_adds_the_largest_output_up(ilin_compile, model, x):
    result = ilin_compile(model, x, "--ledger")

    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.split("\n")]
    assert ["Gemm", "second,", "channel", "2", "+1.000"] in lines
    assert ["sum", "+18.500"] in lines
    assert ["onnxruntime", "+18.500", "residual", "0.0e+00"] in lines
    assert ["y[0,", "2]", "x", "weight", "contribution"] in lines


def test_against_another_output(ilin_compile, model, x):
    told = json.loads(ilin_compile(model, x, "--ledger", "--against", "0", "--json").stdout)["ledger"]

    np.testing.assert_array_equal(told["contributions"]["x"], (W[[2]] - W[[0]]) * X)
    assert [share["channels"] for share in told["shares"]] == [[-C[0], 0, C[2]]]
    assert told["value"] == told["sum"] == 18.5 - 2.5
    assert "y[0, 2] - y[0, 0]" in ilin_compile(model, x, "--ledger", "--against", "-3").stdout


def test_several_instances_as_json(ilin_compile, refused, model, tmp_path):
    several = write(tmp_path / "several.npy", np.concatenate([X, 2 * X]))

    document = json.loads(ilin_compile(model, several, "--ledger", "--json").stdout)
    assert [one["ledger"]["value"] for one in document["instances"]] == [18.5, 36]
    assert "--ledger shows one instance, not 2: add --json" in refused(model, several, "--ledger")


def test_another_output_than_the_largest(ilin_compile, model, x):
    document = json.loads(ilin_compile(model, x, "--explain", "-2", "--json").stdout)
    assert (document["explained"]["row"], document["explained"]["largest"]) == (1, False)
    text = ilin_compile(model, x, "--explain", "1", "--rows", "top2").stdout
    assert "\noutput 1 " in text
    told = json.loads(ilin_compile(model, x, "--explain", "1", "--against", "0", "--json").stdout)["ledger"]
    np.testing.assert_array_equal(told["contributions"]["x"], (W[[1]] - W[[0]]) * X)


def test_against_alone_shows_the_ledger(ilin_compile, model, x):
    alone, both = (ilin_compile(model, x, *more, "--against", "0").stdout for more in ([], ["--ledger"]))
    assert alone.partition("\ntook")[0] == both.partition("\ntook")[0]


def test_nothing_is_composed_for_what_is_refused(monkeypatch, refused, model, x):
    monkeypatch.setattr(CompiledModel, "_compose", lambda *_: pytest.fail("W was composed"))
    refused(model, x, "--explain", "3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "3"], "--explain 3: the outputs are 0 to 2; -1 is the last"),
        (["--ledger", "--against", "-4"], "--against -4: the outputs are 0 to 2; -1 is the last"),
        (["--against", "0", "--rows", "1,2"], "--against 0 is not among --rows; add it there, or leave"),
        (["--explain", "0", "--rows", "top2"], "--explain 0 is not among --rows; add it there, or leave"),
        (["--against", "2"], "--against 2 is the explained output itself; name another one"),
        (["--explain", "1", "--against", "-2"], "--against -2 is the explained output itself"),
    ],
)
def test_refusals(refused, model, x, arguments, message):
    assert message in refused(model, x, *arguments)
