"""Several outputs: what is largest is looked for in the first that depends on x, everywhere alike."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import ilin
from ilin.command_line.compile import compile_main


@pytest.fixture
def model():
    """A constant, and two outputs that depend on x, the second of them the larger everywhere."""
    random = np.random.default_rng(0)
    weights = {
        "version": np.array([1e6], np.float32),
        "A": random.standard_normal((2, 3)).astype(np.float32),
        "B": random.standard_normal((2, 4)).astype(np.float32),
        "high": np.array([500.0, 600.0, 700.0, 650.0], np.float32),
    }
    nodes = [
        helper.make_node("Identity", ["version"], ["version_out"]),
        helper.make_node("MatMul", ["x", "A"], ["small"]),
        helper.make_node("MatMul", ["x", "B"], ["xB"]),
        helper.make_node("ReduceSum", ["xB"], ["row"], keepdims=0, axes=[0]),
        helper.make_node("Add", ["row", "high"], ["large"]),
    ]
    graph = helper.make_graph(
        nodes,
        "several",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [
            helper.make_tensor_value_info("version_out", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("small", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("large", TensorProto.FLOAT, [4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)


X = np.array([[0.3, -1.2]], np.float32)


def expected(model):
    """Flat indices of the entries of `small`, the largest first, as onnxruntime computes them."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (small,) = session.run(["small"], {"x": X})
    return 1 + np.argsort(-small.ravel())


def test_largest_rows_are_of_the_first_output_that_depends_on_x(model):
    order = expected(model)
    for rows, count in (("top2", 2), (2, 2), ("top7", 3)):
        affine = ilin.linearize(model, X, rows=rows)
        np.testing.assert_array_equal(affine.rows, order[:count])
    assert any("7 largest outputs" in note for note in affine.notes)
    assert ilin.linearize(model, X).W.shape == (8, 2)  # all rows of all outputs
    named = ilin.linearize(model, X, rows="top1", outputs=["large"])
    assert named.output_shapes == {"large": (4,)}


def test_default_row_and_rival_are_of_one_output(model, tmp_path):
    order, affine = expected(model), ilin.linearize(model, X)
    affine.save(tmp_path / "map.npz")
    for each in (affine, ilin.load(tmp_path / "map.npz")):
        np.testing.assert_array_equal(each.weights(), each.weights(int(order[0])))
        np.testing.assert_array_equal(each.contrast(), each.contrast(int(order[0]), int(order[1])))
    large = 4 + int(np.argsort(-affine.y["large"])[0]), 4 + int(np.argsort(-affine.y["large"])[1])
    np.testing.assert_array_equal(affine.contrast(large[0]), affine.contrast(*large))
    with pytest.raises(ilin.RowsError, match="one row of that output"):
        affine.contrast(0)
    elsewhere = ilin.linearize(model, X, rows=[5, 6])  # none of the leading output: the largest of these
    np.testing.assert_array_equal(elsewhere.weights(), elsewhere.weights(1))


def test_report_speaks_of_the_same_output(model, tmp_path):
    pytest.importorskip("jinja2")
    pytest.importorskip("PIL")
    ilin.linearize(model, X).report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    top = int(expected(model)[0]) - 1
    assert f"The largest of 3 entries of its output “small” is small {top}" in page


def test_explainer_takes_the_same_rows(model, tmp_path):
    compiled = ilin.compile(model, outputs=["small", "large"])
    compiled.export_explainer(tmp_path / "explainer.onnx", rows="top2", x=X)
    session = onnxruntime.InferenceSession(tmp_path / "explainer.onnx")
    (rows,) = session.run(["rows"], {"x": X})
    np.testing.assert_array_equal(rows, expected(model)[:2] - 1)


def test_command_line_says_which_other_outputs_there_are(model, tmp_path):
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "x.npy", X)
    arguments = [str(tmp_path / "m.onnx"), str(tmp_path / "x.npy")]
    text = CliRunner().invoke(compile_main, arguments, catch_exceptions=False).output
    top = int(expected(model)[0]) - 1
    assert f"prediction small[{top}]" in text
    assert "besides    version_out, large; --outputs NAME explains one" in text
    document = json.loads(
        CliRunner().invoke(compile_main, [*arguments, "--json"], catch_exceptions=False).stdout
    )
    assert [each["output"] for each in document["prediction"]] == ["small"] * 3
    assert document["explained"]["row"] == top + 1 and document["explained"]["largest"]


def test_speech_rather_than_the_state_of_the_memory():
    path = Path(__file__).parents[3] / "shared" / "models" / "silero__vad_16k_op15.onnx"
    if not path.exists():
        pytest.skip("the published models are not there")
    compiled = ilin.compile(path)
    given = np.load(path.with_suffix(".inputs.npz"))
    x = {put.name: given[f"in{i}"] for i, put in enumerate(compiled.graph.inputs)}
    affine = compiled.at(x, rows="top3")
    np.testing.assert_array_equal(affine.rows, [0])  # `output`, which has one entry
    assert affine.certificate.verified


def test_a_model_that_computes_integers_alone_is_told_what_to_name():
    nodes = [
        helper.make_node("Identity", ["version"], ["version_out"]),
        helper.make_node("Relu", ["x"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["action"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "actor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [
            helper.make_tensor_value_info("version_out", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("action", TensorProto.INT64, [1, 1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "version")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    (note,) = ilin.linearize(proto, X).notes
    assert note.endswith("from 'x'; what leads to 'action' can be named in outputs")
    np.testing.assert_array_equal(ilin.linearize(proto, X, outputs=["scores"]).W, [[1, 0], [0, 0]])
