"""The saved file: the same map, the same bytes; hashes that anybody can take; `verify` on every kind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin
from ilin.compiler.to_folder import linearize_to
from ilin.runtime import recheck
from ilin.runtime.archive import FORMAT, digest, sealed, write_archive
from ilin.runtime.saved import to_header, to_members

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"
STANDALONE = ROOT / "docs" / "verify_standalone.py"
RANDOM = np.random.default_rng(5)
DOMAINS = {"LabelEncoder": "ai.onnx.ml"}


def model(nodes, inputs, outputs, weights=()):
    """A model from (operator, inputs, output, attributes); inputs and outputs by name to (type, shape)."""
    graph = helper.make_graph(
        [
            helper.make_node(op, read, [made], made, domain=DOMAINS.get(op, ""), **attributes)
            for op, read, made, attributes in nodes
        ],
        "saved",
        [helper.make_tensor_value_info(name, *about) for name, about in inputs.items()],
        [helper.make_tensor_value_info(name, *about) for name, about in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(weights).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def dense(*shape, dtype=np.float32):
    return RANDOM.standard_normal(shape).astype(dtype)


# -- the bytes -----------------------------------------------------------------------------------------

SAVE = """
import sys, numpy as np, ilin
model, x, out = sys.argv[1:]
ilin.linearize(model, np.load(x)).save(out)
"""


def test_two_processes_write_the_same_bytes(tmp_path):
    """In other folders, under other names, and where the clock and the order of hashes differ."""
    contents = []
    for number, zone in enumerate(("UTC", "Pacific/Kiritimati")):
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        out = folder / f"name{number}.npz"
        environment = {**os.environ, "TZ": zone, "PYTHONHASHSEED": str(number), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", SAVE, DIGITS / "model.onnx", DIGITS / "x.npy", out]
        subprocess.run(command, env=environment, cwd=folder, check=True, timeout=120)
        contents.append(out.read_bytes())
    assert contents[0] == contents[1]
    assert str(tmp_path).encode() not in contents[0]
    assert str(ROOT).encode() not in contents[0]


@pytest.fixture(scope="module")
def affine():
    return ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy"))


def test_members_are_sorted_and_tell_no_time(affine, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    affine.save(tmp_path / "map.npz")
    with zipfile.ZipFile(tmp_path / "map.npz") as archive:
        names = archive.namelist()
        assert names == ["header.npy", *sorted(names[1:])]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_loaded_map_saves_to_the_same_bytes(affine, tmp_path):
    affine.save(tmp_path / "a.npz")
    ilin.load(tmp_path / "a.npz").save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def header_of(path):
    with np.load(path) as file:
        return json.loads(file["header"].tobytes())


def test_hashes_are_those_of_the_model_x_pattern_and_result(affine, tmp_path):
    path = tmp_path / "map.npz"
    affine.save(path)
    header = header_of(path)
    x = np.load(DIGITS / "x.npy")

    assert header["model_sha256"] == hashlib.sha256((DIGITS / "model.onnx").read_bytes()).hexdigest()
    by_hand = hashlib.sha256(b"x0 <f4 [1, 1, 8, 8]\n" + x.tobytes()).hexdigest()
    assert header["sha256"]["input"] == by_hand
    result = hashlib.sha256()
    for name, kind in (("W", "<f4"), ("b", "<f4"), ("rows", "<i8")):
        value = getattr(affine, name)
        result.update(f"{name} {kind} {list(value.shape)}\n".encode() + value.tobytes())
    assert header["sha256"]["result"] == result.hexdigest()
    assert header["region"]["pattern_sha256"] == affine.region.pattern_sha256
    assert ilin.load(path).region.pattern_sha256 == affine.region.pattern_sha256


def test_the_pattern_is_that_of_the_region_whatever_is_asked_for(affine):
    """Type, rows and engine do not matter; a point across the nearest boundary does."""
    x = np.load(DIGITS / "x.npy")
    for options in ({"dtype": "float64"}, {"engine": "sparse"}, {"outputs": ["logits"]}):
        other = ilin.compile(DIGITS / "model.onnx", **options).at(x, rows=1)
        assert other.region.pattern_sha256 == affine.region.pattern_sha256
    radius = affine.region.radius(2)
    beyond = ilin.linearize(DIGITS / "model.onnx", x + 1.01 * radius.step.reshape(x.shape))
    assert beyond.region.pattern_sha256 != affine.region.pattern_sha256


def test_settings_are_on_record(tmp_path):
    x = np.load(DIGITS / "x.npy")
    options = {"dtype": "float64", "engine": "sparse", "direction": "reverse", "mode": "frozen"}
    compiled = ilin.compile(DIGITS / "model.onnx", **options)
    for rows, told in (("all", "all"), (3, "top3"), ([4, 9], "given")):
        compiled.at(x, rows).save(tmp_path / "map.npz")
        provenance = header_of(tmp_path / "map.npz")["provenance"]
        assert provenance["rows"] == told
        assert options.items() <= provenance.items()
        assert {"ilin", "onnxruntime", "numpy", "scipy", "python", "machine"} <= provenance.keys()


def test_a_large_array_is_hashed_as_a_whole(monkeypatch):
    """In pieces, as it may lie on disk; in C order, as it may lie there in another."""
    value = np.asfortranarray(dense(37, 11))
    whole = digest({"W": value})
    monkeypatch.setattr("ilin.runtime.archive._CHUNK", 20)
    assert digest({"W": value}) == digest({"W": np.ascontiguousarray(value)}) == whole


# -- every kind of map ---------------------------------------------------------------------------------

F, F2, B16, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64
LAYERS = [("MatMul", ["x", "U"], "u", {}), ("Relu", ["u"], "r", {}), ("MatMul", ["r", "V"], "y", {})]
WEIGHTS = {"U": dense(4, 5), "V": dense(5, 3)}
HALF = {name: value.astype(np.float16) for name, value in WEIGHTS.items()}
BRAIN = {name: value.astype(ml_dtypes.bfloat16) for name, value in WEIGHTS.items()}
X = dense(1, 4)
PLAIN = model(LAYERS, {"x": (F, [1, 4])}, {"y": (F, [1, 3])}, WEIGHTS)
BRANCHES = [
    helper.make_graph(
        [helper.make_node("Mul", ["x", k], [name])],
        name,
        [],
        [helper.make_tensor_value_info(name, F, [1, 4])],
    )
    for name, k in (("twice", "two"), ("thrice", "three"))
]
CONTROL = model(
    [
        ("ReduceSum", ["x"], "s", {"keepdims": 0}),
        ("Greater", ["s", "zero"], "c", {}),
        ("If", ["c"], "y", {"then_branch": BRANCHES[0], "else_branch": BRANCHES[1]}),
    ],
    {"x": (F, [1, 4])},
    {"y": (F, [1, 4])},
    {"zero": np.float32(0), "two": np.float32(2), "three": np.float32(3)},
)
KINDS = {
    "piecewise-linear": (PLAIN, X, {}),
    "float64 composition": (PLAIN, X, {"dtype": "float64"}),
    "affine": (model([("Neg", ["x"], "y", {})], {"x": (F, [1, 4])}, {"y": (F, [1, 4])}), X, {}),
    "a hidden output": (PLAIN, X, {"outputs": ["r"]}),
    "a hidden input": (PLAIN, X, {"inputs": ["u"]}),
    "two outputs": (PLAIN, X, {"outputs": ["r", "y"]}),
    "smooth": (
        model([*LAYERS[:2], ("Softmax", ["r"], "y", {})], {"x": (F, [1, 4])}, {"y": (F, [1, 5])}, WEIGHTS),
        X,
        {},
    ),
    "locally constant": (
        model([("Floor", ["x"], "y", {})], {"x": (F, [1, 4])}, {"y": (F, [1, 4])}),
        X,
        {},
    ),
    "a held input of integers": (
        model(
            [("Gather", ["x", "i"], "g", {"axis": 1}), ("Relu", ["g"], "y", {})],
            {"x": (F, [1, 4]), "i": (I64, [2])},
            {"y": (F, [1, 2])},
        ),
        {"x": X, "i": np.array([2, 0])},
        {},
    ),
    "two inputs, one held": (
        model(
            [("Mul", ["x", "z"], "m", {}), ("Relu", ["m"], "y", {})],
            {"x": (F, [1, 4]), "z": (F, [1, 4])},
            {"y": (F, [1, 4])},
        ),
        {"x": X, "z": dense(1, 4)},
        {"inputs": ["x"]},
    ),
    "float16": (model(LAYERS, {"x": (F2, [1, 4])}, {"y": (F2, [1, 3])}, HALF), X.astype(np.float16), {}),
    "bfloat16": (
        model(LAYERS, {"x": (B16, [1, 4])}, {"y": (B16, [1, 3])}, BRAIN),
        X.astype(ml_dtypes.bfloat16),
        {},
    ),
    "a way that x decides": (CONTROL, X, {}),
    "a held input of text": (
        model(
            [
                ("LabelEncoder", ["s"], "f", {"keys_strings": ["a", "bc"], "values_floats": [2.0, 3.0]}),
                ("Mul", ["x", "f"], "y", {}),
            ],
            {"x": (F, [1, 2]), "s": (TensorProto.STRING, [1, 2])},
            {"y": (F, [1, 2])},
        ),
        {"x": X[:, :2], "s": np.array([["bc", "a"]], object)},
        {},
    ),
    "nodes in no order": (
        model(LAYERS[::-1], {"x": (F, [1, 4])}, {"y": (F, [1, 3])}, WEIGHTS),
        X,
        {},
    ),
    "a scalar": (model([("Relu", ["x"], "y", {})], {"x": (F, [])}, {"y": (F, [])}), np.float32(2), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_verified_from_its_file(kind, tmp_path):
    proto, x, options = KINDS[kind]
    made = ilin.compile(proto, **options).at(x)
    assert made.certificate.verified
    made.save(tmp_path / "map.npz")

    found = ilin.verify(tmp_path / "map.npz", proto, x)
    assert found.holds, str(found)
    assert found.made_here
    fresh = next(finding for finding in found.findings if finding.check == "fresh points")
    # No fresh points, rounding larger than what the region lets the outputs move, or dead units alone.
    assert (fresh.passed is None) == (kind in ("smooth", "bfloat16", "a held input of integers")), fresh

    back = ilin.load(tmp_path / "map.npz")
    for one, other in ((made.inputs, back.inputs), (made.outputs, back.outputs), (made.held, back.held)):
        assert list(one) == list(other)
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])
    back.save(tmp_path / "again.npz")
    assert (tmp_path / "map.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_a_model_with_external_data(tmp_path):
    proto = onnx.ModelProto.FromString(PLAIN.SerializeToString())  # as what is saved so is changed
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="data", size_threshold=0)
    ilin.linearize(tmp_path / "model.onnx", X).save(tmp_path / "map.npz")
    assert ilin.verify(tmp_path / "map.npz", tmp_path / "model.onnx").holds

    data = bytearray((tmp_path / "data").read_bytes())
    data[3] ^= 0x80  # the sign of a weight
    (tmp_path / "data").write_bytes(data)
    assert ilin.verify(tmp_path / "map.npz", tmp_path / "model.onnx").failed[0] == "model hash"


def test_a_folder_of_blocks(tmp_path):
    compiled, x = ilin.compile(DIGITS / "model.onnx"), np.load(DIGITS / "x.npy")
    linearize_to(compiled, tmp_path / "MAP", x)
    assert ilin.verify(tmp_path / "MAP", DIGITS / "model.onnx", x).holds

    ilin.load(tmp_path / "MAP").save(tmp_path / "from_folder.npz")
    assert ilin.verify(tmp_path / "from_folder.npz", DIGITS / "model.onnx", x).holds

    W = np.load(tmp_path / "MAP" / "W.npy")
    W[0, 0] += 1
    np.save(tmp_path / "MAP" / "W.npy", W)
    assert ilin.verify(tmp_path / "MAP", DIGITS / "model.onnx").failed[0] == "result hash"


def test_a_map_of_another_machine_says_so(affine, tmp_path, monkeypatch):
    affine.save(tmp_path / "map.npz")
    there = {"onnxruntime": "1.0.0", "machine": "Plan9 sparc"}
    monkeypatch.setattr(recheck, "environment", lambda: there)
    found = ilin.verify(tmp_path / "map.npz", DIGITS / "model.onnx")
    assert found.holds
    assert not found.made_here


def test_nothing_that_made_the_map_takes_part(affine, tmp_path):
    """No rule, no stage of the compiler."""
    affine.save(tmp_path / "map.npz")
    code = f"""
