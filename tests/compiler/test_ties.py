"""Ties against maps written by hand, and against differences of onnxruntime along directions."""

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin
from ilin.compiler.ties import inner_direction, nudged
from ilin.runtime.ties import STILL, UNFELT

from ..conformance.oracle import onnxruntime_of

MODELS = Path(__file__).parents[3] / "shared" / "models"

ABSOLUTE = [  # |x| in two halves
    ("Neg", ["x"], "n", {}),
    ("Relu", ["x"], "p", {}),
    ("Relu", ["n"], "q", {}),
    ("Add", ["p", "q"], "y", {}),
]
BOTH_ENDS = [  # the largest entry and the smallest
    ("ReduceMax", ["x"], "p", {"keepdims": 1}),
    ("ReduceMin", ["x"], "q", {"keepdims": 1}),
    ("Add", ["p", "q"], "y", {}),
]
POOL = [("MaxPool", ["x"], "y", {"kernel_shape": [2], "strides": [2]})]


def model(nodes, shape, initializers=(), dtype=TensorProto.FLOAT):
    """A model from x to y."""
    real = helper.tensor_dtype_to_np_dtype(dtype)
    graph = helper.make_graph(
        [helper.make_node(op, read, [made], name=made, **attributes) for op, read, made, attributes in nodes],
        "ties",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, None)],
        [
            numpy_helper.from_array(np.asarray(value, real), name)
            for name, value in dict(initializers).items()
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)  # of y


def at(nodes, x, initializers=(), dtype=TensorProto.FLOAT, **options):
    x = np.asarray(x, helper.tensor_dtype_to_np_dtype(dtype))
    return ilin.compile(model(nodes, x.shape, initializers, dtype), **options).at(x)


def difference(proto, x, direction, step):
    """(F(x + step · direction) - F(x)) / step by onnxruntime."""
    run = onnxruntime_of(proto)
    there, here = (
        np.concatenate([value.ravel() for value in run({"x": point}).values()])
        for point in ((x + step * direction).astype(x.dtype), x)
    )
    return (there.astype(float) - here) / step


# -- maps by hand --------------------------------------------------------------------------------------


def test_the_halves_of_an_absolute_value_meet_in_a_map_of_no_region():
    affine = at(ABSOLUTE, [[0, 2]])

    assert affine.W.tolist() == [[0, 0], [0, 1]]  # both halves take the side below: slope 0
    assert affine.ties.along([[1, 0]]).W.tolist() == [[1, 0], [0, 1]]
    assert affine.ties.along([[-1, 5]]).W.tolist() == [[-1, 0], [0, 1]]
    assert (affine.ties.count, affine.ties.matter, affine.ties.genuine) == (2, 2, False)
    sides = [(side.turned, side.rows, side.change, side.offset) for side in affine.ties.sides]
    assert sides == [(1, (0,), 1.0, 0.0)] * 2


def test_several_extremes_of_equal_entries_choose_sides_together():
    affine = at(BOTH_ENDS, [[1, 1]])

    assert affine.W.tolist() == [[2, 0]]
    assert affine.ties.genuine is False
    for direction in ([[1, 0]], [[0, 1]], [[-3, -2]]):
        assert affine.ties.along(direction).W.tolist() == [[1, 1]]


def test_a_pool_takes_the_entry_that_grows_most():
    affine = at(POOL, [[[3, 3, 5, 1]]])

    assert affine.ties.along([[[0, 1, 0, 0]]]).W.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert affine.ties.along([[[1, 0, 0, 9]]]).W.tolist() == affine.W.tolist()
    assert affine.ties.genuine is True
    (tie,) = affine.ties.units
    assert (tie.node, tie.unit, tie.harmless) == ("y", (0, 0, 0), "")
    assert tie.convention == "the first of equal entries wins"


def test_a_later_tie_follows_an_earlier_one():
    """The second Relu's argument has the slope 0 as the first one chose at x, and 1 as it may choose."""
    affine = at([("Relu", ["x"], "h", {}), ("Relu", ["h"], "y", {})], [[0]])

    assert affine.ties.along([[1]]).W.tolist() == [[1]]
    assert affine.ties.along([[-1]]).W.tolist() == [[0]]
    assert (affine.ties.matter, affine.ties.genuine) == (2, True)


def test_what_a_direction_leaves_undecided_is_still_the_map_of_a_region():
    """Along (1, 1) the difference of both entries stays 0; its absolute value has a sign on either side."""
    both_halves = [("MatMul", ["x", "A"], "u", {}), ("Neg", ["u"], "n", {}), ("Relu", ["u"], "p", {})]
    affine = at([*both_halves, *ABSOLUTE[2:]], [[1, 1]], {"A": [[1], [-1]]})

    assert np.abs(affine.ties.along([[1, 1]]).W).tolist() == [[1, 1]]


