"""Views from a tensor on the way: against maps compiled from and to it, and onnxruntime's own differences."""

from __future__ import annotations

import pickle
import re
from functools import partial, reduce
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.utils import Extractor

import ilin
from ilin.runtime import matrix

from ..properties.builder import Graph
from ..properties.graphs import graphs
from ..properties.test_random_graphs import COMMON

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
MODELS = Path(__file__).parents[3] / "shared" / "models"
RANDOM = np.random.default_rng(5)


@pytest.fixture(scope="module")
def affine():
    return ilin.compile(DIGITS / "model.onnx", dtype="float64").at(np.load(DIGITS / "x.npy"))


def model(nodes, inputs, outputs, weights, dtype=np.float64, opset=17):
    """An ONNX model of one floating type."""
    kind = {np.float64: TensorProto.DOUBLE, np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}
    puts = [
        [make_tensor_value_info(name, kind[dtype], shape) for name, shape in given.items()]
        for given in (inputs, outputs)
    ]
    stored = [numpy_helper.from_array(np.asarray(value, dtype), name) for name, value in weights.items()]
    proto = make_model(make_graph(nodes, "net", *puts, stored), opset_imports=[make_opsetid("", opset)])
    proto.ir_version = 8
    onnx.checker.check_model(proto)
    return proto


def residual_block(dtype=np.float64):
    """y = C Relu(A x + a) + c + B x: the hidden tensor "h" is no cut, "u" = C h + c and the rest neither."""
    nodes = [
        make_node("Gemm", ["x", "A", "a"], ["g"], name="first", transB=1),
        make_node("Relu", ["g"], ["h"], name="relu"),
        make_node("Gemm", ["h", "C", "c"], ["u"], name="second", transB=1),
        make_node("MatMul", ["x", "B"], ["s"], name="skip"),
        make_node("Add", ["u", "s"], ["y"], name="join"),
    ]
    draw = np.random.default_rng(3)
    sizes = {"A": (7, 5), "a": (7,), "C": (4, 7), "c": (4,), "B": (5, 4)}
    weights = {name: draw.standard_normal(size) for name, size in sizes.items()}
    return model(nodes, {"x": [1, 5]}, {"y": [1, 4]}, weights, dtype), weights


X = np.array([[0.5, -1.0, 2.0, 0.25, 1.5]])


def run(proto, feeds, outputs=None):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(outputs, feeds)


def part_of(proto, inputs, outputs):
    """The part of a model between tensors, by onnx's own extractor."""
    return Extractor(onnx.shape_inference.infer_shapes(proto)).extract_model(inputs, outputs)


def differences(proto, feeds, name, h=1e-4):
    """The derivative of a model's only output with respect to one input, by onnxruntime: (K, N)."""
    columns = []
    for j in range(feeds[name].size):
        step = np.zeros(feeds[name].size)
        step[j] = h
        step = step.reshape(feeds[name].shape)
        ahead, behind = (run(proto, {**feeds, name: feeds[name] + s * step})[0] for s in (1, -1))
        columns.append((ahead - behind).ravel() / (2 * h))
    return np.stack(columns, axis=1)


# The two maps.


def test_every_tensor_of_a_chain_is_a_cut_and_composes_to_the_map(affine):
    for layer in affine.layers:
        up, on = affine.upto(layer), affine.onward(layer)
        size = int(np.prod(layer.shape))
        assert (up.shape, on.shape) == ((size, 64), (10, size))
        assert up.cut and on.cut
        np.testing.assert_allclose(on.matrix() @ up.matrix().toarray(), affine.W, atol=1e-11)
        np.testing.assert_allclose(on.matrix() @ up.b + on.b, affine.b, atol=1e-11)


