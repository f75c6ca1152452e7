"""Quantised operators and networks, read exactly and straight through."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from scipy.special import softmax

import ilin

from ..conformance.oracle import onnxruntime_of
from .one_node import assert_same, one_node

MS = "com.microsoft"
RANDOM = np.random.default_rng(2)
X = RANDOM.uniform(-1, 1, (1, 6)).astype(np.float32)
IMAGE = RANDOM.uniform(-1, 1, (1, 2, 4, 4)).astype(np.float32)
HELD = RANDOM.uniform(-1, 1, (1, 6)).astype(np.float32)
B = RANDOM.integers(-100, 100, (6, 3)).astype(np.int8)
BIAS = np.int32([100, -200, 300])

# Grids: of x, of what is held, of b (for all columns, and for each), and of y.
SX, ZX = np.float32(0.0085), np.uint8(118)
SH, ZH = np.float32(0.009), np.uint8(130)
SB, ZB = np.float32(0.01), np.int8(3)
COLUMNS = {"sb": np.float32([0.01, 0.02, 0.005]), "zb": np.int8([3, 0, -2])}
SY, ZY = np.float32(0.05), np.uint8(125)
SHARES = {"sy": np.float32(2**-8), "zy": np.uint8(0)}  # as onnxruntime's quantiser writes for a softmax
CHOICE = np.array([[True, False, True, True, False, False]])
WIDE = {"sx": SX, "zx": ZX, "sh": SH, "zh": ZH, "sb": SB, "zb": ZB, "sy": SY, "zy": ZY, "b": B, "bias": BIAS}


def grid(value, scale, zero):
    """What an integer stands for."""
    return (value.astype(float) - zero) * scale


def product(x, sb=SB, zb=ZB):
    return x @ grid(B, sb.astype(float), zb.astype(float))


H = grid(np.clip(np.rint(HELD / SH) + ZH, 0, 255), SH, ZH)

# Operator, its inputs, what it stands for, and its attributes; "q" is x on its grid, "h" another tensor.
NODES = {
    "QLinearMatMul": ("QLinearMatMul", "q sx zx b sb zb sy zy", product, {}),
    "QLinearMatMul by columns": (
        *("QLinearMatMul", "q sx zx b sb zb sy zy", lambda x: product(x, **COLUMNS), {}),
        COLUMNS,
    ),
    "QGemm": (
        *("QGemm", "q sx zx b sb zb bias sy zy"),
        *(lambda x: 0.5 * (product(x) + BIAS * float(SX) * SB), {"alpha": 0.5}),
    ),
    "QLinearAdd": ("QLinearAdd", "q sx zx h sh zh sy zy", lambda x: x + H, {}),
    "QLinearAdd of itself": ("QLinearAdd", "q sx zx q sx zx sy zy", lambda x: 2 * x, {}),
    "QLinearMul": ("QLinearMul", "q sx zx h sh zh sy zy", lambda x: x * H, {}),
    "QLinearMul on the right": ("QLinearMul", "h sh zh q sx zx sy zy", lambda x: x * H, {}),
    "QLinearLeakyRelu": (
        *("QLinearLeakyRelu", "q sx zx sy zy", lambda x: np.where(x > 0, x, 0.25 * x), {"alpha": 0.25}),
    ),
    "QLinearSigmoid": ("QLinearSigmoid", "q sx zx sy zy", lambda x: 1 / (1 + np.exp(-x)), {}),
    "QLinearSoftmax": (
        *("QLinearSoftmax", "q sx zx sy zy", lambda x: softmax(x, axis=-1), {"axis": -1, "opset": 13}),
        SHARES,
    ),
    "QLinearSoftmax below 13": (
        *("QLinearSoftmax", "q sx zx sy zy", lambda x: softmax(x, axis=None), {"axis": 0, "opset": 12}),
        SHARES,
    ),
    "QLinearWhere": (
        *("QLinearWhere", "c q sx zx h sh zh sy zy", lambda x: np.where(CHOICE, x, H), {}),
        {"c": CHOICE},
    ),
    "QLinearWhere not": (
        *("QLinearWhere", "c h sh zh q sx zx sy zy", lambda x: np.where(CHOICE, H, x), {}),
        {"c": CHOICE},
    ),
    "QLinearConcat": (
        *("QLinearConcat", "sy zy q sx zx h sh zh q sx zx"),
        *(lambda x: np.concatenate([x, H + 0 * x, x], axis=1), {"axis": 1}),
    ),
    "QLinearGlobalAveragePool": (
        *("QLinearGlobalAveragePool", "q sx zx sy zy", lambda x: x.mean((2, 3), keepdims=True), {}),
    ),
    "QLinearAveragePool": (
        *("QLinearAveragePool", "q sx zx sy zy"),
        *(lambda x: x.reshape(1, 2, 2, 2, 2, 2).mean((3, 5)), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ),
    "com.microsoft grids": ("", "", lambda x: x, {}),
}  # fmt: skip


def model_of(name):
    """From x over its grid, the operator and y's grid to floating point again."""
    op_type, inputs, function, attributes, *other = NODES[name]
    given = {**WIDE, "h": np.uint8(np.clip(np.rint(HELD / SH) + ZH, 0, 255)), **(other[0] if other else {})}
    x = IMAGE if "Pool" in name else X
    own = MS if not op_type else ""
    nodes = [helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], domain=own)]
    if op_type:
        domain = "" if op_type == "QLinearMatMul" else MS
        nodes.append(helper.make_node(op_type, inputs.split(), ["r"], domain=domain, **attributes))
        nodes.append(helper.make_node("DequantizeLinear", ["r", "sy", "zy"], ["y"]))
    else:
        nodes.append(helper.make_node("DequantizeLinear", ["q", "sx", "zx"], ["y"], domain=MS))
    return built(nodes, x, {k: np.asarray(v) for k, v in given.items()}), x, function


