"""The ledger: its terms against sums by hand and onnxruntime's own differences, its groups, and its text."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy import sparse
from scipy.optimize import linprog

import ilin
from tests.conformance.oracle import onnxruntime_of

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
U = np.array([[1, 0, 2, 0], [0, 1, 0, -1], [1, 1, 1, 1]], np.float32)
B = np.array([0.5, -1, 0.25], np.float32)
V = np.array([[1, 2, 0], [0, 1, 1], [-1, 0, 3]], np.float32)
C = np.array([0.5, -0.25, 1], np.float32)
X = np.array([[1, 2, 0.5, 3]], np.float32)
ALIVE = np.array([1, 0, 1], np.float32)  # U x + B = (2.5, -2, 6.75)


def model_of(nodes, inputs, outputs, weights=(), kind=TensorProto.FLOAT):
    def declared(puts):
        return [helper.make_tensor_value_info(name, kind, shape) for name, shape in puts.items()]

    held = [numpy_helper.from_array(value, name) for name, value in dict(weights).items()]
    graph = helper.make_graph(nodes, "graph", declared(inputs), declared(outputs), held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def dense(bias=C, kind=TensorProto.FLOAT):
    nodes = [
        helper.make_node("Gemm", ["x", "U", "B"], ["u"], "first", transB=1),
        helper.make_node("Relu", ["u"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "V", "C"], ["y"], "second", transB=1),
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = {name: a.astype(dtype) for name, a in {"U": U, "B": B, "V": V, "C": bias}.items()}
    return model_of(nodes, {"x": [1, 4]}, {"y": [1, 3]}, weights, kind)


@pytest.fixture(scope="module")
def small():
    return ilin.linearize(dense(), X)


@pytest.fixture(scope="module")
def digits():
    return ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy"))


def two_inputs(**options):
    nodes = [
        helper.make_node("Sub", ["left", "right"], ["gap"], "subtract"),
        helper.make_node("Add", ["left", "right"], ["total"], "add"),
    ]
    model = model_of(nodes, {"left": [1, 2], "right": [1, 2]}, {"gap": [1, 2], "total": [1, 2]})
    x = {"left": np.array([[3, 5]], np.float32), "right": np.array([[1, 7]], np.float32)}
    return ilin.linearize(model, x, **options)


# -- the terms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 1, 2, -1])
def test_terms_are_those_on_paper(small, row):
    ledger = small.ledger(row)

    np.testing.assert_array_equal(ledger.contributions, (V @ np.diag(ALIVE) @ U)[[row]] * X)
    first, second = ledger.shares
    assert (first.node, first.op, first.output, first.step) == ("first", "Gemm", "u", 0)
    np.testing.assert_array_equal(first.channels, V[row] * ALIVE * B)
    np.testing.assert_array_equal(second.channels, np.eye(3)[row] * C)
    assert (ledger.output, ledger.index, ledger.row) == ("y", (0, row % 3), row % 3)
    assert ledger.sum == ledger.value == small.y[0, row]
    assert ledger.residual == ledger.relative_residual == ledger.slack == 0


def test_a_channels_share_is_what_its_bias_adds_to_onnxruntimes_output():
    rng = np.random.default_rng(3)
    weights = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in {"K": (4, 2, 3, 3), "k": (4,), "L": (3, 4, 2, 2), "l": (3,), "M": (12, 5)}.items()
    }

    def model(**changed):
        nodes = [
            helper.make_node("Conv", ["x", "K", "k"], ["u"], "one"),
            helper.make_node("Conv", ["u", "L", "l"], ["v"], "two", strides=[2, 2]),
            helper.make_node("Flatten", ["v"], ["f"], "flat"),
            helper.make_node("MatMul", ["f", "M"], ["y"], "last"),
        ]
        return model_of(nodes, {"x": [1, 2, 6, 6]}, {"y": [1, 5]}, {**weights, **changed})

    x = rng.standard_normal((1, 2, 6, 6)).astype(np.float32)
    ledger = ilin.linearize(model(), x).ledger(2)

    assert [share.node for share in ledger.shares] == ["one", "two"]
    y = onnxruntime_of(model())({"x": x})["y"][0, 2]
    for share, name in zip(ledger.shares, "kl", strict=True):
        assert share.value == pytest.approx(math.fsum(share.channels), rel=1e-15)
        for channel, value in share.parts:
            without = weights[name].copy()
            without[channel] = 0
            theirs = y - onnxruntime_of(model(**{name: without}))({"x": x})["y"][0, 2]
            # Differences of sums whose terms are these sizes, in float32.
            assert value == pytest.approx(theirs, abs=1e-6 * np.abs(ledger.terms).sum())


def test_steps_without_a_batch_axis_are_not_split():
    model = model_of([helper.make_node("Add", ["x", "c"], ["y"])], {"x": [3, 2]}, {"y": [3, 2]}, {"c": B[:2]})
    share = ilin.linearize(model, np.ones((3, 2), np.float32)).ledger(3).shares[0]

    assert share.channels is None
    assert share.parts == [(None, -1.0)]


def test_without_w_and_from_a_file_it_is_the_same(digits, tmp_path):
    full = digits.ledger(4)
    swept = ilin.compile(DIGITS / "model.onnx").at(digits.x, materialize=False).ledger(4)
    digits.save(tmp_path / "map.npz")
    loaded = ilin.load(tmp_path / "map.npz").ledger(4)

    np.testing.assert_allclose(swept.contributions, full.contributions, rtol=1e-4, atol=1e-5)
    assert len(swept.terms) == len(full.terms)
    np.testing.assert_array_equal(loaded.contributions, full.contributions)
    assert [share.channels for share in loaded.shares] == [None] * len(full.shares)
    assert loaded.slack is None
    for by_step, by_channel in zip(loaded.shares, full.shares, strict=True):
        assert (by_step.step, by_step.node) == (by_channel.step, by_channel.node)
        assert by_step.value == pytest.approx(by_channel.value, rel=1e-5, abs=1e-6)


def test_a_step_that_adds_to_one_of_two_outputs_only(tmp_path):
    affine = ilin.linearize(dense(bias=np.array([0, 2, 0], np.float32)), X)
    affine.save(tmp_path / "map.npz")
    for ledger in (affine.ledger(1, against=0), ilin.load(tmp_path / "map.npz").ledger(1, against=0)):
        assert [share.value for share in ledger.shares] == [(V[1] - V[0]) * ALIVE @ B, 2]
        assert ledger.residual == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_some_rows_of_float16(dtype):
    model = dense(kind=TensorProto.FLOAT16)
    affine = ilin.linearize(model, X.astype(np.float16), rows=[2, 0], dtype=dtype)
    ledger = affine.ledger(1)

    assert (ledger.row, ledger.index) == (1, (0, 0))
    assert ledger.sum == ledger.value == 2.5 + 0.5  # all of these are numbers of float16
    assert ledger.contributions.dtype == np.float64


def test_several_inputs_and_outputs():
    affine = two_inputs()
    ledger = affine.ledger(3)

    assert (ledger.output, ledger.index, ledger.value) == ("total", (0, 1), 12)
    assert {name: part.tolist() for name, part in ledger.contributions.items()} == {
        "left": [[0, 5]],
        "right": [[0, 7]],
    }
    assert "right[0, 1]" in str(ledger)


def test_a_sparse_w():
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], {"x": [1, 400]}, {"y": [1, 400]})
    dense = ilin.linearize(model, np.arange(400, dtype=np.float32).reshape(1, -1))

    ledger = replace(dense, W=sparse.csr_array(dense.W)).ledger(17)

    assert (ledger.sum, ledger.shares, np.count_nonzero(ledger.contributions)) == (17, (), 1)


def test_a_map_that_does_not_depend_on_x():
    nodes = [
        helper.make_node("Floor", ["x"], ["f"], "floor"),
        helper.make_node("Add", ["f", "c"], ["y"], "a"),
    ]
    model = model_of(nodes, {"x": [1, 3]}, {"y": [1, 3]}, {"c": B})
    affine = ilin.linearize(model, np.array([[1.5, 2.5, 0.5]], np.float32))
    ledger = affine.ledger(0, against=1)

    assert not ledger.contributions.any()
    assert ledger.residual == 0
    assert ledger.boundary.nearest(2).distance == math.inf
    assert ledger.boundary.nearest(2).step is None
    assert affine.ledger(0, against=0).boundary.nearest(1).distance == 0
    json.dumps(ledger.as_dict(), allow_nan=False)


def test_what_is_read_as_linear_by_design_is_told():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["i"], "q"),
        helper.make_node("DequantizeLinear", ["i", "scale", "zero"], ["y"], "d"),
    ]
    weights = {"scale": np.array(0.25, np.float32), "zero": np.array(0, np.int8)}
    model = model_of(nodes, {"x": [1, 4]}, {"y": [1, 4]}, weights)
    x = np.array([[0.3, 1, 2, 3]], np.float32)
    ledger = ilin.linearize(model, x, quantized="straight-through").ledger(0)

    assert ledger.residual == pytest.approx(0.25 - 0.3, abs=1e-7)  # the grid's nearest number minus x
    assert abs(ledger.residual) <= ledger.slack == pytest.approx(0.125, rel=1e-6)  # half a step of the grid
    assert "by design" in str(ledger)


# -- against another output ----------------------------------------------------------------------------


def test_a_contrast_is_the_difference_of_two_ledgers(digits):
    contrast, a, b = digits.ledger(4, against=9), digits.ledger(4), digits.ledger(9)

    np.testing.assert_allclose(contrast.contributions, digits.contrast(4, 9), rtol=1e-6, atol=1e-7)
    assert contrast.value == a.value - b.value
    assert [side.index for side in contrast.sides] == [(0, 4), (0, 9)]
    for difference, one, other in zip(contrast.shares, a.shares, b.shares, strict=True):
        np.testing.assert_array_equal(difference.channels, one.channels - other.channels)
    assert contrast.residual == pytest.approx(a.residual - b.residual, abs=1e-12)


@pytest.mark.parametrize(("norm", "order"), [(1, 1), (2, 2), (math.inf, np.inf), ("inf", np.inf)])
def test_the_nearest_point_of_the_decision_boundary(digits, norm, order):
    found = digits.ledger(4, against=9).boundary.nearest(norm)
    values = digits((digits.x.ravel() + found.step).reshape(digits.x.shape))[0]

    assert values[4] == pytest.approx(values[9], abs=1e-4)
    assert np.linalg.norm(found.step, order) == pytest.approx(found.distance, rel=1e-12)


def test_no_point_of_the_decision_boundary_is_nearer(digits):
    """By linear programs over s = p - q (L1) and over |s| ≤ t (L∞), and least squares (L2)."""
    boundary = digits.ledger(4, against=9).boundary
    g, m = digits.W[4].astype(float) - digits.W[9].astype(float), boundary.margin
    n = len(g)
    in_1 = linprog(np.ones(2 * n), A_eq=[np.r_[g, -g]], b_eq=[-m]).fun
    rows = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    free = [(None, None)] * n + [(0, None)]
    in_inf = linprog(
        np.r_[np.zeros(n), 1], rows, np.zeros(2 * n), A_eq=[np.r_[g, 0]], b_eq=[-m], bounds=free
    ).fun
    in_2 = np.linalg.norm(np.linalg.lstsq(g[None], np.array([-m]), rcond=None)[0])

    for norm, distance in ((1, in_1), (2, in_2), (math.inf, in_inf)):
        assert boundary.nearest(norm).distance == pytest.approx(distance, rel=1e-9)


@pytest.mark.parametrize(("gap", "inside"), [(0.5, True), (2.5, False)])
def test_whether_it_lies_in_the_region(gap, inside):
    """y = (relu(x), 1 - gap) at x = 1: the map's are equal at 1 - gap, beyond the kink where negative."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "M", "c"], ["y"], "last"),
    ]
    weights = {"M": np.array([[1, 0]], np.float32), "c": np.array([0, 1 - gap], np.float32)}
    model = model_of(nodes, {"x": [1, 1]}, {"y": [1, 2]}, weights)
    affine = ilin.linearize(model, np.ones((1, 1), np.float32))
    found = affine.ledger(0, against=1).boundary.nearest()

    assert found.distance == pytest.approx(gap)
    assert found.inside is inside
    z = (affine.x + found.step).astype(np.float32)
    y = onnxruntime_of(model)({"x": z})["y"][0]
    assert (abs(y[0] - y[1]) < 1e-6) == inside


