"""Every wrong input: one line that says what, where and what to do; the exit code; nothing damaged."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from .models import U, X, save, tensor, write

# -- the model ------------------------------------------------------------------------------------------


def test_no_such_model(refused, tmp_path, x):
    assert refused(tmp_path / "none.onnx", x) == f"no such file: {tmp_path / 'none.onnx'}"


def test_not_onnx(refused, tmp_path, x):
    (tmp_path / "text.onnx").write_text("this is no model")
    message = refused(tmp_path / "text.onnx", x)
    assert message == f"{tmp_path / 'text.onnx'} is not an ONNX model, or it is truncated or corrupt"


def test_truncated_protobuf(refused, model, x):
    model.write_bytes(model.read_bytes()[:-7])
    assert refused(model, x) == f"{model} is not an ONNX model, or it is truncated or corrupt"


def test_no_graph(refused, tmp_path, x):
    (tmp_path / "empty.onnx").write_bytes(b"")
    message = refused(tmp_path / "empty.onnx", x)
    assert message == f"{tmp_path / 'empty.onnx'} is not an ONNX model: it holds no graph"


def test_refused_by_the_checker(refused, tmp_path, x):
    nodes = [helper.make_node("Relu", ["nowhere"], ["y"], "relu")]
    path = save(tmp_path / "bad.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])])
    message = refused(path, x)
    assert message.startswith("not a valid ONNX model (onnx.checker): ")
    assert "nowhere" in message


def test_missing_external_data(refused, tmp_path, model, x):
    proto = onnx.load(model)
    onnx.save(proto, model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    message = refused(model, x)
    assert message == (
        "the external data of tensor 'U' ('weights.bin') is missing or unreadable; keep it beside the model, "
        f"at {tmp_path / 'weights.bin'}"
    )


def test_unsupported_operator(refused, hopping, x):
    message = refused(hopping, x, code=3)
    assert message.startswith("node 'leap' (Hop, example.org opset 1): no rule for this operator; ")
    assert "write its rule (docs/custom-operators.md)" in message
    assert "name a tensor before it in outputs" in message


def test_names_from_a_hostile_model_stay_in_one_line(refused, tmp_path, x):
    nodes = [helper.make_node("Hop", ["x"], ["y"], "a\nb\x1b[31m", domain="example.org")]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])])
    message = refused(path, x, code=3)
    assert "\x1b" not in message


# -- x --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bad", "name"), [(np.nan, "NaN"), (np.inf, "an infinity")])
def test_not_finite(refused, model, tmp_path, bad, name):
    value = X.copy()
    value[0, 2] = bad
    message = refused(model, write(tmp_path / "bad.npy", value))
    assert message == (
        f"tensor 'x' holds {name} at x (1 of 4 values, the first at flat index 2); "
        "a linear map exists only where all values are finite"
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [[], ["--verbose"], ["--json"], ["--out-dir", "map"]])
def test_what_leaves_the_range_of_numbers_is_one_line(ilin_compile, tmp_path, options, monkeypatch):
    """The values at zeros are finite, the slope 1e30 · 1e9 is not."""
    monkeypatch.chdir(tmp_path)
    nodes = [helper.make_node("Mul", ["x", "a"], ["h"]), helper.make_node("Mul", ["h", "c"], ["y"])]
    weights = {"a": np.array(1e30, np.float32), "c": np.array(1e9, np.float32)}
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])], weights)
    result = ilin_compile(path, write(tmp_path / "zeros.npy", np.zeros((1, 4), np.float32)), *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line for line in result.stderr.splitlines() if not line.startswith("note: plan")] == [
        "error: entries of W leave the range of float32, though the model's values at x do not; float64 has "
        "a wider one (dtype='float64', --dtype float64)"
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((1, 5), np.float32), "input 'x' takes shape [batch, 4], but x has shape [1, 5]"),
        (np.zeros(5, np.float32), "input 'x' takes shape [batch, 4], but x has shape [5]"),
        (
            np.zeros((2, 1, 1, 4), np.float32),
            "input 'x' takes shape [batch, 4], but x has shape [2, 1, 1, 4]",
        ),
        (np.zeros((1, 4), complex), "input 'x' takes float32, but x holds complex128"),
        (np.array([["a", "b", "c", "d"]]), "input 'x' takes float32, but x holds <U1"),
    ],
    ids=["shape", "short", "rank", "complex", "text"],
)
def test_x_does_not_fit(refused, model, tmp_path, value, message):
    assert refused(model, write(tmp_path / "bad.npy", value)) == message


def test_text_as_npy(refused, model, tmp_path):
    path = tmp_path / "x.npy"
    path.write_text("1 2 3 4\n")
    message = refused(model, path)
    assert message == (
        f"{path} is not a .npy or .npz file (it looks like text); write it with numpy.save or numpy.savez"
    )


def test_object_dtype(refused, model, tmp_path):
    path = write(tmp_path / "x.npy", np.array([None]), allow_pickle=True)
    assert refused(model, path).startswith(
        f"{path} holds Python objects (dtype object), which are not loaded"
    )


def test_one_array_for_two_inputs(refused, two_inputs, x):
    assert refused(two_inputs, x).startswith(
        "the model has 2 inputs (left float32[n×2], right float32[n×2]); give a mapping from name to array "
        "(an .npz file on the command line)"
    )


def test_names_that_are_no_inputs(refused, two_inputs, tmp_path):
    np.savez(tmp_path / "x.npz", left=np.ones((1, 2), np.float32), up=np.ones((1, 2), np.float32))
    expected = "x names 'up', but the model's inputs are left float32[n×2], right float32[n×2]"
    assert refused(two_inputs, tmp_path / "x.npz") == expected


def test_a_bad_instance_is_named_before_anything_is_computed(refused, model, tmp_path):
    several = np.repeat(X, 5, axis=0)
    several[3, 0] = np.nan
    path = write(tmp_path / "several.npy", several)
    out = tmp_path / "out.npz"
    message = refused(model, path, "--quiet", "-o", out)
    assert message.startswith("instance 3: tensor 'x' holds NaN at x (1 of 4 values")
    assert not list(tmp_path.glob("out*"))


# -- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "name", "message"),
    [
        ("--inputs", "xx", "unknown name in inputs: 'xx'; did you mean 'x'?"),
        ("--outputs", "relux", "unknown name in outputs: 'relux'; the model declares y"),
        ("--outputs", "yy", "unknown name in outputs: 'yy'; did you mean 'y'?"),
        ("--inputs", "U", "'U' in inputs is a parameter of the model, not something it computes from x"),
    ],
)
def test_unknown_names(refused, model, x, role, name, message):
    assert refused(model, x, role, name) == message


def test_an_empty_name(refused, model, x):
    assert refused(model, x, "--inputs", "x,,").startswith("--inputs: an empty name")


@pytest.mark.parametrize("rows", ["some", "top", "top0", "top-1", "1;2", "1.5", "", "1,"])
def test_rows_that_are_nonsense(refused, model, x, rows):
    expected = f"--rows {rows!r} is not understood; write all, top5, or indices such as 3,5"
    assert refused(model, x, "--rows", rows) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("3", "row 3 is outside the output's 3 elements (0 to 2)"),
        ("0,-4", "row -4 is outside the output's 3 elements (0 to 2)"),
    ],
)
def test_rows_out_of_range(refused, model, x, rows, message):
    assert refused(model, x, "--rows", rows) == message


def test_over_the_memory_limit(refused, identity, tmp_path):
    path = write(tmp_path / "long.npy", np.ones((1, 1000), np.float32))
    assert refused(identity, path, "--memory-limit", "1MB") == (
        "W would have 1,000 × 1,000 entries, 3.8 MiB, over the limit of 976.6 KiB; try --rows top3, "
        "--outputs NAME, --out-dir DIR or --memory-limit SIZE"
    )


def test_memory_limit_that_is_nonsense(refused, model, x):
    expected = "memory limit 'lots' is not understood; write bytes, 500MB or 4GiB"
    assert refused(model, x, "--memory-limit", "lots") == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model.onnx"],
        ["model.onnx", "x.npy", "z.npy"],
        ["model.onnx", "x.npy", "--dtype", "float16"],
        ["model.onnx", "x.npy", "--engine", "steam"],
        ["model.onnx", "x.npy", "--rowz", "3"],
    ],
)
def test_bad_usage(refused, arguments):
    assert refused(*arguments).endswith("(see ilin-compile --help)")


# -- the output path ------------------------------------------------------------------------------------


def test_no_such_folder(refused, model, x, tmp_path):
    out = tmp_path / "nowhere" / "out.npz"
    assert refused(model, x, "-o", out) == f"cannot write {out}: no such folder: {out.parent}"


def test_the_output_is_a_folder(refused, model, x, tmp_path):
    assert refused(model, x, "-o", tmp_path) == f"cannot write {tmp_path}: it is a folder; name a file in it"


def test_the_output_is_a_device(refused, model, x):
    assert refused(model, x, "-o", "/dev/null") == "cannot write /dev/null: it is not a regular file"


def test_a_folder_that_takes_no_file(refused, model, x):
    assert refused(model, x, "-o", "/proc/out.npz").startswith("cannot write /proc/out.npz: ")


@pytest.mark.parametrize("which", ["model", "x", "link"])
def test_inputs_are_never_overwritten(refused, model, x, tmp_path, which):
    (tmp_path / "link").symlink_to(x)
    target = {"model": model, "x": x, "link": tmp_path / "link"}[which]
    before = target.read_bytes()
    source = model if which == "model" else x
    expected = f"refusing to overwrite the input {source}; choose another name for the output"
    assert refused(model, x, "-o", target) == expected
    assert target.read_bytes() == before


def test_numbered_outputs_do_not_overwrite_inputs_either(refused, model, tmp_path):
    path = write(tmp_path / "x.1.npy", np.repeat(X, 3, axis=0))
    expected = f"refusing to overwrite the input {path}; choose another name for the output"
    assert refused(model, path, "-q", "-o", tmp_path / "x.npy") == expected


def test_an_existing_file_survives_a_failure(refused, model, tmp_path):
    out = tmp_path / "out.npz"
    out.write_text("precious")
    refused(model, write(tmp_path / "bad.npy", np.full((1, 4), np.nan)), "-o", out)
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npy", "model.onnx", "out.npz"]


def test_an_overflow_inside_the_network_is_named(refused, tmp_path):
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["u"], "grow"),
        helper.make_node("Relu", ["u"], ["y"], "relu"),
    ]
    weights = {"c": np.array([1e38], np.float32)}
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])], weights)
    message = refused(path, write(tmp_path / "big.npy", np.full((1, 4), 1e5, np.float32)))
    assert message.startswith("tensor 'u' holds an infinity at x (4 of 4 values")


def test_inputs_that_are_no_floating_point(refused, tmp_path):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], "look", axis=0)]
    puts = [tensor("ids", [1, 2], TensorProto.INT64)], [tensor("y", [1, 2, 4])]
    path = save(tmp_path / "m.onnx", nodes, *puts, {"table": U})
    message = refused(path, write(tmp_path / "ids.npy", np.zeros((1, 2), np.int64)), code=3)
    assert message == (
        "the model has no floating-point inputs to linearise (it declares ids int64[1×2]); name a tensor "
        "behind them, such as an embedding, in inputs"
    )


def test_tensors_behind_integers_are_named(refused, tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], "look", axis=0),
        helper.make_node("Shape", ["embedded"], ["sizes"], "shape"),
        helper.make_node("Relu", ["embedded"], ["kept"], "relu"),
        helper.make_node("Neg", ["kept"], ["y"], "minus"),
    ]
    puts = [tensor("ids", [1, 2], TensorProto.INT64)], [tensor("y", [1, 2, 4])]
    path = save(tmp_path / "m.onnx", nodes, *puts, {"table": U})
    message = refused(path, write(tmp_path / "ids.npy", np.zeros((1, 2), np.int64)), code=3)
    assert "(it declares ids int64[1×2]; the first that it computes: 'embedded', 'kept'); name a" in message


def test_standard_output_holds_no_map(refused, model, x, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in ("-o", "--report"):
        assert refused(model, x, option, "-") == "cannot write to standard output ('-'); name a file"
    assert not (tmp_path / "-").exists()


def test_refused_by_onnxruntime(refused, tmp_path, x):
    """The checker does not look at shapes; onnxruntime does."""
    nodes = [helper.make_node("MatMul", ["x", "U"], ["y"], "product")]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])], {"U": U})
    assert refused(path, x).startswith("onnxruntime does not accept this model: ")


def test_several_wrongs_still_make_one_line(refused, tmp_path):
    (tmp_path / "corrupt.onnx").write_bytes(numpy_helper.from_array(U).SerializeToString())
    refused(tmp_path / "corrupt.onnx", tmp_path / "none.npy", "--rows", "top3")


@pytest.mark.parametrize(("first", "second"), [("-o", "--report"), ("-o", "--plot"), ("--report", "--plot")])
def test_two_results_in_one_place(refused, model, x, tmp_path, first, second):
    target = tmp_path / "out.png"
    expected = f"{first} and {second} both name {target}; choose another name for one of them"
    assert refused(model, x, first, target, second, tmp_path / "." / "out.png") == expected
    assert not target.exists()


def test_a_fault_in_ilin_is_one_line(refused, model, x, monkeypatch):
    def fail(*_):
        raise AssertionError("an invariant")

    monkeypatch.setattr("ilin.command_line.compile.run", fail)
    message = refused(model, x, code=70)
    assert message == (
        "internal error: AssertionError: an invariant; please report it (ILIN_DEBUG=1 shows where)"
    )


def test_an_x_without_values(refused, model, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 1, 8, 8), np.float32))
    expected = f"{tmp_path / 'x.npy'} holds an array of shape [0, 1, 8, 8], which has no values"
    assert refused(model, tmp_path / "x.npy") == expected
