"""`ilin-compile` where it works: the summary, JSON, saved files, several instances, exit codes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from onnx import helper

import ilin as library
from ilin.compiler.pipeline import CompiledModel

from .models import C, W, X, save, tensor, write

Y = (W @ X[0] + C).tolist()  # [2.5, 6.25, 18.5]


def strictly(text: str):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def fits_a_screen(text: str) -> None:
    lines = text.rstrip("\n").split("\n")
    assert len(lines) <= 24, text
    assert max(map(len, lines)) <= 80, max(lines, key=len)


def without_times(text: str) -> str:
    return "\n".join(line for line in text.rstrip("\n").split("\n") if not line.startswith("took"))


SUMMARY = """\
model      model.onnx: by hand, opset 17, 3 nodes
input      x 1×4 float32
output     y 1×3 float32
prediction 2: 18.5   1: 6.25   0: 2.5
map        piecewise-linear: F(z) = W z + b on the linear region around x
           W 3 × 4 float32, 48 B, 10 entries nonzero (83.3 %)

output 2                        x     weight contribution
  3                        3.0000    +3.0000       +9.000
  1                        2.0000    +3.0000       +6.000
  0                        1.0000    +2.0000       +2.000
  2                        0.5000    +1.0000       +0.500
  b                                                +1.000  5.41 % of the sum
  sum                                             +18.500  onnxruntime 18.5