@pytest.mark.parametrize("tensor", ["/relu1/Relu_output_0", "/conv3/Conv_output_0", "/relu4/Relu_output_0"])
def test_the_maps_are_those_of_a_model_compiled_from_and_to_the_tensor(affine, tensor):
    up = ilin.compile(DIGITS / "model.onnx", outputs=[tensor], dtype="float64").at(affine.x)
    on = ilin.compile(DIGITS / "model.onnx", inputs=[tensor], dtype="float64").at(affine.x)
    for view, whole in ((affine.upto(tensor), up), (affine.onward(tensor), on)):
        np.testing.assert_allclose(view.matrix().toarray(), whole.W, atol=1e-11)
        np.testing.assert_allclose(view.b, whole.b, atol=1e-11)
        assert view.nnz == np.count_nonzero(whole.W)
        assert view.in_shapes == whole.input_shapes
        assert view.out_shapes == whole.output_shapes


@pytest.mark.parametrize(("few", "room"), [(0, 2**22), (0, 3000), (64, 2**12), (10**6, 2**22)])
def test_matrices_made_sparse_dense_and_in_halves_are_products_of_the_layers_matrices(
    affine, monkeypatch, few, room
):
    monkeypatch.setattr(matrix, "_FEW", few)
    monkeypatch.setattr(matrix, "_ROOM", room)
    chain = [layer.matrix() for layer in affine.layers]
    for last in (0, 3, 7, 12):
        below = reduce(lambda done, L: L @ done, chain[1 : last + 1], chain[0]).toarray()
        above = reduce(lambda done, L: done @ L, chain[:last:-1]).toarray()
        up, on = affine.upto(affine.layers[last]), affine.onward(affine.layers[last])
        np.testing.assert_allclose(up.matrix().toarray(), below, atol=1e-11)
        np.testing.assert_allclose(on.matrix().toarray(), above, atol=1e-11)
        np.testing.assert_array_equal(up.matrix().data != 0, True)


def test_products_without_the_matrix(affine):
    view = affine.upto("/conv2/Conv_output_0")
    M, V, U = view.matrix(), RANDOM.standard_normal((64, 3)), RANDOM.standard_normal((view.shape[0], 2))
    np.testing.assert_allclose(view.operator @ V, M @ V, atol=1e-11)
    np.testing.assert_allclose(view.operator.T @ U, M.T @ U, atol=1e-11)
    np.testing.assert_allclose(view(affine.x), M @ affine.x.ravel() + view.b, atol=1e-11)
    with pytest.raises(ilin.InputError, match=r"starts from 'image' \[1, 1, 8, 8\], but 3 numbers are given"):
        view(np.zeros(3))


def test_slopes_are_onnxruntimes_differences_where_paths_go_around_the_tensor():
    proto, _ = residual_block()
    affine = ilin.compile(proto, dtype="float64").at(X)
    assert affine.region.radius("inf").distance > 1e-3  # so that the differences stay inside
    for tensor in ("g", "h", "u", "s"):
        up, on = affine.upto(tensor), affine.onward(tensor)
        assert not up.cut
        assert not on.cut
        below = part_of(proto, ["x"], [tensor])
        slopes = differences(below, {"x": X}, "x")
        np.testing.assert_allclose(up.matrix().toarray(), slopes, atol=1e-8)
        (value,) = run(below, {"x": X})
        np.testing.assert_allclose(up(X), value.ravel(), atol=1e-12)
        above = part_of(proto, [tensor, "x"], ["y"])
        feeds = {tensor: value, "x": X}
        np.testing.assert_allclose(on.matrix().toarray(), differences(above, feeds, tensor), atol=1e-8)
        np.testing.assert_allclose(on(value), affine.y.ravel(), atol=1e-12)


def test_the_offset_onward_is_what_arrives_around_the_tensor():
    proto, given = residual_block()
    affine = ilin.compile(proto, dtype="float64").at(X)
    np.testing.assert_allclose(affine.onward("relu").b, given["c"] + (X @ given["B"])[0], atol=1e-12)
    np.testing.assert_allclose(affine.onward("skip").matrix().toarray(), np.eye(4))
    np.testing.assert_allclose(
        affine.onward("skip").b, given["C"] @ np.maximum(given["A"] @ X[0] + given["a"], 0) + given["c"]
    )


