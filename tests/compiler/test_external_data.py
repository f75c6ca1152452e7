"""Tensors stored beside the model: mapped rather than read, checked before anything runs, hashed with it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin
from ilin.compiler.engine import Engine

A = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
B = np.random.default_rng(1).standard_normal((3, 2)).astype(np.float32)
X = np.array([[1, -2, 0.5, 3]], np.float32)


def proto():
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["u"]),
        helper.make_node("Relu", ["u"], ["r"]),
        helper.make_node("MatMul", ["r", "B"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(A, "A"), numpy_helper.from_array(B, "B")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def path(tmp_path):
    """A model with a file for each of its two weights."""
    apart = {"save_as_external_data": True, "all_tensors_to_one_file": False, "size_threshold": 0}
    onnx.save(proto(), tmp_path / "model.onnx", **apart)
    assert (tmp_path / "A").stat().st_size == A.nbytes
    return tmp_path / "model.onnx"


def moved(path, name, **entries):
    """Change where a tensor's data is said to lie."""
    model = onnx.load(path, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    known = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in known.items():
        tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())


def test_the_same_map_as_with_the_data_inside(path):
    inside, outside = ilin.linearize(proto(), X), ilin.linearize(path, X)
    np.testing.assert_array_equal(outside.W, inside.W)
    np.testing.assert_array_equal(outside.b, inside.b)
    assert outside.certificate.verified
    assert outside.certificate.points_held


def test_the_working_directory_does_not_matter(path, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(path.parent)
    compiled = ilin.compile(path.name)
    monkeypatch.chdir(tmp_path / "elsewhere")
    here = compiled.at(X)
    assert here.certificate.verified  # by a session that is made only now
    np.testing.assert_array_equal(ilin.linearize("../model.onnx", X).W, here.W)


def test_the_hash_covers_the_data(path):
    content = b"".join(file.read_bytes() for file in (path, path.parent / "A", path.parent / "B"))
    before = ilin.compile(path).graph.sha256
    assert before == hashlib.sha256(content).hexdigest()
    (path.parent / "B").write_bytes((2 * B).tobytes())
    assert ilin.compile(path).graph.sha256 != before


def test_a_model_inside_one_file_keeps_the_hash_of_that_file(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(proto(), path)
    assert ilin.compile(path).graph.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_are_mapped_not_read(path):
    weight = ilin.compile(path).graph.initializers["A"]
    base = weight
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not weight.flags.writeable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"location": "nowhere"},
            r"tensor 'B' \('nowhere'\) is missing or unreadable; keep it beside the model",
        ),
        ({"location": "../B"}, r"tensor 'B' \('\.\./B'\) lies outside of the model's folder"),
        ({"location": "/etc/hostname"}, r"\('/etc/hostname'\) lies outside of the model's folder"),
        ({"location": ""}, "lies outside of the model's folder"),
        ({"length": 25}, r"is truncated: 25 bytes at offset 0 are asked for, and .*B holds 24"),
        ({"offset": 8}, r"is truncated: 24 bytes at offset 8 are asked for, and .*B holds 24"),
        ({"length": 20}, r"tensor 'B' of shape \[3, 2\] takes 24 bytes, but its external data holds 20"),
        ({"offset": -4, "length": 24}, "is truncated: 24 bytes at offset -4"),
        ({"length": "many"}, "is corrupt: invalid literal"),
    ],
)
def test_data_that_is_not_there(path, change, message):
    moved(path, "B", **change)
    with pytest.raises(ilin.ModelError, match=message):
        ilin.compile(path)


def test_a_file_that_was_cut(path):
    (path.parent / "B").write_bytes(B.tobytes()[:-4])
    with pytest.raises(ilin.ModelError, match=r"is truncated|holds 20"):
        ilin.compile(path)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_a_link_out_of_the_folder(path, tmp_path_factory):
    secret = tmp_path_factory.mktemp("secret") / "B"
    (path.parent / "B").rename(secret)
    (path.parent / "B").symlink_to(secret)
    with pytest.raises(ilin.ModelError, match="lies outside of the model's folder"):
        ilin.compile(path)


@pytest.mark.parametrize("as_given", [lambda model: model, lambda model: model.SerializeToString()])
def test_without_a_path_nobody_knows_where_the_data_lies(path, as_given):
    with pytest.raises(ilin.ModelError, match="give the path of that file, or a model with its data inside"):
        ilin.compile(as_given(onnx.load(path, load_external_data=False)))