verified   against onnxruntime                   deviation  of its bound
"""


def test_the_summary(ilin_compile, model, x):
    result = ilin_compile(model, x)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(SUMMARY)
    fits_a_screen(result.stdout)
    tail = without_times(result.stdout.removeprefix(SUMMARY)).split("\n")
    assert [line.strip().split("  ")[0] for line in tail] == [
        "W x + b at x",
        "1 fresh point of the region",
        "0 of 3 units lie exactly on a kink at x (ties)",
    ]


def test_the_two_names_of_the_command(ilin_compile, ilin, model, x):
    first, second = ilin_compile(model, x).stdout, ilin("compile", model, x).stdout
    assert without_times(first) == without_times(second)


def test_json_holds_what_the_summary_has(ilin_compile, model, x):
    result = ilin_compile(model, x, "--json")
    document = strictly(result.stdout)
    assert document["model"]["file"] == "model.onnx"
    assert document["model"]["opsets"] == {"ai.onnx": 17}
    assert document["model"]["producer"] == "by hand"
    assert document["model"]["nodes"] == 3
    assert document["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 4]}]
    assert document["outputs"] == [{"name": "y", "dtype": "float32", "shape": [1, 3]}]
    assert [(put["row"], put["index"], put["value"]) for put in document["prediction"]] == [
        (2, [0, 2], 18.5),
        (1, [0, 1], 6.25),
        (0, [0, 0], 2.5),
    ]
    expected = {"K": 3, "N": 4, "rows": "all", "dtype": "float32", "sparse": False, "nnz": 10, "bytes": 48}
    assert document["map"] == {**expected, "kind": "piecewise-linear", "smooth": None}
    told = document["explained"]
    assert (told["row"], told["b"], told["contributions_sum"], told["sum"]) == (2, 1.0, 17.5, 18.5)
    assert told["b_share"] == pytest.approx(1 / 18.5)
    first = {"input": "x", "index": [0, 3], "x": 3.0, "weight": 3.0, "contribution": 9.0}
    assert told["contributions"][0] == first
    assert document["certificate"]["verified"] is True
    assert (document["certificate"]["level"], document["certificate"]["steps"]) == ("default", None)
    assert document["certificate"]["points_held"] == 1
    assert document["saved"] is None and document["total_seconds"] > 0 and document["peak_memory_bytes"] > 0


def test_deep_verifies_step_by_step_and_in_float64(ilin_compile, model, x, tmp_path):
    result = ilin_compile(model, x, "--deep")
    assert result.exit_code == 0
    assert "verified   against onnxruntime, deeply " in result.stdout
    for line in ("3 steps at x, one by one", "4 fresh points of the region", "W z + b composed in float64"):
        assert f"           {line} " in result.stdout
    fits_a_screen(result.stdout)
    certificate = strictly(ilin_compile(model, x, "--deep", "--json").stdout)["certificate"]
    assert (certificate["level"], certificate["steps"]["compared"]) == ("deep", 3)
    assert certificate["double"]["W"] == 0
    refused = ilin_compile(model, x, "--deep", "--out-dir", tmp_path / "map")
    assert refused.exit_code == 2
    assert "--deep and --out-dir exclude each other" in refused.stderr


def test_quiet_says_nothing(ilin_compile, model, tmp_path):
    path = write(tmp_path / "double.npy", X[0].astype(np.float64))
    result = ilin_compile(model, path, "-q", "-o", tmp_path / "out.npz")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "out.npz").exists()


def test_verbose_lists_the_layers(ilin_compile, model, x):
    text = ilin_compile(model, x, "-v").stdout
    assert "what each layer adds to b\n" in text
    assert "  second                      Gemm               affine                +1.0000\n" in text
    assert strictly(ilin_compile(model, x, "-v", "--json").stdout)["layers"][2]["bias_share"] == 1.0


def test_notes_go_to_standard_error(ilin_compile, model, tmp_path):
    path = write(tmp_path / "double.npy", X[0].astype(np.float64))
    result = ilin_compile(model, path)
    assert result.exit_code == 0
    assert result.stderr == (
        "note: input 'x' cast from float64 to float32\n"
        "note: input 'x': a leading batch axis of 1 was added to shape [4]\n"
    )


@pytest.mark.parametrize(
    ("rows", "expected"), [("all", [0, 1, 2]), ("top2", [2, 1]), ("1,0", [1, 0]), (" -1 , 0", [2, 0])]
)
def test_rows(ilin_compile, model, x, tmp_path, rows, expected):
    result = ilin_compile(model, x, "--rows", rows, "-o", tmp_path / "out.npz")
    assert result.exit_code == 0
    affine = library.load(tmp_path / "out.npz")
    assert affine.rows.tolist() == expected
    np.testing.assert_allclose(np.asarray(affine.W), W[expected], rtol=1e-6)
    np.testing.assert_allclose(affine.b, C[expected], rtol=1e-6)


def test_the_largest_of_the_rows_asked_for_is_explained(ilin_compile, model, x):
    text = ilin_compile(model, x, "--rows", "0,1").stdout
    assert "of the 2 rows asked for, the largest is\noutput 1  " in text
    assert "prediction 2: 18.5   1: 6.25   0: 2.5\n" in text


def test_saving_is_said_on_standard_error(ilin_compile, model, x, tmp_path):
    out = tmp_path / "out.npz"
    out.write_text("an older file")
    result = ilin_compile(model, x, "-o", out)
    assert result.stderr == f"note: wrote {out}\n"
    assert library.load(out).certificate.verified
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "out.npz", "x.npy"]


def test_a_link_is_followed(ilin_compile, model, x, tmp_path):
    (tmp_path / "link.npz").symlink_to(tmp_path / "real.npz")
    assert ilin_compile(model, x, "-o", tmp_path / "link.npz").exit_code == 0
    assert (tmp_path / "link.npz").is_symlink()
    assert library.load(tmp_path / "real.npz").model == "model.onnx"


def test_names_between_commas_and_repeated(ilin_compile, two_inputs, tmp_path):
    np.savez(tmp_path / "x.npz", left=np.ones((1, 2), np.float32), right=np.full((1, 2), 2, np.float32))
    for names in (["--inputs", "left,right"], ["--inputs", "left", "--inputs", "right"]):
        document = strictly(ilin_compile(two_inputs, tmp_path / "x.npz", *names, "--json").stdout)
        assert [put["name"] for put in document["inputs"]] == ["left", "right"]


def test_held_inputs_and_several_inputs(ilin_compile, two_inputs, tmp_path):
    np.savez(tmp_path / "x.npz", left=np.ones((1, 2), np.float32), right=np.full((1, 2), 2, np.float32))
    text = ilin_compile(two_inputs, tmp_path / "x.npz", "--inputs", "left").stdout
    assert "input      left 1×2 float32\nheld       right n×2 float32\n" in text
    text = ilin_compile(two_inputs, tmp_path / "x.npz").stdout
    assert "input      left 1×2 float32, right 1×2 float32\n" in text
    assert "  right[0]                 2.0000    -1.0000      -2.0000\n" in text
    fits_a_screen(text)


def test_float64(ilin_compile, model, x, tmp_path):
    assert ilin_compile(model, x, "--dtype", "float64", "-o", tmp_path / "out.npz").exit_code == 0
    assert library.load(tmp_path / "out.npz").W.dtype == np.float64


@pytest.mark.parametrize(
    ("asked", "used"), [("auto", "matrix-free"), ("sparse", "sparse"), ("adjoint", "adjoint")]
)
def test_engines(ilin_compile, model, x, asked, used):
    told = strictly(ilin_compile(model, x, "--engine", asked, "--json").stdout)
    assert told["settings"]["engine"] == used


def test_outputs_before_an_operator_that_is_not_linear(ilin_compile, tmp_path, x):
    nodes = [helper.make_node("Neg", ["x"], ["u"], "turn"), helper.make_node("Sin", ["u"], ["y"], "wave")]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])])
    assert ilin_compile(path, x, "--outputs", "u").exit_code == 0


def test_outputs_before_an_operator_that_onnxruntime_does_not_know(ilin_compile, hopping, x):
    assert ilin_compile(hopping, x, "--outputs", "logits").exit_code == 0


def test_long_names_still_fit_a_screen(ilin_compile, tmp_path):
    name = "a_very_long_tensor_name_as_exporters_like_to_write_them/" * 3
    nodes = [helper.make_node("Conv", [name, "w"], [name + "y"], name + "conv")]
    puts = [tensor(name, [1, 1, 9, 9])], [tensor(name + "y", [1, 4, 7, 7])]
    weights = {"w": np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32)}
    path = save(tmp_path / ("model" * 20 + ".onnx"), nodes, *puts, weights)
    x = write(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(1, 1, 9, 9)))
    fits_a_screen(ilin_compile(path, x).stdout)
    fits_a_screen(ilin_compile(path, x, "--rows", "0,1").stdout)


def test_a_point_where_nothing_contributes(ilin_compile, model, tmp_path):
    text = ilin_compile(model, write(tmp_path / "zero.npy", np.zeros((1, 4), np.float32))).stdout
    assert "\n  b                                               +1.0000  100 % of the sum\n" in text
    assert "3 of 3 units lie exactly on a kink at x (ties, 3 of them may matter)" in text


# -- several instances ----------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path):
    return write(tmp_path / "several.npy", np.concatenate([X, 2 * X, -X]))


def test_several_instances_as_a_table(ilin_compile, model, several):
    result = ilin_compile(model, several)
    assert result.exit_code == 0
    assert result.stderr == f"note: {several}: 3 instances along axis 0 (--whole takes it as one input)\n"
    lines = result.stdout.split("\n")
    assert lines[4].split() == [
        "instance",
        "output",
        "value",
        "b",
        "nonzero",
        "at",
        "x",
        "region",
        "verified",
    ]
    rows = [line.split() for line in lines[5:8]]
    assert [row[:4] for row in rows] == [
        ["0", "2", "18.5", "1"],
        ["1", "2", "36", "1"],
        ["2", "0", "2.5", "0.5"],
    ]
    assert all(row[-1] == "yes" for row in rows)
    assert "verified   3 of 3 instances" in result.stdout
    fits_a_screen(result.stdout)


def test_several_instances_as_json(ilin_compile, model, several):
    document = strictly(ilin_compile(model, several, "--json").stdout)
    assert document["model"]["file"] == "model.onnx"
    assert [facts["instance"] for facts in document["instances"]] == [0, 1, 2]
    assert [facts["explained"]["value"] for facts in document["instances"]] == [18.5, 36.0, 2.5]


def test_several_instances_are_saved_under_numbers(ilin_compile, model, tmp_path):
    path = write(tmp_path / "many.npy", np.repeat(X, 11, axis=0))
    result = ilin_compile(model, path, "-o", tmp_path / "out.npz")
    assert result.exit_code == 0
    names = [f"out.{i:02}.npz" for i in range(11)]
    assert sorted(p.name for p in tmp_path.glob("out*")) == names
    assert result.stderr.endswith(f"note: wrote 11 files, {tmp_path / names[0]} to {tmp_path / names[-1]}\n")


def test_whole_takes_a_batch_as_one_input(ilin_compile, model, several):
    document = strictly(ilin_compile(model, several, "--whole", "--json").stdout)
    assert document["inputs"][0]["shape"] == [3, 4]
    assert document["map"]["K"] == 9 and document["map"]["N"] == 12


def test_several_named_instances(ilin_compile, two_inputs, tmp_path):
    np.savez(tmp_path / "x.npz", left=np.ones((4, 2), np.float32), right=np.zeros((4, 2), np.float32))
    result = ilin_compile(two_inputs, tmp_path / "x.npz")
    assert result.exit_code == 0
    assert "verified   4 of 4 instances" in result.stdout


# -- not verified ---------------------------------------------------------------------------------------


@pytest.fixture
def unverified(monkeypatch):
    """Every second answer fails its checks, as one with NaN and infinities would."""
    original, calls = CompiledModel._answer, []

    def answer(self, *arguments, **options):
        affine = original(self, *arguments, **options)
        calls.append(affine)
        if len(calls) % 2 == 0:
            return affine
        bad = dataclasses.replace(affine.certificate, reason="node 'first' is wrong", at_x=float("inf"))
        bad = dataclasses.replace(bad, at_x_over_bound=float("nan"))
        return dataclasses.replace(affine, _certify=lambda _: bad)

    monkeypatch.setattr(CompiledModel, "_answer", answer)


def test_computed_but_not_verified(ilin_compile, unverified, model, x):
    result = ilin_compile(model, x)
    assert result.exit_code == 1
    assert result.stderr == "error: computed but not verified: node 'first' is wrong\n"
    assert "NOT verified node 'first' is wrong\n" in result.stdout
    assert "not finite over any bound" in result.stdout
    fits_a_screen(result.stdout)


def test_not_verified_is_strict_json(ilin_compile, unverified, model, x):
    result = ilin_compile(model, x, "--json")
    assert result.exit_code == 1
    certificate = strictly(result.stdout)["certificate"]
    assert (certificate["verified"], certificate["at_x"], certificate["at_x_over_bound"]) == (
        False,
        None,
        None,
    )


def test_not_verified_and_quiet(ilin_compile, unverified, model, x):
    result = ilin_compile(model, x, "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: computed but not verified: node 'first' is wrong\n"


def test_some_of_several_not_verified(ilin_compile, unverified, model, several):
    result = ilin_compile(model, several)
    assert result.exit_code == 1
    assert result.stderr.endswith(
        "error: computed but not verified: 2 of 3 instances, the first is instance 0: node 'first' is wrong\n"
    )
    assert [line.split()[-1] for line in result.stdout.split("\n")[5:8]] == ["NO", "yes", "NO"]
    assert "verified   1 of 3 instances" in result.stdout


@pytest.mark.parametrize(
    ("mode", "where", "first", "count"),
    [
        ("tangent", "where it is the tangent", {"node": "gate", "op": "Sigmoid"}, 2),
        ("frozen", "with what weighs x held", {"node": "product", "op": "Mul"}, 1),
    ],
)
def test_a_smooth_answer_says_what_makes_it_so(ilin_compile, gated, x, mode, where, first, count):
    result = ilin_compile(gated, x, "--mode", mode)
    assert result.exit_code == 0
    assert f"map        smooth: F(z) = W z + b at x only, {where}\n" in result.stdout
    more = " and 1 more" if count > 1 else ""
    assert f"\nsmooth     by node '{first['node']}' ({first['op']}){more}\n" in result.stdout
    assert ("slopes of 2 smooth steps" in result.stdout) is (mode == "tangent")
    assert "no region is claimed, so no fresh points were tried\n" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.split("\n"))
    told = json.loads(ilin_compile(gated, x, "--mode", mode, "--json").stdout)
    assert told["map"]["smooth"] == {**first, "count": count}
    assert told["settings"]["mode"] == mode
    assert (told["certificate"]["slopes"] is not None) is (mode == "tangent")


def test_the_reading_is_saved(ilin_compile, quantised, x, tmp_path):
    out = tmp_path / "map.npz"
    assert ilin_compile(quantised, x, "--quantized", "straight-through", "-o", out, "-q").exit_code == 0
    affine = library.load(out)
    assert (affine.provenance["mode"], affine.provenance["quantized"]) == ("tangent", "straight-through")
    np.testing.assert_array_equal(affine.W, np.eye(4))


def test_a_folder_begun_in_one_mode_is_not_gone_on_with_in_another(ilin_compile, gated, x, tmp_path):
    folder = tmp_path / "map"
    assert ilin_compile(gated, x, "--out-dir", folder, "-q").exit_code == 0
    (folder / "header.json").unlink()
    result = ilin_compile(gated, x, "--out-dir", folder, "--mode", "frozen")
    assert result.exit_code == 2
    assert "mode" in result.stderr


def test_a_library_that_cannot_be_loaded(refused, model, x):
    assert refused(model, x, "--custom-ops", "none.so").startswith(
        "onnxruntime cannot load the custom-op library none.so: "
    )