def test_where_nobody_knows_whether_it_lies_inside(small, tmp_path):
    small.save(tmp_path / "map.npz")
    loaded = ilin.load(tmp_path / "map.npz").ledger(2, against=0)
    model = model_of([helper.make_node("Sigmoid", ["x"], ["y"])], {"x": [1, 4]}, {"y": [1, 4]})
    smooth = ilin.linearize(model, X).ledger(0, against=1)

    for ledger in (loaded, smooth):
        assert ledger.boundary.nearest(2).inside is None
        assert "not known to be in the region" in str(ledger)
    with pytest.raises(ilin.OptionError, match="unknown norm 3"):
        smooth.boundary.nearest(3)


# -- groups and baselines ------------------------------------------------------------------------------


LABELS = np.array([[0, 0, 1, 2]])


@pytest.mark.parametrize(
    ("groups", "members"),
    [
        (LABELS, {"0": [0, 1], "1": [2], "2": [3]}),
        (LABELS[0], {"0": [0, 1], "1": [2], "2": [3]}),
        (np.array([["a", "b", "a", "b"]]), {"a": [0, 2], "b": [1, 3]}),
        ("channels", {f"channel {j}": [j] for j in range(4)}),
        ({"ends": [0, 3], "rest": [1, 2]}, {"ends": [0, 3], "rest": [1, 2]}),
        ({"ends": [0, -1]}, {"ends": [0, 3], "others": [1, 2]}),
        ({"mask": LABELS == 0, "none": []}, {"mask": [0, 1], "none": [], "others": [2, 3]}),
        ({"slice": np.s_[:, 1:]}, {"slice": [1, 2, 3], "others": [0]}),
        ({"x": LABELS}, {"0": [0, 1], "1": [2], "2": [3]}),
    ],
)
def test_groups_add_up_their_entries(small, groups, members):
    ledger = small.ledger(0, groups=groups)

    flat = ledger.contributions.ravel()
    assert ledger.groups == {name: flat[entries].sum() for name, entries in members.items()}
    assert math.fsum(ledger.groups.values()) == flat.sum()


