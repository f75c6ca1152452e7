"""Files that are no model, or not a whole one: one line each, nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import ilin

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "model.onnx"


def test_path_bytes_and_proto_give_the_same_map():
    x = np.load(DIGITS.parent / "x.npy")
    maps = [
        ilin.linearize(source, x) for source in (DIGITS, str(DIGITS), DIGITS.read_bytes(), onnx.load(DIGITS))
    ]
    for affine in maps[1:]:
        np.testing.assert_array_equal(affine.W, maps[0].W)
    assert maps[0].model_sha256 == maps[2].model_sha256


def test_no_such_file(tmp_path):
    with pytest.raises(ilin.ModelError, match=r"no such file: .*missing\.onnx"):
        ilin.compile(tmp_path / "missing.onnx")


def test_a_folder(tmp_path):
    with pytest.raises(ilin.ModelError, match="cannot read"):
        ilin.compile(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x00" * 100])
def test_not_onnx(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(ilin.ModelError, match=r"x\.onnx is not an ONNX model"):
        ilin.compile(path)


def test_truncated(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(DIGITS.read_bytes()[:-1000])
    with pytest.raises(ilin.ModelError, match="is not an ONNX model, or it is truncated or corrupt"):
        ilin.compile(path)


def test_refused_by_the_checker():
    proto = onnx.load(DIGITS)
    proto.graph.node[0].op_type = "Convolution"
    with pytest.raises(ilin.ModelError, match=r"not a valid ONNX model \(onnx\.checker\): .*Convolution"):
        ilin.compile(proto)


def test_external_data(tmp_path):
    proto = onnx.load(DIGITS)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = np.load(DIGITS.parent / "x.npy")
    np.testing.assert_array_equal(ilin.linearize(path, x).W, ilin.linearize(DIGITS, x).W)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ilin.ModelError, match=r"external data of .* is missing or unreadable"):
        ilin.compile(path)
