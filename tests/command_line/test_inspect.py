"""`ilin inspect`: verdicts before anything runs."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from ilin.expansions import EXPANSIONS
from ilin.ops import REGISTRY

from .models import save, tensor

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
        "obstacle   the model has no floating-point outputs to linearise (it declares y int64[2])\n"
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


def test_operators(ilin):
    result = ilin("inspect", "--operators")
    assert result.exit_code == 0
    lines = result.stdout.split("\n")
    assert lines[0].split() == ["domain", "operator", "verdict", "file"]
    assert "ai.onnx Relu piecewise-linear ops/relu.py" in [" ".join(line.split()) for line in lines]
    assert "ai.onnx LSTM as its nodes are expansions/lstm.py" in [" ".join(line.split()) for line in lines]
    assert lines[-2] == f"{len({*REGISTRY, *EXPANSIONS})} operators"


def test_operators_as_json(ilin):
    operators = json.loads(ilin("inspect", "--operators", "--json").stdout)["operators"]
    assert len(operators) == len({*REGISTRY, *EXPANSIONS})
    relu = {"domain": "ai.onnx", "op": "Relu", "kind": "piecewise-linear", "file": "ops/relu.py"}
    assert relu in operators


def test_long_names_are_never_cut_in_a_pipe(ilin, tmp_path):
    name = "block/" * 60
    nodes = [helper.make_node("Relu", ["x"], ["y"], name)]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])])
    assert f"\n{name}  Relu      17     piecewise-linear\n" in ilin("inspect", path).stdout