def test_groups_of_channels_of_a_picture(digits):
    model = model_of([helper.make_node("ReduceSum", ["x"], ["y"])], {"x": [1, 3, 2, 2]}, {"y": [1, 1, 1, 1]})
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)

    groups = ilin.linearize(model, x).ledger(0, groups="channels").groups

    assert groups == {"channel 0": 6, "channel 1": 22, "channel 2": 38}


def test_groups_by_input():
    ledger = two_inputs().ledger(2, groups={"left": "channels"})

    assert ledger.groups == {"left: channel 0": 3, "left: channel 1": 0, "others": 1}


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (
            np.zeros((2, 2), int),
            ilin.InputError,
            r"label array of input 'x' has shape \[2, 2\], but the input",
        ),
        (np.zeros((1, 4)), ilin.InputError, "must be integers or names, not float64"),
        ({"a": [0, 1], "b": [1, 2]}, ilin.InputError, "groups 'a' and 'b' overlap in 1 entries of input 'x'"),
        ({"a": [4]}, ilin.InputError, r"group 'a', of input 'x', does not fit its shape \[1, 4\]"),
        ({"a": np.s_[:, :, 0]}, ilin.InputError, "does not fit its shape"),
        ({"a": np.ones(3, bool)}, ilin.InputError, r"has shape \[3\], but the input has shape \[1, 4\]"),
        ({"a": [0.5]}, ilin.OptionError, "is no mask, list of flat positions"),
        ({"others": [0]}, ilin.OptionError, "no group may be called 'others'"),
        ("pixels", ilin.OptionError, "groups 'pixels' are not known; write 'channels'"),
    ],
)
def test_groups_that_do_not_fit(small, groups, error, message):
    with pytest.raises(error, match=message):
        small.ledger(0, groups=groups)