def built(nodes, x, constants, opset=17, rank=None):
    """A model from x to y, which has as many axes as x unless told otherwise."""
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (rank or x.ndim))],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def central(function, x, step=1e-4):
    """Differences of a function, in float64."""
    columns = np.eye(x.size).reshape(x.size, *x.shape)
    x = x.astype(float)
    return np.stack(
        [np.ravel(function(x + step * e) - function(x - step * e)) / (2 * step) for e in columns], axis=1
    )


@pytest.mark.parametrize("name", NODES)
def test_straight_through_it_is_what_its_numbers_stand_for(name):
    proto, x, function = model_of(name)
    affine = ilin.linearize(proto, x, quantized="straight-through", dtype="float64")
    on_grid = grid(np.clip(np.rint(x / SX) + ZX, 0, 255), float(SX), ZX)
    smooth = name.startswith(("QLinearSigmoid", "QLinearSoftmax"))
    where = on_grid if smooth else x
    np.testing.assert_allclose(affine.W, central(function, where), atol=1e-6)
    own = {"com.microsoft grids": SX}.get(name, SHARES["sy"] if "Softmax" in name else SY)
    step = own + float(SX) * np.abs(affine.W).sum(axis=1).max()
    theirs = onnxruntime_of(proto)({"x": x})["y"].ravel()
    assert np.abs(affine.W @ x.ravel() + affine.b - theirs).max() <= step
    assert affine.kind == ("smooth" if smooth else "piecewise-linear")
    assert affine.certificate.verified, str(affine.certificate)