import sys, ilin
assert ilin.verify({str(tmp_path / "map.npz")!r}, {str(DIGITS / "model.onnx")!r}).holds
taken = [name for name in sys.modules if name.startswith(("ilin.ops", "ilin.compiler", "ilin.expansions"))]
assert not taken, taken
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


# -- without ilin --------------------------------------------------------------------------------------


def standalone(*arguments):
    """Run the script where there is no ilin to import."""
    code = f"""
import runpy, sys
sys.modules["ilin"] = None  # importing it raises
sys.argv = ["verify_standalone.py", *{[str(argument) for argument in arguments]!r}]
try:
    runpy.run_path({str(STANDALONE)!r}, run_name="__main__")
finally:
    assert not [name for name in sys.modules if name.startswith("ilin.")]
"""
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_script_is_short_and_uses_four_libraries():
    text = STANDALONE.read_text()
    assert len(text.splitlines()) <= 40
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"hashlib", "json", "sys", "numpy", "onnxruntime"}


@pytest.mark.parametrize("kind", ["piecewise-linear", "a held input of integers", "smooth", "float16"])
def test_the_script_verifies_without_ilin(kind, tmp_path):
    proto, x, options = KINDS[kind]
    onnx.save(proto, tmp_path / "model.onnx")
    ilin.compile(tmp_path / "model.onnx", **options).at(x).save(tmp_path / "map.npz")
    result = standalone(tmp_path / "map.npz", tmp_path / "model.onnx")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FAIL" not in result.stdout


