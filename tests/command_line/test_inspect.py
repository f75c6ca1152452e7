"""`ilin inspect`: verdicts before anything runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from ilin.expansions import EXPANSIONS
from ilin.ops import REGISTRY

from .models import save, tensor

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"

LINEARISABLE = """\
model      model.onnx: by hand, opset 17, 3 nodes
input      x batch×4 float32
output     y batch×3 float32

node    operator  opset  verdict
first   Gemm      17     affine
relu    Relu      17     piecewise-linear
second  Gemm      17     affine

nodes      2 affine, 1 piecewise-linear
answer     yes, piecewise-linear: F(z) = W z + b on the linear region around x
"""


def test_a_model_that_can_be_linearised(ilin, model):
    result = ilin("inspect", model)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == LINEARISABLE


def test_the_first_obstacle_and_the_way_around_it(ilin, hopping):
    result = ilin("inspect", hopping)
    assert result.exit_code == 3
    assert "leap   example.org.Hop  1      unsupported\n" in result.stdout
    assert "nodes      1 affine, 1 unsupported\n" in result.stdout
    assert "\nobstacle   node 'leap' (Hop, example.org opset 1): no rule for this operator; " in result.stdout
    assert result.stdout.endswith("\ninstead    --outputs logits explains what goes into that node\n")


def test_only_what_leads_to_the_asked_outputs_counts(ilin, hopping):
    result = ilin("inspect", hopping, "--outputs", "logits")
    assert result.exit_code == 0
    assert "unsupported  not needed for the outputs\n" in result.stdout
    assert result.stdout.endswith("answer     yes, affine: F(z) = W z + b everywhere\n")


def test_json(ilin, hopping):
    result = ilin("inspect", hopping, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["linearizable"] is False
    assert document["counts"] == {"affine": 1, "unsupported": 1}
    assert document["obstacle"]["node"] == "leap"
    assert document["obstacle"]["instead"] == ["logits"]
    assert document["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 4]}]
    first = document["nodes"][0]
    assert (first["name"], first["op"], first["domain"], first["opset"]) == ("dense", "Gemm", "ai.onnx", 17)
    assert (first["verdict"], first["depends_on_x"], first["needed"]) == ("affine", True, True)


def test_constants_and_random_numbers(ilin, tmp_path):
    nodes = [
        helper.make_node("Add", ["c", "c"], ["k"], "fold"),
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("RandomNormalLike", ["x"], ["r"], "noise"),
        helper.make_node("Add", ["x", "k"], ["y"], "shift"),
    ]
    weights = {"c": np.ones(4, np.float32)}
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])], weights)
    nodes = {node["name"]: node for node in json.loads(ilin("inspect", path, "--json").stdout)["nodes"]}
    verdicts = {name: node["verdict"] for name, node in nodes.items()}
    assert verdicts == {
        "fold": "constant",
        "shape": "locally constant",
        "noise": "unsupported",
        "shift": "affine",
    }
    assert nodes["noise"]["reason"] == "draws random numbers, so the model is no function of x"
    assert [name for name, node in nodes.items() if not node["needed"]] == ["shape", "noise"]


def test_no_floating_point_output(ilin, tmp_path):
    nodes = [helper.make_node("Shape", ["x"], ["y"], "shape")]
    puts = [tensor("x", [1, 4])], [tensor("y", [2], onnx.TensorProto.INT64)]
    result = ilin("inspect", save(tmp_path / "m.onnx", nodes, *puts))
    assert result.exit_code == 3
    assert result.stdout.endswith(
        "obstacle   the model has no floating-point outputs to linearise (it declares y int64[2]); "
        "name a tensor before them in outputs\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outputs", "zz"], "unknown name in outputs: 'zz'; the model declares y"),
        (["--inputs", "x,xx"], "unknown name in inputs: 'xx'; did you mean 'x'?"),
    ],
)
def test_unknown_names(ilin, model, arguments, message):
    result = ilin("inspect", model, *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")


def test_no_such_file(ilin, tmp_path):
    result = ilin("inspect", tmp_path / "none.onnx")
    assert (result.exit_code, result.stderr) == (2, f"error: no such file: {tmp_path / 'none.onnx'}\n")


def test_a_model_is_missing(ilin):
    result = ilin("inspect")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: Missing argument 'MODEL' (see ilin inspect --help)\n",
    )


def test_quiet_leaves_the_exit_code(ilin, model, hopping):
    for path, code in ((model, 0), (hopping, 3)):
        result = ilin("inspect", path, "-q")
        assert (result.exit_code, result.stdout, result.stderr) == (code, "", "")


def test_tensors_are_named(ilin, model):
    lines = ilin("inspect", model, "-v").stdout.splitlines()
    assert "relu    Relu      17     piecewise-linear  r" in lines
    nodes = json.loads(ilin("inspect", model, "--json").stdout)["nodes"]
    assert [node["outputs"] for node in nodes] == [["u"], ["r"], ["y"]]


def test_without_a_command_there_is_help(ilin):
    result = ilin()
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ") and "ilin inspect MODEL.onnx" in result.stderr


def test_a_long_cell_does_not_widen_every_line(ilin):
    lines = ilin("inspect", "--operators").stdout.splitlines()
    assert sorted(map(len, lines))[len(lines) // 2] < 200


def test_operators(ilin):
    result = ilin("inspect", "--operators")
    assert result.exit_code == 0
    lines = result.stdout.split("\n")
    assert [part.strip() for part in re.split("  +", lines[0])] == [
        *("domain", "operator", "opsets", "verdict", "file", "linear in")
    ]
    relu = "ai.onnx Relu 6, 13, 14 piecewise-linear ops/relu.py any"
    assert relu in [" ".join(line.split()) for line in lines]
    assert lines[-2] == f"{len({*REGISTRY, *EXPANSIONS})} operators"


def test_operators_as_json(ilin):
    operators = json.loads(ilin("inspect", "--operators", "--json").stdout)["operators"]
    assert len(operators) == len({*REGISTRY, *EXPANSIONS})
    told = {one["op"]: one for one in operators}
    assert told["Relu"] == {
        "domain": "ai.onnx",
        "op": "Relu",
        "opsets": [6, 13, 14],
        "kinds": ["piecewise-linear"],
        "linear_in": "any",
        "equation": "Relu: y = max(x, 0) — keeps the positive entries.",
        "at_x": "At x: y = D x with D = diag(x > 0); at 0 the slope is 0. Guard: the sign of each entry.",
        "file": "ops/relu.py",
    }
    assert set(told["Cast"]["kinds"]) == {"affine", "locally constant"}
    assert told["Gemm"]["linear_in"].split("; ")[0] == "A or B, C"
    assert told["Div"]["linear_in"] == "A; else smooth"


def test_the_page_of_operators_is_current(ilin):
    """`ilin inspect --operators --markdown > docs/operators.md` writes it."""
    page = PAGE.read_text()
    newest = int(re.search(r"operator set\s(\d+)", page)[1])
    if newest != onnx.defs.onnx_opset_version():
        pytest.skip(f"the page is of operator set {newest}, and this onnx has another one")
    result = ilin("inspect", "--operators", "--markdown")
    assert result.stdout == page


def test_markdown_goes_with_operators(ilin, model):
    result = ilin("inspect", model, "--markdown")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: --markdown goes with --operators (see ilin inspect --help)\n"


def test_long_names_are_never_cut_in_a_pipe(ilin, tmp_path):
    name = "block/" * 60
    nodes = [helper.make_node("Relu", ["x"], ["y"], name)]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])])
    assert f"\n{name}  Relu      17     piecewise-linear\n" in ilin("inspect", path).stdout


GATED = """\
nodes      2 smooth, 1 affine
answer     yes, smooth: F(z) = W z + b at x only, {where}
smooth     by node {first}
instead    --outputs u explains what goes into that node, on a region
"""


@pytest.mark.parametrize(
    ("arguments", "where", "first"),
    [
        ((), "where it is the tangent", "'gate' (Sigmoid) and 1 more"),
        (("--mode", "frozen"), "with what weighs x held", "'product' (Mul)"),
    ],
)
def test_what_makes_an_answer_smooth(ilin, gated, arguments, where, first):
    result = ilin("inspect", gated, *arguments)
    assert result.exit_code == 0
    assert result.stdout.endswith(GATED.format(where=where, first=first))
    told = json.loads(ilin("inspect", gated, *arguments, "--json").stdout)
    assert told["kind"] == "smooth"
    assert first.startswith(f"'{told['smooth']['node']}' ({told['smooth']['op']})")
    assert told["smooth"]["instead"] == ["u"]
    assert told["settings"]["mode"] == (arguments[1] if arguments else "tangent")


def test_quantisation_is_read_in_two_ways(ilin, quantised):
    exact = ilin("inspect", quantised)
    assert exact.exit_code == 0
    assert exact.stdout.endswith(
        "answer     yes, locally constant: F(z) = W z + b around x, with W = 0\n"
        "jumps      at node 'q' (QuantizeLinear): W does not show them\n"
        "instead    --quantized straight-through takes quantisation as linear in its range\n"
    )
    through = ilin("inspect", quantised, "--quantized", "straight-through")
    assert through.stdout.endswith(
        "answer     yes, piecewise-linear: F(z) = W z + b on the linear region around x\n"
    )
    assert json.loads(ilin("inspect", quantised, "--json").stdout)["jumps"] == {
        "node": "q",
        "op": "QuantizeLinear",
        "count": 1,
        "linear_straight_through": 1,
    }


def test_jumps_beside_a_map(ilin, tmp_path):
    nodes = [
        helper.make_node("Floor", ["x"], ["f"], "steps"),
        helper.make_node("Mul", ["f", "x"], ["y"], "scaled"),
    ]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])])
    assert ilin("inspect", path).stdout.endswith(
        "answer     yes, piecewise-linear: F(z) = W z + b on the linear region around x\n"
        "jumps      at node 'steps' (Floor): W does not show them\n"
    )


def test_rules_of_a_module(ilin, hopping, tmp_path, monkeypatch):
    (tmp_path / "hop_rules.py").write_text(
        "import ilin\nilin.locally_constant(__name__, 'Hop', domain='example.org')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(REGISTRY, ("example.org", "Hop"), None)  # taken away again behind the test
    del REGISTRY["example.org", "Hop"]
    result = ilin("inspect", hopping, "--rules", "hop_rules")
    assert result.exit_code == 0
    assert result.stdout.endswith("jumps      at node 'leap' (Hop): W does not show them\n")


def test_a_module_that_cannot_be_imported(ilin, model):
    result = ilin("inspect", model, "--rules", "no_such_rules")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --rules: no_such_rules cannot be imported: No module named ")
