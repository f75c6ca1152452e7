"""A map composed into a folder is the map that is composed in memory, checked as that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ilin
from ilin.compiler import to_folder
from ilin.compiler.engine import Engine
from ilin.compiler.to_folder import linearize_to

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture
def x():
    return np.load(DIGITS / "x.npy")


@pytest.fixture(autouse=True)
def three_rows_a_block(monkeypatch):
    monkeypatch.setattr(to_folder, "_BLOCK", 3 * 64 * 4)


@pytest.mark.parametrize("engine", ["sparse", "matrix-free", "adjoint"])
@pytest.mark.parametrize("rows", ["all", 4, [7, 7, 0]])
def test_the_same_map(tmp_path, x, engine, rows):
    compiled = ilin.compile(DIGITS / "model.onnx", engine=engine)
    inside, done = compiled.at(x, rows), []
    outside = linearize_to(compiled, tmp_path / "map", x, rows, progress=lambda *at: done.append(at))
    assert done[0] == (3, len(inside.rows))
    for affine in (outside, ilin.load(tmp_path / "map")):
        assert isinstance(affine.W, np.memmap)
        np.testing.assert_allclose(affine.W, inside.W, rtol=0, atol=1e-5)
        np.testing.assert_allclose(affine.b, inside.b, rtol=0, atol=1e-5)
        np.testing.assert_allclose(affine.bias_shares, inside.bias_shares, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(affine.rows, inside.rows)
        np.testing.assert_array_equal(affine.x, inside.x)
        np.testing.assert_array_equal(affine.y, inside.y)
        assert affine.certificate.verified
        assert affine.certificate.points_held == 2
        assert affine.certificate.steps == inside.certificate.steps
        assert affine.certificate.ties == inside.certificate.ties
        assert 0 < affine.certificate.at_x < 1e-4
        assert (affine.kind, affine.model_sha256) == (inside.kind, inside.model_sha256)
        np.testing.assert_allclose(affine(x), inside(x), rtol=0, atol=1e-4)
        np.testing.assert_allclose(affine.contributions(1), inside.contributions(1), rtol=0, atol=1e-5)
        assert affine.provenance["nonzero"] == np.count_nonzero(inside.W)


def test_a_wrong_row_is_found_in_whichever_block_it_is(tmp_path, x, monkeypatch):
    right = Engine.rows

    def wrong(self, *arguments):
        sweep = right(self, *arguments)

        def back(rows):
            found = sweep(rows)
            return replace(found, W=found.W + 0.01 * (rows == 4)[:, None])

        return back

    monkeypatch.setattr(Engine, "rows", wrong)
    affine = linearize_to(ilin.compile(DIGITS / "model.onnx"), tmp_path / "map", x)
    assert not affine.certificate.verified
    assert "W x + b differs from onnxruntime's output at x" in affine.certificate.reason
    again = ilin.load(tmp_path / "map")
    assert again.certificate == affine.certificate
    monkeypatch.setattr(Engine, "rows", right)
    resumed = linearize_to(ilin.compile(DIGITS / "model.onnx"), tmp_path / "map", x)
    assert not resumed.certificate.verified  # what was found stays with the rows


def test_an_interrupted_run_goes_on_and_only_with_the_same_question(tmp_path, x):
    def stop(done, _):
        if done == 6:
            raise KeyboardInterrupt

    compiled = ilin.compile(DIGITS / "model.onnx")
    with pytest.raises(KeyboardInterrupt, match=r"6 of 10 rows are finished"):
        linearize_to(compiled, tmp_path / "map", x, progress=stop)
    for words, model, point, rows in [
        ("x ", compiled, x + 1, "all"),
        (
            "dtype is float32 there and float64 here",
            ilin.compile(DIGITS / "model.onnx", dtype="float64"),
            x,
            "all",
        ),
        (
            "engine is auto there and sparse here",
            ilin.compile(DIGITS / "model.onnx", engine="sparse"),
            x,
            "all",
        ),
        ("rows ", compiled, x, 3),
    ]:
        with pytest.raises(ilin.OutputError, match=f"6 of 10 rows of another map: .*{words}"):
            linearize_to(model, tmp_path / "map", point, rows)
    done = []
    affine = linearize_to(compiled, tmp_path / "map", x, progress=lambda *at: done.append(at))
    assert done == [(9, 10), (10, 10)]
    np.testing.assert_allclose(affine.W, compiled.at(x).W, rtol=0, atol=1e-5)