def test_the_script_finds_what_verify_finds(tmp_path):
    onnx.save(PLAIN, tmp_path / "model.onnx")
    ilin.linearize(tmp_path / "model.onnx", X).save(tmp_path / "map.npz")
    with np.load(tmp_path / "map.npz") as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("header").tobytes())
    arrays["W"] = arrays["W"] * np.float32(1.001)
    for right, failed in ((False, ["result hash"]), (True, [])):
        with (tmp_path / "spoilt.npz").open("wb") as file:
            write_archive(file, sealed(header, arrays) if right else header, arrays)
        result = standalone(tmp_path / "spoilt.npz", tmp_path / "model.onnx")
        assert result.returncode == 1
        failing = [line[5:] for line in result.stdout.splitlines() if line.startswith("FAIL")]
        assert failing == [*failed, "W x + b", *(f"W z + b, point {p}" for p in range(1, 5))]


# -- what is no map ------------------------------------------------------------------------------------


def archive_of(**members):
    content = io.BytesIO()
    np.savez(content, **members)
    return content.getvalue()


def array_of(value):
    content = io.BytesIO()
    np.save(content, value)
    return content.getvalue()


def zip_of(**texts):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return content.getvalue()


def headed(**fields):
    return archive_of(header=np.frombuffer(json.dumps(fields).encode(), np.uint8))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not a map saved by ilin, .*: it is no .npz file; ilin-compile MODEL.onnx X.npy -o OUT.npz"),
        (b"\x08\x07", "it is no .npz file"),
        (array_of(np.eye(2)), r"it holds one array \(.npy\); ilin-compile"),
        (b"PK\x03\x04 and then nothing", "it begins like a .npz file, but its end is missing"),
        (zip_of(notes="hello"), "it has no header, but holds notes"),
        (zip_of(), "it has no header, but holds nothing"),
        (archive_of(a=np.eye(2), b=np.eye(3)), "it has no header, but holds a.npy, b.npy; ilin-compile"),
        (archive_of(header=np.eye(2)), "its header is not that of a map"),
        (headed(title="mine"), "its header is not that of a map"),
        (headed(format=FORMAT), "is not a map saved by ilin, or it is truncated or corrupt"),
        (
            headed(format=FORMAT + 1),
            f"has format {FORMAT + 1}, and this version of ilin reads formats 1 to {FORMAT}; a newer ilin "
            "wrote it: python -m pip install --upgrade ilin",
        ),
        (headed(format="two"), "has format 'two'"),
    ],
)
def test_what_is_no_map_is_refused_in_one_line(content, told, tmp_path):
    path = tmp_path / "map.npz"
    path.write_bytes(content)
    for read in (ilin.load, lambda path: ilin.verify(path, DIGITS / "model.onnx")):
        with pytest.raises(ilin.OutputError, match=told) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_format_1_is_read_but_holds_nothing_to_verify_it_by(affine, tmp_path):
    """As it was written before there were hashes and points."""
    arrays = {name: value for name, value in to_members(affine).items() if name not in ("bounds", "z0")}
    header = {**to_header(affine), "format": 1}
    for name in ("held", "dtypes", "convex"):
        del header[name]
    with (tmp_path / "old.npz").open("wb") as file:
        write_archive(file, header, arrays)

    back = ilin.load(tmp_path / "old.npz")
    np.testing.assert_array_equal(back.W, affine.W)
    assert back.certificate == affine.certificate
    back.save(tmp_path / "again.npz")
    for name in ("old.npz", "again.npz"):
        with pytest.raises(ilin.OutputError, match=r"holds no points and bounds .*; compile"):
            ilin.verify(tmp_path / name, DIGITS / "model.onnx")