@pytest.mark.parametrize("name", NODES)
def test_exactly_it_jumps_where_the_first_entry_leaves_its_cell(name):
    proto, x, _ = model_of(name)
    compiled = ilin.compile(proto)
    affine = compiled.at(x)
    run = onnxruntime_of(proto)
    assert affine.kind == "locally constant"
    np.testing.assert_array_equal(affine.b, run({"x": x})["y"].ravel())
    assert affine.certificate.verified
    ((_, guard),) = compiled._asked(x, "all").program.guarded
    nearest = np.unravel_index(guard.margin.argmin(), x.shape)
    for sign in (-1, 1):
        z = x.copy()
        z[nearest] += sign * 0.99 * guard.margin.min()
        np.testing.assert_array_equal(run({"x": z})["y"], run({"x": x})["y"])
    changed = []
    for sign in (-1, 1):
        z = x.copy()
        z[nearest] += sign * (1.01 * guard.margin.min() + 1e-6)
        ((_, there),) = compiled._asked(z, "all").program.guarded
        changed.append(not np.array_equal(there.choice, guard.choice))
    assert changed.count(True) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_integer_grids_end_where_their_type_does(dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.float32([[0.001 * low - 1, 0.1, 0.001 * high + 1]])
    constants = {"s": np.asarray(np.float32(0.001)), "z": np.asarray(dtype(0))}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    affine = ilin.linearize(built(nodes, x, constants, 21), x, quantized="straight-through")
    np.testing.assert_allclose(affine.W, np.diag([0, 1, 0]), rtol=1e-6)
    np.testing.assert_allclose(affine.b, [0.001 * low, 0, 0.001 * high], rtol=1e-6)
    assert affine.certificate.verified


@pytest.mark.parametrize(("bits", "low", "high"), [(TensorProto.INT4, -8, 7), (TensorProto.UINT4, 0, 15)])
def test_grids_of_four_bits(bits, low, high):
    x = np.float32([[-9, 0.2, 0.8, 30]])
    zero = helper.make_tensor("z", bits, [], [0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    proto = built(nodes, x, {"s": np.asarray(np.float32(0.5))}, 21)
    proto.graph.initializer.append(zero)
    inside = np.diag((x[0] / 0.5 > low) & (x[0] / 0.5 <= high))
    affine = ilin.linearize(proto, x, quantized="straight-through")
    np.testing.assert_allclose(affine.W, inside)
    exact = ilin.linearize(proto, x)
    assert exact.kind == "locally constant"
    np.testing.assert_array_equal(exact.b, onnxruntime_of(proto)({"x": x})["y"].ravel())
    assert exact.certificate.verified


def test_a_grid_of_floating_point_numbers_jumps_and_is_not_straight():
    x = np.float32([[0.3, -1.7]])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    proto = built(nodes, x, {"s": np.asarray(np.float32(0.5))}, 21)
    proto.graph.initializer.append(helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    affine = ilin.linearize(proto, x)
    assert affine.kind == "locally constant"
    assert affine.certificate.verified
    with pytest.raises(ilin.UnsupportedError, match="a grid that is not even"):
        ilin.linearize(proto, x, quantized="straight-through")


def test_each_channel_has_a_step_of_its_own():
    x = RANDOM.uniform(-1, 1, (2, 3)).astype(np.float32)
    scales = np.float32([0.01, 0.5, 0.1])
    constants = {"s": scales, "z": np.int8([0, 1, 2])}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    compiled = ilin.compile(built(nodes, x, constants), quantized="straight-through")
    (quantize, _) = compiled._asked(x, "all").program.steps
    np.testing.assert_allclose(quantize.slack, 0.5)  # in units of the grid
    affine = compiled.at(x)
    assert affine.certificate.verified
    theirs = onnxruntime_of(built(nodes, x, constants))({"x": x})["y"].ravel()
    off = np.abs(affine.W @ x.ravel() + affine.b - theirs).reshape(2, 3)
    assert (off <= 0.5 * scales * (1 + 1e-5)).all()
    assert (off.max(axis=0) > 0.01 * scales).all()  # each step is its own


# -- products by a range that x itself decides ---------------------------------------------------------------


def dynamic(name):
    """A product of x in bytes by the range of its own, with the bias 1, 2, 3."""
    constants = {"b": B, "sb": np.asarray(SB), "zb": np.asarray(ZB), "c": np.float32([1, 2, 3])}
    if name == "DynamicQuantizeMatMul":
        nodes = [helper.make_node(name, ["x", "b", "sb", "zb", "c"], ["y"], domain=MS)]
        return built(nodes, X, constants)
    quantize = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "sx", "zx"])
    if name == "MatMulIntegerToFloat":
        inputs = ["q", "b", "sx", "sb", "zx", "zb", "c"]
        return built([quantize, helper.make_node(name, inputs, ["y"], domain=MS)], X, constants)
    nodes = [
        quantize,
        helper.make_node(name, ["q", "b", "zx", "zb"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sx", "sb"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["p"]),
        helper.make_node("Add", ["p", "c"], ["y"]),
    ]
    return built(nodes, X, constants)


DYNAMIC = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")


@pytest.mark.parametrize("name", DYNAMIC)
def test_straight_through_a_range_is_held(name):
    affine = ilin.linearize(dynamic(name), X, quantized="straight-through")
    np.testing.assert_allclose(affine.W, product(np.eye(6)).T, rtol=1e-5)
    np.testing.assert_allclose(affine.b, [1, 2, 3], rtol=1e-4)
    assert affine.certificate.verified, str(affine.certificate)


@pytest.mark.parametrize("name", DYNAMIC)
def test_exactly_the_scale_moves_with_the_extremes(name):
    """Between jumps y - c is proportional to the range of x: its largest entry less its smallest."""
    affine = ilin.linearize(dynamic(name), X)
    theirs = onnxruntime_of(dynamic(name))({"x": X})["y"][0]
    slope = (theirs - [1, 2, 3]) / (X.max() - X.min())
    expected = np.zeros((3, 6))
    expected[:, X.argmax()], expected[:, X.argmin()] = slope, -slope
    np.testing.assert_allclose(affine.W, expected, atol=1e-5 * np.abs(slope).max())
    assert affine.kind == "piecewise-linear"
    assert affine.certificate.verified, str(affine.certificate)


# -- networks through onnxruntime's quantiser -----------------------------------------------------------


class Reader(quantization.CalibrationDataReader):
    """Random points and the one that is asked about, so that nothing saturates there."""

    def __init__(self, x):
        random = np.random.default_rng(9)
        points = [1.1 * x, *random.uniform(-1, 1, (32, *x.shape))]
        self.batches = iter([{"x": point.astype(np.float32)} for point in points])

    def get_next(self):
        return next(self.batches, None)


def perceptron():
    random = np.random.default_rng(7)
    constants = {
        "A": random.standard_normal((6, 8)).astype(np.float32) / 2,
        "a": np.zeros(8, np.float32),
        "B": random.standard_normal((8, 3)).astype(np.float32) / 2,
        "b": np.ones(3, np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "A", "a"], ["u"], name="first"),
        helper.make_node("Relu", ["u"], ["h"], name="relu"),
        helper.make_node("Gemm", ["h", "B", "b"], ["y"], name="second"),
    ]
    return built(nodes, X, constants), X


def convolutional():
    random = np.random.default_rng(8)
    constants = {
        "K": random.standard_normal((4, 2, 3, 3)).astype(np.float32) / 3,
        "k": np.full(4, 0.5, np.float32),  # a pooled value that rounds to an end of its grid would be held
        "B": random.standard_normal((16, 3)).astype(np.float32) / 2,
        "b": np.ones(3, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "K", "k"], ["u"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["u"], ["h"], name="relu"),
        helper.make_node("AveragePool", ["h"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "B", "b"], ["y"], name="gemm"),
    ]
    return built(nodes, IMAGE, constants, rank=2), IMAGE


NETWORKS = {"perceptron": perceptron, "convolutional": convolutional}
FORMATS = ("QDQ", "QDQ by channels", "QOperator", "dynamic")


@pytest.fixture(scope="module", params=[(n, f) for n in NETWORKS for f in FORMATS], ids=" ".join)
def quantised(request, tmp_path_factory):
    """The network, its quantised form, and a point."""
    network, form = request.param
    proto, x = NETWORKS[network]()
    path = tmp_path_factory.mktemp("quantised") / "model.onnx"
    logging.disable(logging.WARNING)
    if form == "dynamic":
        quantization.quantize_dynamic(proto, path, weight_type=quantization.QuantType.QUInt8)
    else:
        quantization.quantize_static(
            *(proto, path, Reader(x)),
            quant_format=getattr(quantization.QuantFormat, form.split()[0]),
            per_channel=form.endswith("channels"),
        )
    logging.disable(logging.NOTSET)
    return proto, onnx.load(path), x


def test_a_quantised_network_straight_through_is_nearly_the_network(quantised):
    proto, small, x = quantised
    ours = ilin.linearize(small, x, quantized="straight-through", dtype="float64")
    theirs = ilin.linearize(proto, x, dtype="float64")
    assert ours.certificate.verified, str(ours.certificate)
    assert ours.certificate.at_x > 0  # the roundings are there, and allowed for
    apart = np.linalg.norm(ours.W - theirs.W) / np.linalg.norm(theirs.W)
    assert apart < 0.1  # eight bits in each of three or four roundings, and a unit near its kink may turn


def test_a_quantised_network_read_exactly_is_verified(quantised):
    _, small, x = quantised
    affine = ilin.linearize(small, x)
    assert affine.certificate.verified, str(affine.certificate)
    assert affine.kind in ("locally constant", "piecewise-linear")
    np.testing.assert_allclose(
        affine.W @ x.ravel() + affine.b, onnxruntime_of(small)({"x": x})["y"].ravel(), rtol=1e-5
    )
    assert affine.W.any() == (affine.kind == "piecewise-linear")


def test_sweeps_are_not_joined_where_nothing_leads_on():
    """Guards read what x moves, but no path goes on from there: there is nothing to join sweeps at."""
    nodes = [
        helper.make_node("Relu", ["x"], ["u"]),
        helper.make_node("Floor", ["u"], ["i"]),
        helper.make_node("Identity", ["i"], ["y"]),
    ]
    affine = ilin.linearize(built(nodes, X, {}), X)
    assert affine.kind == "locally constant"
    assert affine.W.shape == (6, 6)


def in_bits(bits, columns, size, zeros, rows=3):
    """Operands of a product by weights in blocks, by random bytes; scales make weights of about 1."""
    random, blocks = np.random.default_rng(bits), -(-columns // size)
    scales = random.uniform(0.5, 1, (rows, blocks)).astype(np.float32) / 2**bits
    packed = random.integers(0, 256, (rows, -(-blocks * bits // 8)), np.uint8)
    given = {"none": None, "packed": packed, "numbers": np.float32(4) * scales}[zeros]
    weight = random.integers(0, 256, (rows, blocks, size * bits // 8), np.uint8)
    x = random.standard_normal((2, columns)).astype(np.float32)
    return (
        x,
        {"b": weight, "s": scales, "z": given},
        {"K": columns, "N": rows, "bits": bits, "block_size": size},
    )


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("columns", "size"), [(32, 16), (40, 16), (64, 32)])
@pytest.mark.parametrize("zeros", ["none", "packed", "numbers"])
def test_weights_of_a_few_bits(bits, columns, size, zeros):
    if bits == 8 and zeros == "numbers":
        pytest.skip("onnxruntime has no such kernel")
    x, held, attributes = in_bits(bits, columns, size, zeros)
    assert_same(one_node("MatMulNBits", {"a": x}, held, 17, domain=MS, **attributes), {"a": x})


def test_weights_of_a_few_bits_with_a_bias():
    x, held, attributes = in_bits(4, 32, 16, "packed")
    held |= {"g": None, "bias": np.float32([1, -2, 3])}
    assert_same(one_node("MatMulNBits", {"a": x}, held, 17, domain=MS, **attributes), {"a": x})
    order = ["a", *held]
    bias = {"bias": held.pop("bias")}
    moved = one_node("MatMulNBits", bias, {"a": x, **held}, 17, order=order, domain=MS, **attributes)
    assert_same(moved, bias)


def test_an_activation_that_is_rounded_to_bytes_is_refused():
    x, held, attributes = in_bits(4, 32, 16, "none")
    model = one_node("MatMulNBits", {"a": x}, held, 17, domain=MS, accuracy_level=4, **attributes)
    with pytest.raises(ilin.UnsupportedError, match="accuracy_level 4 rounds its input to bytes"):
        ilin.linearize(model, x)