@pytest.mark.parametrize(("bound", "W"), [(1, 1), (-1, 0)])
def test_clip_at_its_upper_end(bound, W):
    affine = at([("Clip", ["x", "", "top"], "y", {})], [[6]], {"top": 6})

    assert affine.W.tolist() == [[1]]
    assert affine.ties.along([[-bound]]).W.tolist() == [[W]]


# -- harmless ties -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "initializers", "x", "why"),
    {
        "a window of dead units": (
            [("Relu", ["x"], "h", {}), ("MaxPool", ["h"], "y", {"kernel_shape": [2]})],
            {},
            [[[-1, -2]]],
            STILL,
        ),
        "a border of zeros": (
            [("Pad", ["x", "pads"], "h", {}), ("Relu", ["h"], "y", {})],
            {},
            [[4]],
            STILL,
        ),
        "the same function twice": (
            [("Mul", ["x", "two"], "a", {}), ("Add", ["x", "x"], "b", {}), ("Max", ["a", "b"], "y", {})],
            {"two": 2},
            [[0.7]],
            STILL,
        ),
        "nothing behind it": (
            [("Relu", ["x"], "h", {}), ("Mul", ["h", "none"], "k", {}), ("Add", ["k", "x"], "y", {})],
            {"none": 0},
            [[0]],
            UNFELT,
        ),
        "a dead unit behind it": (
            [("Relu", ["x"], "h", {}), ("Sub", ["h", "one"], "k", {}), ("Relu", ["k"], "y", {})],
            {"one": 1},
            [[0]],
            UNFELT,
        ),
    }.values(),
)
def test_harmless(nodes, initializers, x, why):
    proto = model(nodes, np.shape(x), initializers)
    if any(op == "Pad" for op, *_ in nodes):
        proto.graph.initializer.append(numpy_helper.from_array(np.int64([0, 1, 0, 1]), "pads"))
        proto = onnx.shape_inference.infer_shapes(proto)
    affine = ilin.compile(proto).at(np.float32(x))

    ties = affine.ties

    assert ties.count == affine.certificate.ties > 0
    assert {tie.harmless for tie in ties.units} == {why}
    assert (ties.matter, ties.harmless, ties.genuine, ties.sides) == (0, ties.count, True, ())
    for sign in (1, -1):
        assert ties.along(np.full(np.shape(x), sign)).W.tolist() == affine.W.tolist()


def test_rows_that_were_not_asked_for_do_not_count():
    compiled = ilin.compile(model([("Relu", ["x"], "y", {})], [1, 2]))
    x = np.float32([[0, 1]])

    assert compiled.at(x).ties.matter == 1
    assert compiled.at(x, rows=[1]).ties.matter == 0


def test_a_model_without_ties():
    ties = at(ABSOLUTE, [[1, 2]]).ties

    assert (ties.count, ties.nodes, ties.units, ties.genuine, str(ties)) == (0, (), (), True, "no ties")


# -- differences of onnxruntime ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_along_is_the_one_sided_derivative_of_a_network_on_its_kinks(seed):
    """Small whole weights and inputs, so that many units are exactly 0 and differences are exact."""
    random = np.random.default_rng(seed)
    weights = {f"W{i}": random.integers(-2, 3, shape) for i, shape in enumerate([(6, 12), (6, 9), (3, 4)])}
    nodes = [
        ("MatMul", ["x", "W0"], "u", {}),
        ("Relu", ["u"], "h", {}),
        ("MaxPool", ["h"], "p", {"kernel_shape": [2], "strides": [2]}),
        ("MatMul", ["p", "W1"], "v", {}),
        ("LeakyRelu", ["v"], "k", {"alpha": 0.5}),
        ("MaxPool", ["k"], "q", {"kernel_shape": [3], "strides": [3]}),
        ("MatMul", ["q", "W2"], "y", {}),
    ]
    x = np.zeros((1, 1, 6), np.float32)
    x[..., :2] = random.integers(-1, 2, (1, 1, 2))
    proto = model(nodes, x.shape, weights)
    affine = ilin.compile(proto).at(x)
    assert affine.ties.matter > 0

    for _ in range(8):
        direction = random.integers(-64, 65, x.shape).astype(float)
        expected = difference(proto, x, direction, 2.0**-14)
        side = affine.ties.along(direction)

        np.testing.assert_array_equal(side.W @ direction.ravel(), expected)
        np.testing.assert_allclose(side.W @ x.ravel() + side.b, affine.y.ravel(), rtol=0, atol=1e-12)
        towards = (x + 2.0**-14 * direction).astype(np.float32)
        beyond = ilin.compile(proto).at(towards)
        if not beyond.ties.count:
            np.testing.assert_array_equal(side.W, beyond.W)
            np.testing.assert_array_equal(side.b, beyond.b)