def test_groups_of_several_inputs_need_their_names():
    with pytest.raises(ilin.OptionError, match="give groups as a mapping from input name"):
        two_inputs().ledger(0, groups=np.zeros((1, 2), int))


@pytest.mark.parametrize("x0", [np.array([[0.5, 1, 0, 2]]), np.array([0.5, 1, 0, 2]), 0.25, {"x": X / 2}])
def test_a_baseline_starts_from_the_map_there(small, x0):
    ledger = small.ledger(1, baseline=x0)

    start = np.broadcast_to(np.asarray(x0["x"] if isinstance(x0, dict) else x0, float), (1, 4))
    np.testing.assert_array_equal(ledger.contributions, small.W[[1]] * (X - start))
    assert ledger.base == small(start)[0, 1]
    assert (ledger.shares, ledger.residual) == ((), 0)
    assert "the map at the baseline" in str(ledger)


def test_the_baseline_of_a_contrast(small):
    ledger = small.ledger(2, against=0, baseline=1)

    assert ledger.base == small(np.ones((1, 4)))[0, 2] - small(np.ones((1, 4)))[0, 0]
    assert ledger.residual == 0


@pytest.mark.parametrize(
    ("x0", "error", "message"),
    [
        (
            np.zeros((2, 2)),
            ilin.InputError,
            r"the baseline has shape \[2, 2\], but the input has shape \[1, 4\]",
        ),
        ({"z": X}, ilin.InputError, "the baseline takes the inputs x; given: z"),
        (np.nan, ilin.NonFiniteError, "the baseline holds NaN or infinity"),
        ("black", ilin.InputError, "the baseline must be numbers"),
        (1e308, ilin.NonFiniteError, "terms of the ledger leave the range of float64"),
    ],
)
def test_baselines_that_do_not_fit(small, x0, error, message):
    with pytest.raises(error, match=message):
        small.ledger(2, baseline=x0)
    with pytest.raises(ilin.InputError, match="give the baseline by input name"):
        two_inputs().ledger(0, baseline=np.zeros((1, 2)))


