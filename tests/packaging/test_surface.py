"""What a user meets: the names that complete, the types that methods return, options, rows, reprs."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

import ilin
from ilin.compiler.options import Options

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
STAGES = {"asked", "answer", "compose", "compose_together", "case", "prepared", "survey", "ties", "planned"}
DEFERRED = {"layers_of", "certify", "survey", "recorder", "examine", "members", "header"}


@pytest.fixture(scope="module")
def x():
    return np.load(DIGITS / "x.npy")


@pytest.fixture(scope="module")
def compiled():
    return ilin.compile(DIGITS / "model.onnx")


@pytest.fixture(scope="module")
def affine(compiled, x):
    return compiled.at(x)


def test_stages_and_what_is_deferred_do_not_complete(compiled, affine):
    assert not STAGES & set(dir(compiled))
    assert not DEFERRED & set(dir(affine))


def test_what_methods_return_can_be_imported(compiled, affine, x):
    assert isinstance(affine.ledger(), ilin.Ledger)
    assert isinstance(affine.region, ilin.Region)
    assert isinstance(affine.region.radius(2), ilin.Radius)
    assert isinstance(affine.ties, ilin.Ties)
    assert isinstance(compiled.plan(x), ilin.Plan)
    assert isinstance(affine.spectrum(), ilin.Spectrum)
    assert isinstance(affine.upto(affine.layers[0]), ilin.LayerView)
    assert isinstance(affine.trace_feature(0), ilin.FeatureTrace)
    assert isinstance(affine.units(4, affine.layers[0]), ilin.Units)


def test_options_are_the_keywords_of_compile():
    keywords = [
        p.name for p in inspect.signature(ilin.compile).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    assert list(Options.__annotations__) == keywords


def test_linearize_takes_what_at_takes(x):
    from scipy.sparse.linalg import LinearOperator

    assert isinstance(ilin.linearize(DIGITS / "model.onnx", x, materialize=False).W, LinearOperator)


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64")])
def test_a_dtype_by_name_by_class_or_as_numpy_has_it(dtype):
    assert ilin.compile(DIGITS / "model.onnx", dtype=dtype).dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float16, np.dtype(">f4"), None, float])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ilin.OptionError, match=r"unknown dtype .*choose from float32, float64"):
        ilin.compile(DIGITS / "model.onnx", dtype=dtype)


def test_the_largest_rows_by_text_and_by_number(compiled, x):
    best = np.argsort(-compiled.at(x).y.ravel())[:3]
    assert compiled.at(x, rows="top3").rows.tolist() == compiled.at(x, rows=3).rows.tolist() == best.tolist()
    assert compiled.at(x, rows=[3]).rows.tolist() == [3]
    for rows in ("top", "3", "top0"):
        with pytest.raises(ilin.RowsError, match=r"top5|at least one"):
            compiled.at(x, rows=rows)


def test_without_a_row_it_is_the_largest(affine):
    best, second = np.argsort(-affine.y.ravel())[:2]
    assert np.array_equal(affine.weights(), affine.weights(int(best)))
    assert np.array_equal(affine.contributions(), affine.contributions(int(best)))
    assert np.array_equal(affine.contrast(), affine.contrast(int(best), int(second)))
    assert affine.ledger().row == best


def test_an_output_is_found_among_the_rows(compiled, x):
    affine = compiled.at(x, rows=[7, 4])
    assert affine.row_of(4) == 1
    assert affine.row_of(-3) == 0
    with pytest.raises(ilin.RowsError, match="output 5 is none of the 2 rows"):
        affine.row_of(5)
    with pytest.raises(ilin.RowsError, match="one row"):
        compiled.at(x, rows=1).contrast()


def test_reprs_are_short(affine, tmp_path):
    affine.save(tmp_path / "map.npz")
    checked = ilin.verify(tmp_path / "map.npz", DIGITS / "model.onnx")
    for value in (affine.ties, affine.certificate, checked, affine.units(4, affine.layers[0])):
        assert len(repr(value)) < 300, value
        assert repr(value).startswith(type(value).__name__)


def test_notebooks_show_regions_ties_plans_and_spectra(affine, compiled, x):
    assert "multiply-adds" in compiled.plan(x)._repr_html_()
    assert "σ1" in affine.spectrum()._repr_html_()
    affine.region.radius(2)
    assert "radius L2" in affine.region._repr_html_()
    assert "<table>" in affine.ties._repr_html_()