@pytest.mark.parametrize(
    ("op", "attributes", "inputs"),
    [
        ("Relu", {}, {}),
        ("LeakyRelu", {"alpha": 0.25}, {}),
        ("PRelu", {}, {"slope": [0.5, 0.25, -1]}),
        ("Abs", {}, {}),
        ("Clip", {}, {"low": 0, "high": 1}),
        ("HardSigmoid", {"alpha": 0.5, "beta": 0.5}, {}),
        ("Max", {}, {"other": [[0, 1, 0]]}),
        ("Min", {}, {"other": [[0, 1, 0]]}),
        ("ReduceMax", {"keepdims": 0}, {}),
        ("ReduceMin", {"keepdims": 1}, {}),
        ("MaxPool", {"kernel_shape": [3], "pads": [1, 1]}, {}),
        ("GlobalMaxPool", {}, {}),
        ("ReduceL1", {}, {}),
    ],
)
def test_along_is_the_one_sided_derivative_of_each_operator(op, attributes, inputs):
    nodes = [(op, ["x", *inputs], "y", attributes)]
    random = np.random.default_rng(1)
    for _ in range(6):
        x = random.choice(np.float32([-1, -0.0, 0, 1]), (1, 2, 3))
        proto = model(nodes, x.shape, inputs)
        affine = ilin.compile(proto).at(x)
        for _ in range(4):
            direction = random.permutation(np.arange(-3.0, 4)[np.arange(7) != 3]).reshape(x.shape)
            side = affine.ties.along(direction)

            np.testing.assert_array_equal(
                side.W @ direction.ravel(), difference(proto, x, direction, 2.0**-12)
            )
            np.testing.assert_array_equal(side.W @ x.ravel() + side.b, affine.y.ravel())


