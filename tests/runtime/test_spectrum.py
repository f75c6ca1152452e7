"""The spectrum of W: against numpy's and scipy's own, however W is kept."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from onnx.helper import make_node
from scipy import sparse
from scipy.sparse.linalg import svds
from scipy.spatial.distance import cdist
from scipy.stats import entropy

import ilin
from ilin.runtime import spectrum

from .test_views import DIGITS, P, Q, model, two_sided


@pytest.fixture(scope="module")
def compiled():
    return ilin.compile(DIGITS / "model.onnx", dtype="float64")


@pytest.fixture(scope="module")
def affine(compiled):
    return compiled.at(np.load(DIGITS / "x.npy"))


KEPT = ["dense", "single", "sparse", "operator"]


def kept(affine, compiled, how):
    """The digits map with W kept in one way or another."""
    if how == "operator":
        return compiled.at(affine.x, materialize=False)
    forms = {"dense": lambda W: W, "single": lambda W: W.astype(np.float32), "sparse": sparse.csr_array}
    return replace(affine, W=forms[how](affine.W))


@pytest.mark.parametrize("how", KEPT)
@pytest.mark.parametrize("solver", ["LAPACK", "ARPACK"])
def test_singular_values_and_vectors_are_numpys(affine, compiled, monkeypatch, how, solver):
    if solver == "ARPACK":
        monkeypatch.setattr(spectrum, "_SMALL", 0)
        monkeypatch.setattr(np.linalg, "svd", None)
    found = kept(affine, compiled, how).spectrum(4)
    monkeypatch.undo()
    W = affine.W.astype(np.float32).astype(np.float64) if how == "single" else affine.W
    U, values, Vt = np.linalg.svd(W, full_matrices=False)
    np.testing.assert_allclose(found.singular_values, values[:4], rtol=1e-12)
    for i in range(4):
        v, u = found.right[i].ravel(), found.left[i]
        assert found.right[i].shape == affine.x.shape
        assert v[np.abs(v).argmax()] > 0
        same = np.sign(v @ Vt[i])
        np.testing.assert_allclose(v, same * Vt[i], atol=1e-10)
        np.testing.assert_allclose(u, same * U[:, i], atol=1e-10)
        off = max(np.linalg.norm(W @ v - values[i] * u), np.linalg.norm(W.T @ u - values[i] * v))
        assert off <= 1e-10 * values[0]
    assert found.residuals.max() <= 1e-10 * values[0]
    assert (found.every is None) == (solver == "ARPACK")


@pytest.mark.parametrize("how", KEPT)
@pytest.mark.parametrize("solver", ["LAPACK", "ARPACK"])
def test_ranks_norms_and_angles(affine, compiled, monkeypatch, how, solver):
    if solver == "ARPACK":
        monkeypatch.setattr(spectrum, "_SMALL", 0)
        monkeypatch.setattr(spectrum, "_ROOM", 300)  # four rows of W at a time
    found = kept(affine, compiled, how).spectrum(4)
    W = affine.W.astype(np.float32).astype(np.float64) if how == "single" else affine.W
    values = np.linalg.svd(W, compute_uv=False)
    assert found.effective_rank == pytest.approx(np.exp(entropy(values)), rel=1e-9)
    assert found.stable_rank == pytest.approx((np.linalg.norm(W, "fro") / np.linalg.norm(W, 2)) ** 2)
    for norm in (1, 2, math.inf, "inf"):
        np.testing.assert_allclose(found.row_norms(norm), np.linalg.norm(W, float(norm), axis=1), rtol=1e-12)
    cosines = 1 - cdist(W, W, "cosine")
    np.testing.assert_allclose(found.cosines, cosines, atol=1e-12)
    np.testing.assert_allclose(found.angles, np.degrees(np.arccos(np.clip(cosines, -1, 1))), atol=1e-5)
    np.testing.assert_array_equal(np.diag(found.angles), 0)
    with pytest.raises(ilin.OptionError):
        found.row_norms(3)


def tall(weight, rows=None, **options):
    """The map z ↦ Mᵀ z of a matrix product."""
    N, K = weight.shape
    proto = model([make_node("MatMul", ["x", "M"], ["y"])], {"x": [1, N]}, {"y": [1, K]}, {"M": weight})
    return ilin.compile(proto, dtype="float64").at(np.ones((1, N)), **options)


@pytest.mark.parametrize("materialize", [True, False])
def test_more_rows_than_columns(monkeypatch, materialize):
    weight = np.random.default_rng(4).standard_normal((6, 40)) * np.geomspace(1, 1e-3, 6)[:, None]
    affine = tall(weight, materialize=materialize)
    monkeypatch.setattr(spectrum, "_SMALL", 0)
    found = affine.spectrum(2)
    values = np.linalg.svd(weight, compute_uv=False)
    np.testing.assert_allclose(found.singular_values, values[:2])
    assert found.every is None
    assert found.effective_rank == pytest.approx(np.exp(entropy(values)), rel=1e-6)
    assert len(affine.spectrum(6).singular_values) == 6
    with pytest.raises(ilin.OptionError, match=r"W \d+ × \d+ has 6 singular values, not 100"):
        affine.spectrum(100)
    assert found.cosines.shape == (40, 40)


def test_equal_singular_values_count_fully_and_a_single_one_alone():
    found = tall(np.eye(5)).spectrum()
    assert found.effective_rank == pytest.approx(5)
    assert found.stable_rank == pytest.approx(5)
    np.testing.assert_array_equal(found.angles, 90 - 90 * np.eye(5))
    one = tall(np.outer([1.0, 2, 3], [1.0, 1, -1, 2])).spectrum()
    assert one.effective_rank == pytest.approx(1)
    assert one.stable_rank == pytest.approx(1)


@pytest.mark.parametrize("materialize", [True, False])
@pytest.mark.parametrize("small", [0, 2**30])
def test_a_locally_constant_map(monkeypatch, materialize, small):
    monkeypatch.setattr(spectrum, "_SMALL", small)
    proto = model([make_node("Floor", ["x"], ["y"])], {"x": [7]}, {"y": [7]}, {})
    found = ilin.compile(proto, dtype="float64").at(np.full(7, 0.5), materialize=materialize).spectrum(3)
    np.testing.assert_array_equal(found.singular_values, np.zeros(3))
    np.testing.assert_allclose(np.stack(found.left) @ np.stack(found.left).T, np.eye(3), atol=1e-15)
    np.testing.assert_allclose(np.stack(found.right) @ np.stack(found.right).T, np.eye(3), atol=1e-15)
    assert (found.effective_rank, found.stable_rank) == (0.0, 0.0)
    assert not found.row_norms().any()
    assert np.isnan(found.cosines).all()


def test_vectors_come_by_input_where_there_are_several_and_rows_are_those_asked_for():
    affine = ilin.compile(two_sided(np.float32)).at(
        {"p": P.astype(np.float32), "q": Q.astype(np.float32)}, rows=[8, 1, 4, 1]
    )
    found = affine.spectrum()
    assert {name: part.shape for name, part in found.right[0].items()} == {"p": (1, 4), "q": (1, 4)}
    np.testing.assert_allclose(found.singular_values, np.linalg.svd(affine.W.astype(float))[1], atol=1e-14)
    flat = np.concatenate([found.right[0]["p"].ravel(), found.right[0]["q"].ravel()])
    np.testing.assert_allclose(affine.W @ flat, found.singular_values[0] * found.left[0], atol=1e-6)


def test_the_same_answer_every_time(affine, monkeypatch):
    monkeypatch.setattr(spectrum, "_SMALL", 0)
    once, again = affine.spectrum(5), affine.spectrum(5)
    np.testing.assert_array_equal(once.singular_values, again.singular_values)
    np.testing.assert_array_equal(np.stack(once.right), np.stack(again.right))


def test_what_is_not_found_is_not_returned(affine, monkeypatch):
    monkeypatch.setattr(spectrum, "_SMALL", 0)
    monkeypatch.setattr(spectrum, "svds", partial(svds, maxiter=1, ncv=3))
    with pytest.raises(ilin.OptionError, match=r"2 singular values of this W were not found .*; ask for ano"):
        affine.spectrum(2)
    monkeypatch.setattr(spectrum, "svds", partial(svds, tol=0.3, ncv=3))
    with pytest.raises(ilin.OptionError, match=r"not found to 1e-07 of the largest \(residual .*\); ask for"):
        affine.spectrum(2)


def test_numbers_that_are_none_and_memory(affine):
    for k in (0, -1, True, 2.5, "all"):
        with pytest.raises(ilin.OptionError, match="k is how many singular values to find"):
            affine.spectrum(k)
    with pytest.raises(
        ilin.MemoryLimitError, match=r"all of W in float64 \(10 × 64\) .* 15.0 KiB, more than"
    ):
        affine.spectrum(memory_limit=10_000)
    with pytest.raises(ilin.MemoryLimitError, match=r"the products of 10 rows with each other take 1.6 KiB"):
        replace(affine.spectrum(), memory_limit=1000).cosines  # noqa: B018


def test_a_saved_map_has_its_spectrum(affine, tmp_path):
    affine.save(tmp_path / "map.npz")
    np.testing.assert_array_equal(
        ilin.load(tmp_path / "map.npz").spectrum().singular_values, affine.spectrum().singular_values
    )


def test_the_text_fits_80_columns(affine):
    lines = repr(affine.spectrum(8)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "W 10 × 64, the largest 8 of its 10 singular values"
    assert lines[-1].startswith("  effective rank 6.922, stable rank 2.112")
