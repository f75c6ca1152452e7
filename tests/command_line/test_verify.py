"""`ilin verify`: its lines, its document, its exit codes, and what it refuses."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from .models import X, write


@pytest.fixture
def saved(model, x, ilin_compile, tmp_path):
    out = tmp_path / "map.npz"
    assert ilin_compile(model, x, "-o", out).exit_code == 0
    return out


@pytest.fixture
def changed(model, tmp_path):
    """The model with one weight another."""
    proto = onnx.load(model)
    (bias,) = (tensor for tensor in proto.graph.initializer if tensor.name == "C")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.25), "C"))
    onnx.save(proto, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


CHECKS = (
    *("file", "header hash", "input hash", "result hash", "evidence hash", "certificate", "model hash", "x"),
    *("model at x", "W x + b at x", "fresh points", "points between", "W in float64"),
)


def test_every_check_has_its_line(ilin, saved, model, x):
    result = ilin("verify", saved, model, x)
    assert result.exit_code == 0
    assert result.stderr == ""
    head, lines = result.stdout.rstrip("\n").split("\n\n")
    assert head.startswith(f"map        {saved}: piecewise-linear, W 3 × 4\nmade with  ilin ")
    assert max(map(len, lines.split("\n"))) <= 80
    checks = [line for line in lines.split("\n") if not line.startswith(" ")]  # others go on with one
    assert [line[:4] for line in checks] == ["pass"] * len(CHECKS)
    assert tuple(line[6:].split(":")[0] for line in checks) == CHECKS


def test_a_document(ilin, saved, model):
    result = ilin("verify", saved, model, "--json")
    document = json.loads(result.stdout)
    assert document["holds"] is True
    assert document["made_here"] is True
    assert document["shape"] == [3, 4]
    assert [one["check"] for one in document["checks"]] == [name for name in CHECKS if name != "x"]
    assert all(one["passed"] for one in document["checks"])


def test_float64_is_made_where_it_is_quick_or_asked_for(ilin, saved, model, monkeypatch):
    def line(*options):
        document = json.loads(ilin("verify", saved, model, "--json", *options).stdout)
        return document["checks"][-1]

    found = line()
    assert found["passed"]
    assert found["told"].startswith("W times a step is within ")
    assert 0 <= found["over_bound"] <= 1
    assert found["moved_over_bound"] > 1e5
    assert line("--double") == found
    skipped = line("--no-double")
    assert (skipped["passed"], skipped["told"], skipped["over_bound"]) == (None, "not wanted", None)

    monkeypatch.setattr("ilin.runtime.recheck._SECONDS", -1.0)
    assert line("--double") == found
    assert line()["passed"] is None
    assert line()["told"] == "not made, as it may take about 0 s; --double makes it"


def test_another_model_fails_by_name_and_is_run_all_the_same(ilin, saved, changed):
    result = ilin("verify", saved, changed)
    assert result.exit_code == 1
    failing = [line[6:].split(":")[0] for line in result.stdout.split("\n") if line.startswith("FAIL")]
    assert failing == ["model hash", "model at x", "W x + b at x", "fresh points", "points between"]
    assert "within 0.25 of onnxruntime" in result.stdout
    assert result.stderr == f"error: does not hold: {', '.join(failing)}\n"


def test_another_x(ilin, saved, model, tmp_path):
    other = write(tmp_path / "other.npy", X + 1)
    result = ilin("verify", saved, model, other)
    assert result.exit_code == 1
    assert "FAIL  x: 'x' differs from the map's in 4 of 4 entries\n" in result.stdout
    assert result.stderr == "error: does not hold: x\n"


def test_quiet(ilin, saved, model, changed):
    assert ilin("verify", saved, model, "-q").output == ""
    result = ilin("verify", saved, changed, "--quiet", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: does not hold: model hash")


def test_a_folder(ilin, ilin_compile, model, x, tmp_path):
    assert ilin_compile(model, x, "--out-dir", tmp_path / "MAP").exit_code == 0
    assert ilin("verify", tmp_path / "MAP", model, x).exit_code == 0
    (tmp_path / "MAP" / "bounds.npy").unlink()
    result = ilin("verify", tmp_path / "MAP", model, x)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: no such file: {tmp_path / 'MAP' / 'bounds.npy'}\n"


def test_what_cannot_be_read(ilin, saved, model, x, tmp_path):
    cut = tmp_path / "cut.npz"
    cut.write_bytes(saved.read_bytes()[:-100])
    shutil.copy(x, tmp_path / "array.npz")
    for out, told in (
        (cut, "is not a map saved by ilin, or it is truncated or corrupt"),
        (tmp_path / "array.npz", "it holds one array (.npy)"),
        (tmp_path / "missing.npz", "no such file"),
        (tmp_path, "is a folder without a map saved by ilin"),
        (model, "it is no .npz file"),
    ):
        result = ilin("verify", out, model)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert told in result.stderr
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    result = ilin("verify", saved, tmp_path / "missing.onnx")
    assert (result.exit_code, result.stderr) == (2, f"error: no such file: {tmp_path / 'missing.onnx'}\n")
    assert ilin("verify", saved, saved).exit_code == 2
    assert ilin("verify", saved).stderr.startswith("error: Missing argument 'MODEL'")


def test_a_flipped_bit_is_caught_or_does_not_matter(ilin, saved, model):
    """Wherever it is: `run` raises what is not an exit, so no traceback passes."""
    whole = saved.read_bytes()
    codes = []
    for place in range(0, len(whole), 97):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x10
        saved.write_bytes(spoilt)
        result = ilin("verify", saved, model)
        codes.append(result.exit_code)
        assert result.exit_code in (0, 1, 2), result.output
        if result.exit_code == 0:  # a part of the archive that no reader looks at
            with np.load(saved) as file:
                read = [file[name].tobytes() for name in file.files]
            with np.load(io.BytesIO(whole)) as file:
                assert read == [file[name].tobytes() for name in file.files]
    assert codes.count(2) > len(codes) / 2
