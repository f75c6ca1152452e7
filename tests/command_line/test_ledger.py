"""`--ledger` and `--against`: every term of the largest output, in the summary and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

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
    assert "--ledger shows one instance" in refused(model, several, "--ledger")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "0"], "--against belongs to --ledger"),
        (["--ledger", "--against", "3"], "--against 3 is none of the rows that are explained"),
        (["--ledger", "--against", "0", "--rows", "1,2"], "which --rows must list where it is given"),
    ],
)
def test_refusals(refused, model, x, arguments, message):
    assert message in refused(model, x, *arguments)