def test_data_inside_attributes(tmp_path):
    """A Constant node's tensor is external too."""
    model = proto()
    weight = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["B"], value=weight))
    path = tmp_path / "model.onnx"
    onnx.save(
        model, path, save_as_external_data=True, location="data", size_threshold=0, convert_attribute=True
    )
    stored = onnx.load(path, load_external_data=False)
    assert stored.graph.node[0].attribute[0].t.data_location == TensorProto.EXTERNAL
    affine = ilin.linearize(path, X)
    np.testing.assert_array_equal(affine.W, ilin.linearize(proto(), X).W)
    assert affine.certificate.verified


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_types(tmp_path, dtype):
    """A constant of each type, cast to float32: bfloat16 is not mapped, as numpy alone does not know it."""
    stored = A.astype(dtype)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["A"], ["F"], to=1), helper.make_node("MatMul", ["x", "F"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(stored, "A")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    np.testing.assert_array_equal(ilin.linearize(tmp_path / "m.onnx", X).W, stored.astype(np.float32).T)


def test_a_weight_without_entries(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x", "none"], ["y"], axis=1)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.zeros((1, 0), np.float32), "none")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    np.testing.assert_array_equal(ilin.linearize(tmp_path / "m.onnx", X).W, np.eye(4))


def test_what_onnx_evaluates_and_what_is_written_has_the_data(path, tmp_path):
    """An explainer is one file, with the data inside."""
    compiled = ilin.compile(path)
    compiled.export_explainer(tmp_path / "explainer.onnx", x=X)
    (tmp_path / "alone").mkdir()
    alone = (tmp_path / "explainer.onnx").rename(tmp_path / "alone" / "explainer.onnx")
    session = onnxruntime.InferenceSession(alone, providers=["CPUExecutionProvider"])
    W = session.run(["W"], {"x": X})[0]
    np.testing.assert_allclose(W, compiled.at(X).W, rtol=1e-6)


@pytest.mark.parametrize("name", ["adjoint", "fused"])
def test_weights_that_no_message_holds_are_swept_without_emitting(name):
    few, many = Engine(weights=2**20), Engine(weights=2**30)
    assert "adjoint" in few.candidates("auto", np.dtype(np.float32))
    assert many.candidates("auto", np.dtype(np.float32)) == ("matrix-free",)
    with pytest.raises(ilin.OptionError, match=f"engine '{name}' .*; use 'matrix-free', or leave the choice"):
        many.candidates(name, np.dtype(np.float32))


MEASURED = """
import json, resource, sys
import numpy as np
import ilin

compiled = ilin.compile(sys.argv[1])
x = np.random.default_rng(1).standard_normal((1, int(sys.argv[2]))).astype(np.float32)
affine = compiled.at(x)
peak_of_map = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
y = affine.W @ x[0] + affine.b
certificate = affine.certificate
print(json.dumps({
    "verified": certificate.verified, "held": certificate.points_held, "kind": affine.kind,
    "off": float(np.abs(y - affine.y[0]).max()), "scale": float(np.abs(affine.y).max()),
    "engine": affine.provenance["engine"], "peak_of_map": peak_of_map,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_a_model_over_two_gigabytes(tmp_path):
    """Four weights of 600 MB each. Memory stays below 2.5 times their size for W and b, and 5 times in all.

    ilin and onnxruntime map the file, once. onnxruntime packs the weights anew for each of its sessions, of
    which the certificate needs a second one, and the bounds of the certificate hold the weights' magnitudes.
    """
    N, layers = 12_288, 4
    tile = np.random.default_rng(0).standard_normal((64, N), dtype=np.float32) / np.sqrt(N, dtype=np.float32)
    nodes, stored, last = [], [], "x"
    with (tmp_path / "weights.bin").open("wb") as file:
        for layer in range(layers):
            for block in range(N // 64):
                file.write(np.roll(tile, 97 * block + layer, axis=1).tobytes())
            weight = TensorProto(name=f"w{layer}", data_type=1, dims=[N, N], data_location=1)
            size = 4 * N * N
            for key, value in (("location", "weights.bin"), ("offset", layer * size), ("length", size)):
                weight.external_data.add(key=key, value=str(value))
            stored.append(weight)
            nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"u{layer}"]))
            nodes.append(helper.make_node("Relu", [f"u{layer}"], [f"r{layer}"]))
            last = f"r{layer}"
    data = (tmp_path / "weights.bin").stat().st_size
    assert data > 2**31
    stored.append(numpy_helper.from_array(np.ones((N, 3), np.float32), "head"))
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", [last, "head"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, N])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    Path(tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    command = [sys.executable, "-c", MEASURED, str(tmp_path / "model.onnx"), str(N)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told["verified"]
    assert told["kind"] == "piecewise-linear"
    assert told["off"] <= 1e-4 * told["scale"]
    assert told["engine"] == "matrix-free"  # the others emit the weights as one message
    assert told["peak_of_map"] < 2.5 * data
    assert told["peak"] < 5 * data
    with pytest.raises(
        ilin.OptionError, match="engine 'adjoint' emits the model's weights in one ONNX message"
    ):
        ilin.compile(tmp_path / "model.onnx", engine="adjoint")
