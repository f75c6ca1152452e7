"""The pipeline end to end: what it differentiates by, what it explains, and that every way agrees."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import ilin
from ilin.compiler.many import in_order
from ilin.compiler.to_folder import linearize_to

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
FLOAT = TensorProto.FLOAT
RANDOM = np.random.default_rng(7)


def model(nodes, inputs, outputs, opset=17, **weights):
    """A checked float model from nodes; weights are initializers by name."""
    puts = [
        [make_tensor_value_info(name, FLOAT, shape) for name, shape in given.items()]
        for given in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = make_graph(nodes, "net", *puts, tensors)
    proto = make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto)
    return proto


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def mlp(sizes=(6, 20, 15, 4)):
    """Gemm-Relu layers; hidden tensors h1, h2 after their Relu."""
    nodes, parameters, current = [], {}, "x"
    for index, (rows, columns) in enumerate(pairwise(sizes), start=1):
        parameters |= {f"W{index}": weights(rows, columns), f"b{index}": weights(columns)}
        last = index == len(sizes) - 1
        nodes.append(make_node("Gemm", [current, f"W{index}", f"b{index}"], ["y" if last else f"a{index}"]))
        if not last:
            nodes.append(make_node("Relu", [f"a{index}"], [f"h{index}"]))
            current = f"h{index}"
    return model(nodes, {"x": [1, sizes[0]]}, {"y": [1, sizes[-1]]}, **parameters), parameters


def by_hand(parameters, x, layers=3):
    """W and b of the mlp by multiplying masked matrices, in float64."""
    W, b, value = np.eye(x.size), np.zeros(x.size), x.astype(np.float64)
    for index in range(1, layers + 1):
        M, c = parameters[f"W{index}"].astype(np.float64).T, parameters[f"b{index}"].astype(np.float64)
        W, b, value = M @ W, M @ b + c, M @ value + c
        if index < layers:
            mask = value > 0
            W, b, value = mask[:, None] * W, mask * b, mask * value
    return W, b


@pytest.mark.parametrize("engine", ["auto", "sparse", "matrix-free", "adjoint"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mlp_equals_the_product_of_masked_matrices(engine, dtype):
    proto, parameters = mlp()
    x = weights(1, 6)
    affine = ilin.linearize(proto, x, engine=engine, dtype=dtype)
    W, b = by_hand(parameters, x[0])
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(affine.W, W, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(affine.b, b, rtol=tolerance, atol=tolerance)
    assert affine.W.dtype == affine.b.dtype == dtype
    assert affine.certificate.verified
    assert affine.certificate.points_held == 1
    assert affine.kind == "piecewise-linear"


def test_forward_and_reverse_agree_on_a_wide_output():
    proto, parameters = mlp((3, 10, 12, 50))
    x = weights(1, 3)
    affine = ilin.linearize(proto, x)
    few = ilin.linearize(proto, x, rows=[0, 7, 49])
    assert affine.provenance["direction"] == "forward"
    assert few.provenance["direction"] == "reverse"
    W, b = by_hand(parameters, x[0])
    np.testing.assert_allclose(affine.W, W, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(affine.W[few.rows], few.W, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(affine.b, b, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(affine.bias_shares[:, few.rows], few.bias_shares, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("engine", ["sparse", "matrix-free", "adjoint"])
def test_engines_agree_on_the_digits_network(engine):
    x = np.load(DIGITS / "x.npy")
    reference = ilin.linearize(DIGITS / "model.onnx", x, dtype="float64", engine="matrix-free")
    affine = ilin.linearize(DIGITS / "model.onnx", x, engine=engine)
    np.testing.assert_allclose(affine.W, reference.W, atol=2e-4 * np.abs(reference.W).max())
    np.testing.assert_allclose(affine.b, reference.b, atol=1e-4)


def test_units_held_at_a_constant_keep_their_share_of_b():
    """A saturated Clip does not depend on x, but what it passes on does add to b."""
    proto = model(
        [make_node("Clip", ["x", "lo", "hi"], ["t"]), make_node("Conv", ["t", "w"], ["y"])],
        {"x": [1, 1, 8, 8]},
        {"y": [1, 4, 6, 6]},
        lo=np.float32(-0.1),
        hi=np.float32(0.1),
        w=weights(4, 1, 3, 3),
    )
    x = weights(1, 1, 8, 8)
    x[..., 4:] = 5
    for engine in ("auto", "sparse", "matrix-free", "adjoint"):
        affine = ilin.linearize(proto, x, engine=engine)
        assert affine.certificate.verified, engine
        np.testing.assert_allclose(affine(x), affine.y, atol=1e-5)


def test_maps_between_layers_compose_to_the_whole():
    proto, _ = mlp()
    x = weights(1, 6)
    whole = ilin.linearize(proto, x)
    below = ilin.linearize(proto, x, outputs=["h1"])
    above = ilin.linearize(proto, x, inputs=["h1"])
    assert list(above.input_shapes) == ["h1"]
    assert above.certificate.verified
    assert above.certificate.points_held == 1
    np.testing.assert_allclose(above.W @ below.W, whole.W, atol=1e-4)
    np.testing.assert_allclose(above.W @ below.b + above.b, whole.b, atol=1e-4)
    np.testing.assert_allclose(above(above.x), whole.y, atol=1e-5)


def two_inputs():
    """y = [relu(u A) + v B + u C, v D]: residuals, several inputs, several outputs, shared weight A."""
    nodes = [
        make_node("MatMul", ["u", "A"], ["a"]),
        make_node("Relu", ["a"], ["r"]),
        make_node("MatMul", ["v", "A"], ["s"]),
        make_node("Add", ["r", "s"], ["t"]),
        make_node("Add", ["t", "a"], ["y"]),
        make_node("Sub", ["s", "v"], ["z"]),
    ]
    A = weights(3, 3)
    return model(nodes, {"u": [1, 3], "v": [1, 3]}, {"y": [1, 3], "z": [1, 3]}, A=A), A.astype(np.float64)


def test_several_inputs_and_outputs_with_a_shared_weight():
    proto, A = two_inputs()
    u, v = weights(1, 3), weights(1, 3)
    affine = ilin.linearize(proto, {"u": u, "v": v}, dtype="float64")
    D = np.diag((u @ A > 0)[0]) + np.eye(3)
    expected = np.block([[D @ A.T, A.T], [np.zeros((3, 3)), A.T - np.eye(3)]])
    np.testing.assert_allclose(affine.W, expected, atol=1e-6)
    assert list(affine.y) == ["y", "z"]
    assert affine.certificate.verified
    contributions = affine.contributions(0)
    assert {name: value.shape for name, value in contributions.items()} == {"u": (1, 3), "v": (1, 3)}


def test_an_input_that_is_not_differentiated_is_held():
    proto, A = two_inputs()
    u, v = weights(1, 3), weights(1, 3)
    affine = ilin.linearize(proto, {"u": u, "v": v}, inputs=["v"], outputs=["y"], dtype="float64")
    np.testing.assert_allclose(affine.W, A.T, atol=1e-6)
    held = np.maximum(u @ A, 0) + u @ A
    np.testing.assert_allclose(affine.b, held[0], atol=1e-5)
    assert affine.kind == "affine"
    assert affine.certificate.verified


def test_an_output_that_does_not_depend_on_x_is_locally_constant():
    proto, _ = two_inputs()
    affine = ilin.linearize(proto, {"u": weights(1, 3), "v": weights(1, 3)}, inputs=["u"], outputs=["z"])
    assert not affine.W.any()
    np.testing.assert_allclose(affine.b, affine.y.ravel(), atol=1e-6)
    assert affine.kind == "locally constant"
    assert affine.certificate.verified


def test_a_tensor_used_twice_by_one_node_counts_twice():
    proto = model([make_node("Add", ["x", "x"], ["y"])], {"x": [2]}, {"y": [2]})
    np.testing.assert_array_equal(ilin.linearize(proto, np.float32([1, 2])).W, 2 * np.eye(2))


def test_an_output_that_is_an_input():
    proto = model([make_node("Relu", ["x"], ["y"])], {"x": [2]}, {"y": [2], "x": [2]})
    affine = ilin.linearize(proto, np.float32([1, -2]))
    np.testing.assert_array_equal(affine.W, [[1, 0], [0, 0], [1, 0], [0, 1]])


def test_rows():
    proto, _ = mlp()
    x = weights(1, 6)
    whole = ilin.linearize(proto, x)
    top = ilin.linearize(proto, x, rows=2)
    np.testing.assert_array_equal(top.rows, np.argsort(-whole.y.ravel())[:2])
    chosen = ilin.linearize(proto, x, rows=[3, -4])
    np.testing.assert_array_equal(chosen.rows, [3, 0])
    np.testing.assert_allclose(chosen.W, whole.W[[3, 0]], atol=1e-6)
    assert chosen(x).shape == (2,)


@pytest.mark.parametrize("rows", [0, [4], [], "top", [0.5], [[True]], None])
def test_rows_that_make_no_sense(rows):
    proto, _ = mlp()
    with pytest.raises(ilin.RowsError, match=r"rows|row"):
        ilin.linearize(proto, weights(1, 6), rows=rows)


def test_at_many_yields_in_order():
    compiled = ilin.compile(DIGITS / "model.onnx")
    several = np.load(DIGITS / "several.npy")
    maps = list(compiled.at_many(several))
    assert [int(affine.y.argmax()) for affine in maps] == list(range(10))
    assert all(affine.certificate.verified for affine in maps)
    np.testing.assert_allclose(maps[3].W, compiled.at(several[3]).W)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_many_points_side_by_side_are_the_points_one_by_one(workers):
    compiled = ilin.compile(DIGITS / "model.onnx")
    points = np.repeat(np.load(DIGITS / "several.npy"), 3, axis=0)
    for point, affine in zip(points, compiled.at_many(points, rows=2, workers=workers), strict=True):
        alone = compiled.at(point, rows=2)
        np.testing.assert_array_equal(affine.W, alone.W)
        np.testing.assert_array_equal(affine.b, alone.b)
        np.testing.assert_array_equal(affine.x[0], point)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_bad_point_among_many_raises_in_its_turn(workers):
    compiled = ilin.compile(DIGITS / "model.onnx")
    points = np.load(DIGITS / "several.npy").copy()
    points[3, 0, 0, 0] = np.nan
    maps = compiled.at_many(points, workers=workers)
    assert [int(next(maps).y.argmax()) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ilin.NonFiniteError, match=r"^instance 3: tensor 'image' holds NaN"):
        next(maps)


@pytest.mark.parametrize("workers", [None, 1, 2])
@pytest.mark.parametrize("X", [np.zeros((0, 1, 8, 8)), [], iter([]), {"image": np.zeros((0, 1, 8, 8))}])
def test_no_instances_give_no_maps(X, workers):
    assert list(ilin.compile(DIGITS / "model.onnx").at_many(X, workers=workers)) == []


def test_at_many_wants_an_input():
    with pytest.raises(ilin.InputError, match="X names no input"):
        ilin.compile(DIGITS / "model.onnx").at_many({})


def test_an_instance_whose_map_does_not_fit_is_named():
    compiled = ilin.compile(DIGITS / "model.onnx", memory_limit=1000)
    with pytest.raises(ilin.MemoryLimitError, match=r"^instance 0: W would have"):
        next(compiled.at_many(np.load(DIGITS / "several.npy")))


def test_few_points_of_many_are_in_work_at_a_time():
    begun = []

    def points():
        for index in range(100):
            begun.append(index)
            yield index

    results = in_order(lambda point: point * point, points(), workers=3)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(begun) <= 5 + 3
    results.close()
    assert len(begun) <= 5 + 3


def test_models_that_explain_without_ilin(tmp_path):
    compiled = ilin.compile(DIGITS / "model.onnx")
    compiled.export_explainer(tmp_path / "explainer.onnx", rows=2)
    compiled.save_adjoint(tmp_path / "adjoint.onnx")
    x = np.load(DIGITS / "x.npy")
    x = x if x.ndim == 4 else x[None]
    session = onnxruntime.InferenceSession(tmp_path / "explainer.onnx", providers=["CPUExecutionProvider"])
    W, b, rows = session.run(["W", "b", "rows"], {"image": x})
    affine = compiled.at(x, rows=2)
    np.testing.assert_array_equal(rows, affine.rows)
    np.testing.assert_allclose(W, affine.W, atol=1e-4)
    np.testing.assert_allclose(b, affine.b, atol=1e-4)
    adjoint = onnx.load(tmp_path / "adjoint.onnx")
    onnx.checker.check_model(adjoint)
    facts = {entry.key: entry.value for entry in adjoint.metadata_props}
    assert facts["ilin.model_sha256"] == affine.model_sha256


def test_at_many_with_several_inputs():
    proto, _ = two_inputs()
    stacks = {"u": weights(4, 3), "v": weights(4, 3)}
    assert [affine.x["u"].shape for affine in ilin.compile(proto).at_many(stacks)] == [(1, 3)] * 4


def test_points_of_different_shape_share_one_compiled_model():
    proto = model([make_node("Relu", ["x"], ["y"])], {"x": ["n", 2]}, {"y": ["n", 2]})
    compiled = ilin.compile(proto)
    assert [compiled.at(weights(n, 2)).W.shape for n in (1, 3, 1)] == [(2, 2), (6, 6), (2, 2)]


def test_x_is_fitted_to_the_input():
    proto, _ = mlp()
    affine = ilin.linearize(proto, np.ones(6))
    assert affine.x.shape == (1, 6)
    assert affine.notes == (
        "input 'x' cast from float64 to float32",
        "input 'x': a leading batch axis of 1 was added to shape [6]",
    )


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, 7), np.float32), r"input 'x' takes shape \[1, 6\], but x has shape \[1, 7\]"),
        (
            np.ones((1, 1, 1, 6), np.float32),
            r"input 'x' takes shape \[1, 6\], but x has shape \[1, 1, 1, 6\]",
        ),
        (np.array([["a"] * 6]), r"input 'x' takes float32, but x holds <U1"),
        (np.ones((1, 6), complex), r"input 'x' takes float32, but x holds complex128"),
        ({"z": np.ones(6)}, r"x names 'z', but the model's inputs are x float32\[1×6\]"),
        ({}, r"x gives no value for input x float32\[1×6\]"),
    ],
)
def test_an_x_that_does_not_fit(x, message):
    proto, _ = mlp()
    with pytest.raises(ilin.InputError, match=message):
        ilin.linearize(proto, x)


@pytest.mark.parametrize(("value", "found"), [(np.nan, "NaN"), (np.inf, "an infinity")])
def test_non_finite_x_is_named(value, found):
    proto, _ = mlp()
    x = np.ones((1, 6))
    x[0, 2] = value
    with pytest.raises(ilin.NonFiniteError, match=f"tensor 'x' holds {found} at x .* flat index 2"):
        ilin.linearize(proto, x)


def test_the_first_non_finite_intermediate_value_is_named():
    proto = model(
        [
            make_node("Mul", ["x", "big"], ["first"]),
            make_node("Add", ["first", "x"], ["second"]),
            make_node("Relu", ["second"], ["y"]),
        ],
        {"x": [2]},
        {"y": [2]},
        big=np.float32(1e38),
    )
    with pytest.raises(ilin.NonFiniteError, match="tensor 'first' holds an infinity"):
        ilin.linearize(proto, np.float32([1, 1e6]))


@pytest.fixture
def steep():
    """A model whose values stay small at small x, and whose slopes leave float32: 1e30 · 1e9."""
    nodes = [make_node("Mul", ["x", "a"], ["h"]), make_node("Mul", ["h", "c"], ["y"])]
    return model(nodes, {"x": [2]}, {"y": [2]}, a=np.float32(1e30), c=np.float32(1e9))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("engine", ["sparse", "matrix-free", "adjoint", "fused"])
def test_slopes_out_of_range_are_refused_in_one_line(steep, engine, tmp_path):
    compiled = ilin.compile(steep, engine=engine)
    x = np.zeros(2, np.float32)
    with pytest.raises(
        ilin.NonFiniteError, match=r"entries of W leave the range of float32, .*dtype='float64'"
    ):
        compiled.at(x)
    with pytest.raises(ilin.NonFiniteError, match="entries of W leave the range of float32"):
        linearize_to(compiled, tmp_path / "map", x)


@pytest.mark.filterwarnings("error")
def test_slopes_out_of_range_of_float32_are_found_in_float64(steep):
    affine = ilin.linearize(steep, np.float32([0, 1e-20]), dtype="float64")
    np.testing.assert_allclose(affine.W, np.diag([1e39, 1e39]), rtol=1e-6)
    assert affine.certificate.verified


@pytest.mark.filterwarnings("error")
def test_contributions_out_of_range_are_refused():
    """They cancel in y = 1e30 (x0 - x1), each of them 1e40."""
    nodes = [make_node("MatMul", ["x", "A"], ["h"]), make_node("Mul", ["h", "c"], ["y"])]
    A, c = np.float32([[1], [-1]]), np.float32(1e30)
    proto = model(nodes, {"x": [1, 2]}, {"y": [1, 1]}, A=A, c=c)
    x = np.float32([[1e10, 1e10]])
    with pytest.raises(ilin.NonFiniteError, match="contributions leave the range of float32"):
        ilin.linearize(proto, x).contributions(0)
    np.testing.assert_allclose(
        ilin.linearize(proto, x, dtype="float64").contributions(0), [[1e40, -1e40]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        (
            ["NoSuchProvider"],
            "onnxruntime has no provider 'NoSuchProvider' here; it has .*CPUExecutionProvider",
        ),
        (["CPUExecutionProvider", "None"], "no provider 'None' here"),
        ("CPUExecutionProvider", "providers must be a list of names or None, not 'CPUExecutionProvider'"),
        ([], r"providers must be a list of names or None, not \[\]"),
    ],
)
def test_providers_that_there_are_not(providers, message):
    with pytest.raises(ilin.OptionError, match=message):
        ilin.compile(mlp()[0], providers=providers)


def test_a_w_that_does_not_fit_says_how_large_and_what_to_do():
    proto, _ = mlp((200, 300, 200, 300))
    compiled = ilin.compile(proto, memory_limit="100kB")
    with pytest.raises(
        ilin.MemoryLimitError, match=r"300 × 200 entries, 234\.4 KiB, over the limit of 97.* .rows=3 for"
    ):
        compiled.at(weights(1, 200))
    assert compiled.at(weights(1, 200), rows=3).certificate.verified


@pytest.mark.parametrize(
    "options", [{"engine": "magic"}, {"dtype": "float16"}, {"memory_limit": "lots"}, {"memory_limit": -1}]
)
def test_options_outside_their_range(options):
    with pytest.raises(ilin.OptionError):
        ilin.compile(mlp()[0], **options)


def test_batch_one_of_a_dynamic_axis_and_chunks_of_rows_agree():
    """A budget of almost nothing forces one row at a time."""
    proto, _ = mlp((5, 30, 30, 8))
    x = weights(1, 5)
    whole = ilin.linearize(proto, x, rows=[0, 1, 2, 3])
    tight = ilin.linearize(proto, x, rows=[0, 1, 2, 3], memory_limit=1200)
    np.testing.assert_allclose(whole.W, tight.W, rtol=1e-4, atol=1e-4)


def test_an_intermediate_input_of_another_type_than_the_graphs():
    nodes = [
        make_node("Cast", ["x"], ["t"], to=TensorProto.DOUBLE),
        make_node("Relu", ["t"], ["r"]),
        make_node("Cast", ["r"], ["y"], to=FLOAT),
    ]
    proto = model(nodes, {"x": [1, 3]}, {"y": [1, 3]})
    affine = ilin.linearize(proto, np.float32([[1, -2, 3]]), inputs=["t"])
    assert affine.certificate.verified
    assert affine.certificate.points_held == 1


def test_a_held_input_may_change_the_structure_from_point_to_point():
    """Axes that come in as data: an emitted sweep of one point must not serve another."""
    puts = [
        make_tensor_value_info("x", FLOAT, [2, 2]),
        make_tensor_value_info("axis", TensorProto.INT64, [1]),
    ]
    graph = make_graph(
        [make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=0)],
        "net",
        puts,
        [make_tensor_value_info("y", FLOAT, [2])],
    )
    proto = make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=8)
    compiled = ilin.compile(proto, inputs=["x"], engine="adjoint")
    x = weights(2, 2)
    for axis, expected in ((0, [[1, 0, 1, 0], [0, 1, 0, 1]]), (1, [[1, 1, 0, 0], [0, 0, 1, 1]])):
        affine = compiled.at({"x": x, "axis": np.int64([axis])})
        np.testing.assert_array_equal(affine.W, expected)
        assert affine.certificate.verified


def test_float16_models_underflow_and_are_verified():
    graph = make_graph(
        [make_node("Mul", ["x", "c"], ["t"]), make_node("Relu", ["t"], ["y"])],
        "net",
        [make_tensor_value_info("x", TensorProto.FLOAT16, [1, 50])],
        [make_tensor_value_info("y", TensorProto.FLOAT16, [1, 50])],
        [numpy_helper.from_array(np.float16(4e-4), "c")],
    )
    proto = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    affine = ilin.linearize(proto, 0.1 * weights(1, 50))
    assert affine.certificate.verified


DOUBLE = TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("op_type", "x", "W"), [("ReduceMax", [1, 1 + 1e-12], [[0, 1]]), ("Relu", [1e-50, -1], [[1, 0], [0, 0]])]
)
def test_choices_are_made_in_the_models_own_type(op_type, x, W):
    """In float32 both entries of the first are equal and the first of the second is 0."""
    attributes = {"keepdims": 0} if op_type == "ReduceMax" else {}
    shape = [] if op_type == "ReduceMax" else [2]
    graph = make_graph(
        [make_node(op_type, ["x"], ["y"], **attributes)],
        "net",
        [make_tensor_value_info("x", DOUBLE, [2])],
        [make_tensor_value_info("y", DOUBLE, shape)],
    )
    affine = ilin.linearize(
        make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8), np.float64(x)
    )
    np.testing.assert_array_equal(affine.W, W)


def test_the_map_keeps_its_own_x():
    x = np.float32([[1, -2]])
    affine = ilin.linearize(model([make_node("Relu", ["x"], ["y"])], {"x": [1, 2]}, {"y": [1, 2]}), x)
    x[:] = 7
    np.testing.assert_array_equal(affine.x, [[1, -2]])


def test_an_output_that_is_a_constant_of_the_model():
    proto = model([make_node("Relu", ["x"], ["y"])], {"x": [2]}, {"y": [2], "c": [2]}, c=np.float32([3, 4]))
    affine = ilin.linearize(proto, np.float32([1, 2]))
    np.testing.assert_array_equal(affine.W, [[1, 0], [0, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(affine.b, [0, 0, 3, 4])


def test_gemm_does_not_read_c_where_beta_is_zero():
    nodes = [make_node("Gemm", ["x", "w", "c"], ["y"], beta=0.0)]
    proto = model(
        nodes, {"x": [1, 2]}, {"y": [1, 2]}, w=np.eye(2, dtype=np.float32), c=np.float32([np.nan, 1])
    )
    assert ilin.linearize(proto, weights(1, 2)).certificate.verified


def test_a_tensor_named_like_a_cut_one():
    nodes = [make_node("Relu", ["x"], ["h"]), make_node("Neg", ["h"], ["h__computed"])]
    proto = model([*nodes, make_node("Add", ["h", "h__computed"], ["y"])], {"x": [2]}, {"y": [2]})
    assert not ilin.linearize(proto, np.float32([1, 2]), inputs=["h"]).W.any()


@pytest.mark.parametrize("given", [None, 3, ["model.onnx"]])
def test_a_model_is_a_path_bytes_or_a_proto(given):
    with pytest.raises(ilin.ModelError, match="a model is a path, bytes or an"):
        ilin.compile(given)


def test_at_many_wants_as_many_of_each_input():
    proto, _ = two_inputs()
    with pytest.raises(ilin.InputError, match="as many instances along axis 0"):
        list(ilin.compile(proto).at_many({"u": weights(4, 3), "v": weights(3, 3)}))


def test_large_networks_compose_in_float64_too():
    """Above the size from which auto emits the sweep, which onnxruntime could not run in float64."""
    nodes = [make_node("Conv", ["x", "w"], ["a"]), make_node("Relu", ["a"], ["y"])]
    proto = model(nodes, {"x": [1, 8, 34, 34]}, {"y": [1, 8, 32, 32]}, w=weights(8, 8, 3, 3))
    x = weights(1, 8, 34, 34)
    rows = list(range(0, 8192, 16))
    double = ilin.linearize(proto, x, rows=rows, dtype="float64")
    single = ilin.linearize(proto, x, rows=rows)
    assert double.certificate.verified
    assert double.W.dtype == np.float64
    np.testing.assert_allclose(single.W, double.W, atol=1e-6)