def test_an_input_and_an_output_are_tensors_too(affine):
    start, end = affine.upto("image"), affine.onward("logits")
    np.testing.assert_array_equal(start.matrix().toarray(), np.eye(64))
    np.testing.assert_array_equal(end.matrix().toarray(), np.eye(10))
    assert not start.b.any()
    assert not end.b.any()
    np.testing.assert_allclose(affine.onward("image").matrix().toarray(), affine.W, atol=1e-11)
    np.testing.assert_allclose(affine.onward("image").b, affine.b, atol=1e-11)


def two_sided(dtype):
    """h = Relu(p + q) of two inputs; outputs y = M h, z = -q and d, half of h less the other."""
    nodes = [
        make_node("Add", ["p", "q"], ["s"], name="add"),
        make_node("Relu", ["s"], ["h"], name="relu"),
        make_node("MatMul", ["h", "M"], ["y"], name="mix"),
        make_node("Neg", ["q"], ["z"], name="neg"),
        make_node("Split", ["h"], ["left", "right"], name="split", axis=1),
        make_node("Sub", ["left", "right"], ["d"], name="sub"),
    ]
    puts = {"p": [1, 4], "q": [1, 4]}, {"y": [1, 3], "z": [1, 4], "d": [1, 2]}
    return model(nodes, *puts, {"M": np.arange(12).reshape(4, 3) / 4}, dtype, 13)