def test_where_the_function_jumps_the_region_entered_has_its_own_offset():
    """Mod: beyond a multiple of 2, coming from below, y is 2 less."""
    affine = at([("Mod", ["x", "two"], "y", {"fmod": 1})], [[2]], {"two": 2})

    below = affine.ties.along([[-1]])

    assert (affine.W.tolist(), affine.b.tolist()) == ([[1]], [-2])
    assert (below.W.tolist(), below.b.tolist()) == ([[1]], [0])
    assert {(side.rows, side.change, side.offset) for side in affine.ties.sides} == {
        ((), 0.0, 0.0),
        ((0,), 0.0, 2.0),
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_witness_is_a_direction_of_the_reported_map(seed):
    random = np.random.default_rng(seed)
    proto = model(
        [
            ("MatMul", ["x", "W0"], "u", {}),
            ("Relu", ["u"], "h", {}),
            ("MatMul", ["h", "W1"], "y", {}),
        ],
        [1, 4],
        {"W0": random.integers(-2, 3, (4, 3)), "W1": random.integers(1, 3, (3, 2))},
    )
    affine = ilin.compile(proto).at(np.zeros((1, 4), np.float32))

    ties = affine.ties

    if ties.genuine:
        np.testing.assert_array_equal(ties.along(ties.witness.reshape(1, 4)).W, affine.W)
    else:  # then no direction leads below all three kinks: the columns of W0 are positively dependent
        assert (
            inner_direction(-np.asarray(numpy_helper.to_array(proto.graph.initializer[0]), float).T) is None
        )


def test_a_direction_within_a_half_space_is_found_or_there_is_none():
    assert (np.eye(3) @ inner_direction(np.eye(3)) > 0).all()
    assert inner_direction(np.array([[1.0, 0], [0, 1], [-1, -1]])) is None
    assert inner_direction(np.zeros((0, 2))) is not None


def test_in_float64_the_same():
    affine = at(ABSOLUTE, [[0, 2]], dtype=TensorProto.DOUBLE)

    assert affine.ties.along([[1, 0]]).W.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("name", ["vnncomp21__verivital_convnet_maxpool", "onnxzoo__cntk_mnist_8"])
def test_the_pools_of_published_networks(name):
    file = MODELS / f"{name}.onnx"
    if not file.exists():
        pytest.skip("the published models are not here")
    compiled, x = ilin.compile(file), np.load(file.with_suffix(".npy"))
    affine = compiled.at(x, rows=1)
    assert 0 < affine.ties.matter < affine.ties.count == affine.certificate.ties
    assert "may matter" in str(affine.certificate)

    direction = np.random.default_rng(1).standard_normal(x.shape)
    side = affine.ties.along(direction)
    near = compiled.at((x + 1e-6 * np.abs(x).max() * direction).astype(np.float32), rows=affine.rows)

    size = np.abs(near.W).max()
    np.testing.assert_allclose(near.W, side.W, rtol=0, atol=1e-5 * size)
    assert np.abs(near.W - affine.W).max() > 1e-2 * size


# -- jumps, refusals, travelling -----------------------------------------------------------------------


def test_a_jump_at_x_is_named():
    affine = at([("Floor", ["x"], "f", {}), ("Relu", ["x"], "h", {}), ("Add", ["f", "h"], "y", {})], [[0]])

    assert affine.ties.genuine is None  # a region's choices end at a jump on either side
    assert affine.ties.along([[1]]).W.tolist() == [[1]]
    with pytest.raises(ilin.UnsupportedError, match=r"node 'f' \(Floor\) jumps at x in this direction"):
        affine.ties.along([[-1]])
    assert sum(bool(side.note) for side in affine.ties.sides) == 1


def test_a_direction_of_another_shape_is_refused():
    ties = at(ABSOLUTE, [[0, 2]]).ties

    with pytest.raises(ilin.IlinError, match=r"input 'x' has shape \[1, 2\], but direction has shape \[3\]"):
        ties.along([1, 2, 3])
    with pytest.raises(ilin.IlinError, match="direction holds NaN or an infinity"):
        ties.along([[1, np.nan]])
    with pytest.raises(ilin.OptionError, match="direction is zero"):
        ties.along([[0, 0]])


def test_the_certificate_tells_what_is_known():
    affine = at(ABSOLUTE, [[0, 2]])

    assert "; 2 ties, not examined" in str(affine.certificate)
    assert affine.certificate.ties_that_matter is None
    _ = affine.ties
    assert "; 2 ties, 2 may matter: their choices are those of no region" in str(affine.certificate)
    assert (affine.certificate.ties_that_matter, affine.certificate.ties_genuine) == (2, False)


def test_the_saved_file_keeps_what_was_examined(tmp_path):
    affine = at(ABSOLUTE, [[0, 2]])
    affine.save(tmp_path / "unseen.npz")
    ties = affine.ties
    affine.save(tmp_path / "seen.npz")

    loaded = ilin.load(tmp_path / "seen.npz")

    assert loaded.ties.as_dict() == ties.as_dict()
    assert loaded.certificate == affine.certificate
    with pytest.raises(ilin.IlinError, match="linearize again for along"):
        loaded.ties.along([[1, 0]])
    with pytest.raises(ilin.IlinError, match="before its ties were examined"):
        _ = ilin.load(tmp_path / "unseen.npz").ties
    travelled = pickle.loads(pickle.dumps(affine))
    assert travelled.ties.as_dict() == ties.as_dict()


def test_derivatives_that_are_rounding_alone_count_as_0():
    moved = nudged({"a": np.zeros(3)}, {"a": np.array([[1, 1e-16, -1e-16], [0, 0, 0]])})

    assert moved["a"][0] > 0
    assert moved["a"][1:].tolist() == [0, 0]


def test_slopes_of_very_different_sizes_are_resolved_or_stay():
    """A slope 10⁻¹⁴ of the other's may be rounding: its unit keeps the convention, and nothing is refused."""
    affine = at([("Mul", ["x", "w"], "u", {}), ("Relu", ["u"], "y", {})], [[0, 0]], {"w": [1, 1e-14]})

    assert affine.ties.along([[1, 1]]).W.tolist() == [[1, 0], [0, 0]]


def test_without_W_the_same_is_found():
    affine = ilin.compile(model(BOTH_ENDS, [1, 2])).at(np.float32([[1, 1]]), materialize=False)

    assert affine.ties.genuine is False
    assert affine.ties.along([[1, 0]]).W.tolist() == [[1, 1]]


# -- how values are nudged -----------------------------------------------------------------------------


def test_nudged_values_are_in_the_order_of_values_and_then_of_derivatives():
    random = np.random.default_rng(0)
    u = random.choice(np.float32([-1.5, -0.0, 0.0, 1e-30, 3, np.nextafter(np.float32(3), 4)]), 60).astype(
        float
    )
    s = random.choice([-3.0, -2.0, 0, 2.0, 2.0 + 1e-9], (2, 60))

    moved = nudged({"a": u[:25], "b": u[25:]}, {"a": s[:, :25], "b": s[:, 25:]})

    found = np.concatenate([moved["a"], moved["b"]])
    keys = [(value, *way) for value, way in zip(u + 0.0, s.T, strict=True)]
    for i, one in enumerate(keys):
        for j, other in enumerate(keys):
            assert (one < other) == (found[i] < found[j])
            assert (one == other) == (found[i] == found[j])
    still = ~s.any(axis=0)
    np.testing.assert_array_equal(found[still], u[still])
    assert np.abs(found - u).max() < 1e-13
