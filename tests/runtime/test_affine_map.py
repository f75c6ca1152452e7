"""The map as a value: its arithmetic, its layers, and its file."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import numpy as np
import pytest

import ilin

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def affine():
    return ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy"))


def test_contributions_and_bias_add_up_to_the_output(affine):
    for k in range(10):
        total = affine.contributions(k).sum() + affine.b[k]
        assert total == pytest.approx(affine.y[0, k], abs=1e-4)
    assert affine.contributions(4).shape == (1, 1, 8, 8)


def test_contrast_is_the_difference_of_contributions(affine):
    np.testing.assert_allclose(
        affine.contrast(4, 9), affine.contributions(4) - affine.contributions(9), atol=1e-5
    )


def test_bias_shares_add_up_to_b(affine):
    assert affine.bias_shares.shape == (len(affine.layers), 10)
    np.testing.assert_allclose(affine.bias_shares.sum(axis=0), affine.b, atol=1e-5)
    silent = [layer for layer in affine.layers if layer.op in ("Relu", "MaxPool", "Flatten")]
    assert silent
    assert not any(layer.bias_share.any() for layer in silent)


def test_the_layers_matrices_multiply_to_w(affine):
    product = reduce(lambda done, layer: layer.matrix() @ done, affine.layers[1:], affine.layers[0].matrix())
    np.testing.assert_allclose(product.toarray(), affine.W, atol=1e-4)
    with pytest.raises(ilin.InputError, match="has no input 'nothing'; its inputs: image"):
        affine.layers[0].matrix("nothing")


def test_calling_takes_the_inputs_shape(affine):
    np.testing.assert_allclose(affine(affine.x), affine.y, atol=1e-4)
    np.testing.assert_allclose(affine(affine.x[0]), affine.y, atol=1e-4)
    with pytest.raises(ilin.InputError, match=r"has shape \[1, 1, 8, 8\], but z has shape \[8, 8\]"):
        affine(affine.x[0, 0])
    with pytest.raises(ilin.InputError, match="takes the inputs image; given: x"):
        affine({"x": affine.x})


def test_rows_outside_the_map(affine):
    with pytest.raises(ilin.RowsError, match="row 10 is outside the map's 10 rows"):
        affine.contributions(10)


def test_saved_and_loaded(affine, tmp_path):
    path = tmp_path / "map.npz"
    affine.save(path)
    back = ilin.load(path)
    for name in ("W", "b", "rows", "x", "y", "bias_shares"):
        np.testing.assert_array_equal(getattr(back, name), getattr(affine, name))
    for name in ("kind", "certificate", "model", "model_sha256", "provenance", "notes", "input_shapes"):
        assert getattr(back, name) == getattr(affine, name), name
    assert [repr(layer) for layer in back.layers] == [repr(layer) for layer in affine.layers]
    with pytest.raises(ilin.InputError, match="was loaded from a file, which holds no matrices"):
        back.layers[0].matrix()


def test_saving_twice_gives_the_same_bytes(affine, tmp_path):
    for name in ("a.npz", "b.npz"):
        affine.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_path_that_cannot_be_written(affine, tmp_path):
    with pytest.raises(ilin.OutputError, match=r"cannot write .*: No such file or directory"):
        affine.save(tmp_path / "missing" / "map.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ilin.OutputError, match="cannot write"):
        affine.save(tmp_path / "folder.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.npz"]


def test_an_interrupted_save_leaves_the_old_file(affine, tmp_path, monkeypatch):
    path = tmp_path / "map.npz"
    path.write_bytes(b"precious")

    def fail(file, *_, **__):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(KeyboardInterrupt):
        affine.save(path)
    assert path.read_bytes() == b"precious"
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and then nothing"])
def test_files_that_are_no_map(tmp_path, content):
    path = tmp_path / "map.npz"
    path.write_bytes(content)
    with pytest.raises(ilin.OutputError, match="is not a map saved by ilin"):
        ilin.load(path)
    np.savez(path, W=np.eye(2))
    with pytest.raises(ilin.OutputError, match="is not a map saved by ilin"):
        ilin.load(path)
    with pytest.raises(ilin.OutputError, match="no such file"):
        ilin.load(tmp_path / "other.npz")


def test_a_truncated_map(affine, tmp_path):
    path = tmp_path / "map.npz"
    affine.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ilin.OutputError, match="truncated or corrupt"):
        ilin.load(path)