def test_rows_outside_the_map(small):
    for given in ({"row": 3}, {"row": 0, "against": -4}):
        with pytest.raises(ilin.RowsError, match="outside the map's 3 rows"):
            small.ledger(**given)


# -- as text, data and a table -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"against": 9}, {"groups": "channels"}, {"baseline": 0.5}])
def test_the_text_fits_80_columns_and_adds_up(digits, options):
    text = digits.ledger(4, **options).text(largest=3)
    lines = text.split("\n")

    assert max(map(len, lines)) <= 80
    total = next(line for line in lines if line.startswith("sum"))
    rows = [line for line in lines[: lines.index(total)] if line.startswith(("  [", "  ", "the map at"))]
    amounts = [float(line.split()[-1]) for line in rows if line.split()[-1][0] in "+-"]
    assert sum(amounts) == pytest.approx(float(total.split()[1]), abs=0.001 * len(amounts))  # 3 digits each


def test_long_names_are_shortened():
    name = "a/very/long/name/of/a/tensor/" * 4
    model = model_of(
        [helper.make_node("Add", [name, "c"], [f"{name}y"], name)],
        {name: [1, 3]},
        {f"{name}y": [1, 3]},
        {"c": B},
    )
    text = str(ilin.linearize(model, np.ones((1, 3), np.float32)).ledger(0, against=1))
    assert max(map(len, text.split("\n"))) <= 80


def test_plain_data(digits):
    ledger = digits.ledger(4, against=9, groups="channels")
    data = json.loads(json.dumps(ledger.as_dict(), allow_nan=False))

    np.testing.assert_array_equal(data["contributions"]["image"], ledger.contributions)
    parts = [value for share in data["shares"] for value in share["channels"]]
    assert math.fsum([*np.ravel(data["contributions"]["image"]), *parts]) == data["sum"]
    assert data["residual"] == ledger.residual
    assert [one["norm"] for one in data["boundary"]["nearest"]] == ["1", "2", "inf"]
    assert [side["index"] for side in data["sides"]] == [[0, 4], [0, 9]]


@pytest.mark.parametrize("options", [{}, {"groups": {"left": [0]}}, {"baseline": 1.0}])
def test_a_table_of_all_terms(options):
    pytest.importorskip("pandas")
    affine = two_inputs()
    ledger = affine.ledger(3, **({"groups": {"left": {"first": [0]}}} if "groups" in options else options))
    table = ledger.table()

    assert len(table) == len(ledger.terms)
    assert table["value"].sum() == ledger.sum
    assert table[table["tensor"] == "right"]["index"].tolist() == [(0, 0), (0, 1)]
    if "groups" in options:
        assert table["group"].tolist() == ["left: first", "others", "others", "others"]


def test_a_table_of_channels(small):
    pytest.importorskip("pandas")
    shares = small.ledger(0).table().query("part == 'bias share'")
    assert shares["channel"].tolist() == [0, 1, 2] * 2
    assert shares.groupby("node", sort=False)["value"].sum().tolist() == [0.5, 0.5]


def test_a_table_without_pandas(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ilin.OptionError, match=r"needs pandas, .* pip install 'ilin\[table\]'"):
        small.ledger(0).table()