P, Q = np.array([[1, -2, 3, 0.5]]), np.array([[0.5, 1, -1, 2]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("materialize", [True, False])
@pytest.mark.parametrize("rows", ["all", [8, 1, 4, 1]])
def test_several_inputs_and_outputs_rows_types_and_maps_without_w(dtype, materialize, rows):
    compiled = ilin.compile(two_sided(dtype), dtype="float64" if dtype == np.float64 else "float32")
    point = {"p": P.astype(dtype), "q": Q.astype(dtype)}
    affine = compiled.at(point, rows=rows, materialize=materialize)
    alive = np.diag([1.0, 0, 1, 1])
    M = np.arange(12).reshape(4, 3).T / 4
    D = np.array([[1, 0, -1, 0], [0, 1, 0, -1]])
    from_h = np.vstack([M, np.zeros((4, 4)), D])[affine.rows]
    rest = np.concatenate([np.zeros(3), -Q[0], np.zeros(2)])[affine.rows]
    up, on = affine.upto("h"), affine.onward("h")
    np.testing.assert_array_equal(up.matrix().toarray(), alive @ np.hstack([np.eye(4), np.eye(4)]))
    np.testing.assert_array_equal(on.matrix().toarray(), from_h)
    np.testing.assert_array_equal(on.b, rest)
    assert not on.cut
    beside = affine.onward("p")
    np.testing.assert_array_equal(beside.matrix().toarray(), from_h @ alive)
    np.testing.assert_array_equal(beside.b, from_h @ alive @ Q[0] + rest)
    if rows == "all":
        assert list(on.out_shapes) == ["y", "z", "d"]
        with pytest.raises(
            ilin.UnknownTensorError, match="'split' makes several tensors; name one: left, ri"
        ):
            affine.upto("split")


def test_an_input_that_is_an_output_as_well():
    compiled = ilin.compile(two_sided(np.float64), outputs=["h", "p"], dtype="float64")
    affine = compiled.at({"p": P, "q": Q})
    alive = np.diag([1.0, 0, 1, 1])
    for tensor, slopes, offset in [
        ("q", np.vstack([alive, np.zeros((4, 4))]), np.concatenate([alive @ P[0], P[0]])),
        ("p", np.vstack([alive, np.eye(4)]), np.concatenate([alive @ Q[0], np.zeros(4)])),
        ("h", np.vstack([np.eye(4), np.zeros((4, 4))]), np.concatenate([np.zeros(4), P[0]])),
    ]:
        view = affine.onward(tensor)
        np.testing.assert_array_equal(view.matrix().toarray(), slopes)
        np.testing.assert_array_equal(view.operator @ np.eye(4), slopes)
        np.testing.assert_array_equal(view.b, offset)
        assert not view.cut


def test_a_locally_constant_map_has_views_of_zeros():
    proto = model(
        [make_node("Floor", ["x"], ["f"]), make_node("Mul", ["f", "w"], ["y"])],
        {"x": [3]},
        {"y": [3]},
        {"w": [1, 2, 3]},
    )
    affine = ilin.compile(proto, dtype="float64").at(np.array([0.5, 1.5, 2.5]))
    up, on = affine.upto("y"), affine.onward("y")
    assert (up.nnz, up.rank(), on.rank()) == (0, 0, 3)
    np.testing.assert_array_equal(up.b, [0, 2, 6])
    assert affine.onward("x").nnz == 0
    np.testing.assert_array_equal(affine.onward("x").b, [0, 2, 6])


@settings(COMMON, max_examples=40)
@given(graphs())
def test_random_graphs(graph: Graph) -> None:
    """Up to every tensor: the map compiled to it. Onward from a cut: what composes to the whole."""
    puts = {"inputs": graph.active, "dtype": "float64"}
    affine = ilin.compile(graph.model, outputs=graph.outputs, **puts).at(graph.feeds)
    scale = 1e-9 * (1 + np.abs(affine.W).max(initial=0))
    ends = {step.output: step.tensor for step in affine.trace_feature(0, tensors=True).steps}
    parts = [ends[name].ravel() for name in affine.outputs if name in ends]
    if len(parts) == len(affine.outputs):
        first = np.ravel(next(iter(affine.inputs.values()))).astype(float)[0]
        np.testing.assert_allclose(
            np.concatenate(parts), affine.W[:, 0] * first, rtol=1e-8, atol=scale + 1e-8
        )
    for layer in affine.layers[:: max(1, len(affine.layers) // 3)]:
        up, on = affine.upto(layer), affine.onward(layer)
        near = {"rtol": 1e-8, "atol": scale + 1e-8}
        np.testing.assert_allclose(
            up.matrix() @ np.eye(up.shape[1]), up.operator @ np.eye(up.shape[1]), **near
        )
        at_x = np.concatenate([np.ravel(one) for one in affine.inputs.values()])
        value = up(at_x)
        np.testing.assert_allclose(on(value), affine.W @ at_x + affine.b, **near)
        if affine.b.size and value.size:
            np.testing.assert_allclose(affine.units(0, layer, 2).total, on(value)[0], **near)
        if on.cut:
            np.testing.assert_allclose(on.matrix() @ up.matrix().toarray(), affine.W, **near)
            np.testing.assert_allclose(on.matrix() @ up.b + on.b, affine.b, **near)


def test_the_rank_is_numpys(affine):
    for tensor in ("/conv1/Conv_output_0", "/relu4/Relu_output_0", "logits"):
        for view in (affine.upto(tensor), affine.onward(tensor)):
            assert view.rank() == np.linalg.matrix_rank(view.matrix().toarray())
    proto, given = residual_block(np.float32)
    single = ilin.compile(proto).at(X)
    dead = int(np.count_nonzero(given["A"] @ X[0] + given["a"] <= 0))
    assert dead
    assert single.upto("h").rank() == min(5, 7 - dead)
    assert single.onward("g").rank() == np.linalg.matrix_rank(single.onward("g").matrix().toarray())


def test_rounding_errors_of_single_precision_are_no_rank():
    """A rank-1 product composed in float32 has tiny further singular values, which float64 would count."""
    draw = np.random.default_rng(2)
    weights = {"u": draw.standard_normal((40, 1)), "v": draw.standard_normal((1, 50))}
    nodes = [make_node("MatMul", ["x", "u"], ["t"]), make_node("MatMul", ["t", "v"], ["y"])]
    affine = ilin.compile(model(nodes, {"x": [1, 40]}, {"y": [1, 50]}, weights, np.float32)).at(
        np.ones((1, 40), np.float32)
    )
    view = affine.upto("y")
    assert view.rank() == 1
    assert np.linalg.matrix_rank(view.matrix().toarray().astype(np.float64)) > 1


def test_memory_is_asked_for_first(affine):
    """36,992 of 131,072 entries are stored: 16 bytes each, up to three times over."""
    ask = partial(affine.upto, "/conv2/Conv_output_0")
    with pytest.raises(
        ilin.MemoryLimitError, match=r"take about 1\.. MiB, more than the 100.0 KiB that it may"
    ):
        ask(memory_limit="100KiB").matrix()
    with pytest.raises(
        ilin.MemoryLimitError, match=r"would take more than the 1.2 MiB that it may; `operator`"
    ):
        ask(memory_limit="1.2MiB").matrix()
    assert ask(memory_limit="1KiB").operator.shape == (2048, 64)
    assert ask(memory_limit="2MiB").matrix().nnz == 36992
    with pytest.raises(ilin.MemoryLimitError, match=r"dense 2048 × 64 matrix: about 3.0 MiB; memory_limit="):
        ask(memory_limit="2MiB").rank()


@pytest.mark.parametrize("name", ["vnncomp21__resnet_2b"])
def test_a_real_residual_network(name):
    """Its first convolution as a matrix, a tensor beside a skip connection, one between two blocks."""
    path = MODELS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    affine = ilin.compile(path, dtype="float64").at(np.load(path.with_suffix(".npy")))
    first = affine.upto(affine.layers[0])
    np.testing.assert_allclose((first.matrix() - affine.layers[0].matrix()).data, 0, atol=1e-12)
    cuts = [layer for layer in affine.layers if affine.onward(layer).cut]
    assert 2 < len(cuts) < len(affine.layers)
    at_x = affine.W @ affine.x.ravel() + affine.b
    for layer in affine.layers:
        on = affine.onward(layer)
        near = {"atol": 1e-10 * np.abs(at_x).max()}
        np.testing.assert_allclose(on(affine.upto(layer)(affine.x)), at_x, **near)
        if on.cut:
            np.testing.assert_allclose(
                affine.upto(layer).operator.T @ on.matrix().toarray().T, affine.W.T, **near
            )


def test_entries_beyond_the_type_are_refused():
    """1e30 twice, and 1e-30 twice: W = 1 in float32, but not on the way."""
    nodes = [make_node("Mul", ["x" if i == 0 else f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(4)]
    weights = {f"w{i}": value for i, value in enumerate([1e30, 1e30, 1e-30, 1e-30])}
    proto = model(nodes, {"x": [1]}, {"t4": [1]}, weights, np.float32)
    affine = ilin.compile(proto).at(np.array([1e-30], np.float32))
    with pytest.raises(
        ilin.NonFiniteError, match="entries of a view at 't2' leave the range of float32; flo"
    ):
        affine.upto("t2").matrix()


# Names.


def test_names_that_nothing_goes_by(affine):
    for ask in (affine.upto, affine.onward, lambda step: affine.units(0, step)):
        with pytest.raises(
            ilin.UnknownTensorError,
            match=r"no tensor or node '/relu1/Rel' depends on x here; did you mean '/relu1/Relu'\? `layers` ",
        ):
            ask("/relu1/Rel")
        with pytest.raises(ilin.UnknownTensorError, match="no tensor or node '7' depends on x"):
            ask(7)
    by_node, by_tensor = affine.upto("/relu1/Relu"), affine.upto("/relu1/Relu_output_0")
    assert by_node.tensor == by_tensor.tensor == affine.upto(affine.layers[2]).tensor


def test_a_map_without_its_network_says_so(affine, tmp_path):
    affine.save(tmp_path / "map.npz")
    asks = [
        lambda other: other.upto("logits"),
        lambda other: other.onward("logits"),
        lambda other: other.trace_feature(0),
        lambda other: other.units(0, "logits"),
    ]
    for other in (ilin.load(tmp_path / "map.npz"), pickle.loads(pickle.dumps(affine))):
        for ask in asks:
            with pytest.raises(
                ilin.InputError, match="loaded from a file, which holds W and b but not the netw"
            ):
                ask(other)


# Features and units.


def test_a_feature_arrives_as_a_column_of_each_view_times_its_value(affine):
    trace = affine.trace_feature(44, tensors=True)
    assert (trace.input, trace.index, trace.x) == ("image", (0, 0, 5, 4), affine.x[0, 0, 5, 4])
    assert [step.output for step in trace.steps] == [layer.output for layer in affine.layers]
    for step in trace.steps:
        column = affine.upto(step.output).matrix().toarray()[:, 44] * affine.x.ravel()[44]
        np.testing.assert_allclose(step.tensor.ravel(), column, atol=1e-12)
        assert step.norm == pytest.approx(np.linalg.norm(column))
        assert step.nonzeros == np.count_nonzero(step.tensor)
        assert step.tensor[step.unit] == step.value
        assert abs(step.value) == np.abs(step.tensor).max()
    ends = [affine.contributions(row).ravel()[44] for row in range(10)]
    np.testing.assert_allclose(trace.steps[-1].tensor.ravel(), ends, atol=1e-12)
    assert affine.trace_feature(44).steps[0].tensor is None


def test_a_feature_is_carried_as_onnxruntime_moves_the_tensors():
    proto, _ = residual_block()
    affine = ilin.compile(proto, dtype="float64").at(X)
    for step in affine.trace_feature(("x", 2), tensors=True).steps:
        slopes = differences(part_of(proto, ["x"], [step.output]), {"x": X}, "x")
        np.testing.assert_allclose(step.tensor.ravel(), slopes[:, 2] * X[0, 2], atol=1e-8)


def test_scalars_are_features_and_units():
    proto = model([make_node("Mul", ["x", "w"], ["y"])], {"x": []}, {"y": []}, {"w": 3.0})
    affine = ilin.compile(proto, dtype="float64").at(np.array(2.0))
    (step,) = affine.trace_feature(("x", ()), tensors=True).steps
    assert (step.unit, step.value, step.tensor) == ((), 6.0, 6.0)
    units = affine.units(0, "x")
    assert units.index.shape == (1, 0)
    assert (units.contribution, units.total) == ([6.0], 6.0)
    assert "[]" in str(units)


def test_features_are_found_by_position_and_by_input():
    affine = ilin.compile(two_sided(np.float64), dtype="float64").at({"p": P, "q": Q})
    for feature in (6, -2, ("q", 2), ("q", -2), ("q", (0, 2)), ("q", (-1, -2)), np.int64(6)):
        trace = affine.trace_feature(feature)
        assert (trace.input, trace.index, trace.x) == ("q", (0, 2), -1.0)
    silent = affine.trace_feature(("p", 1)).steps  # its unit is dead
    assert [step.nonzeros for step in silent] == [1] + [0] * (len(silent) - 1)
    assert silent[-1].unit is None
    for feature in (8, -9, True, 1.5, "q", ("q",)):
        with pytest.raises(
            ilin.InputError, match="is none of the 8 input entries; give a flat index, 0 to 7,"
        ):
            affine.trace_feature(feature)
    for index in (4, (0, 4), (0,), 1.5, (0, True)):
        with pytest.raises(ilin.InputError, match=r"is no index into input 'q', which has shape \[1, 4\]"):
            affine.trace_feature(("q", index))
    with pytest.raises(ilin.InputError, match="takes the inputs p, q; given: 'r'"):
        affine.trace_feature(("r", 0))


def test_units_and_what_comes_behind_them_sum_to_the_output(affine):
    for tensor in ("/conv1/Conv_output_0", "/pool/MaxPool_output_0", "/relu4/Relu_output_0"):
        (value,) = run(part_of(onnx.load(DIGITS / "model.onnx"), ["image"], [tensor]), {"image": affine.x})
        every, some = affine.units(4, tensor), affine.units(4, tensor, 3)
        assert every.cut
        assert every.others == 0
        assert len(every.contribution) == value.size
        np.testing.assert_allclose(every.value, value[tuple(every.index.T)], atol=1e-5)
        slopes = affine.onward(tensor).matrix().toarray()[4].reshape(value.shape)
        np.testing.assert_allclose(every.slope, slopes[tuple(every.index.T)], atol=1e-12)
        np.testing.assert_allclose(every.contribution, every.slope * every.value)
        assert (np.diff(np.abs(every.contribution)) <= 0).all()
        np.testing.assert_array_equal(some.index, every.index[:3])
        assert some.others == pytest.approx(every.contribution[3:].sum())
        for units in (every, some):
            assert units.total == pytest.approx(float(affine.y[0, 4]), abs=1e-4)


def test_units_beside_a_skip_connection_leave_the_rest_to_it():
    proto, given = residual_block()
    affine = ilin.compile(proto, dtype="float64").at(X, rows=[3, 1])
    units = affine.units(0, "h")
    hidden = np.maximum(given["A"] @ X[0] + given["a"], 0)
    assert not units.cut
    assert units.contribution.sum() == pytest.approx((given["C"] @ hidden)[3])
    assert units.rest == pytest.approx(given["c"][3] + (X @ given["B"])[0, 3])
    assert units.total == pytest.approx(affine.y[0, 3])
    assert affine.units(-1, "h").total == pytest.approx(affine.y[0, 1])


def test_units_of_an_input_are_contributions(affine):
    units = affine.units(7, "image")
    np.testing.assert_allclose(units.contribution, affine.contributions(7)[tuple(units.index.T)], atol=1e-12)
    assert units.rest == pytest.approx(affine.b[7])


def test_rows_and_numbers_of_units_that_are_none(affine):
    with pytest.raises(ilin.RowsError, match="row 10 is outside the map's 10 rows"):
        affine.units(10, "logits")
    for k in (0, -1, True, 2.5):
        with pytest.raises(ilin.OptionError, match="k is how many units to list"):
            affine.units(0, "logits", k)


def test_texts_fit_80_columns(affine):
    layer = affine.layers[1]  # with a long name
    texts = [repr(affine.upto(layer)), repr(affine.onward(layer)), repr(affine.trace_feature(44))]
    texts += [str(affine.units(4, layer)), str(ilin.compile(residual_block()[0]).at(X).units(0, "h"))]
    for text in texts:
        assert max(map(len, text.splitlines())) <= 80, text
    assert texts[0] == "LayerView(image → …lization_output_0, 1024×64 float64)"
    assert len(texts[2].splitlines()) == 2 + len(affine.layers)
    assert len(texts[3].splitlines()) == 1 + 12 + 3
    assert "around it, and offsets behind it" in texts[4]


def test_the_page_on_layers_runs(monkeypatch, capsys):
    """Its first block, with what it shows of units, from a checkout's root."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "layers.md").read_text()
    monkeypatch.chdir(root)
    said: dict[str, object] = {}
    exec(page.split("```python\n")[1].split("```")[0], said)
    shown = page.split("```text\n")[1].split("```")[0].split()
    printed = capsys.readouterr().out.split()[: len(shown)]
    for ours, theirs in zip(shown, printed, strict=True):
        number = re.fullmatch(r"[+-]?\d+\.\d+", ours)  # of single precision, which machines round differently
        assert float(theirs) == pytest.approx(float(ours), rel=1e-4) if number else theirs == ours
    up, on, spectrum = said["up"], said["on"], said["spectrum"]
    assert (up.nnz, up.shape, on.rank(), on.cut) == (6991, (512, 64), 10, True)
    assert np.abs(on.matrix() @ up.matrix() - said["affine"].W).max() < 1e-4
    assert spectrum.effective_rank == pytest.approx(6.92, abs=0.01)
    assert spectrum.stable_rank == pytest.approx(2.11, abs=0.01)
    assert spectrum.angles[4, 9] == pytest.approx(87.94, abs=0.01)
