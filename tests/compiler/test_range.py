"""Values near the end of a type's range: bounds stay finite, and one that is not is compared with nothing."""

import numpy as np
import pytest
from onnx import TensorProto, helper

import ilin
from ilin.compiler import verify

TYPES = {
    "float16": (TensorProto.FLOAT16, np.float16, 2e4, "float32"),
    "float32": (TensorProto.FLOAT, np.float32, 1e38, "float32"),
    "float64": (TensorProto.DOUBLE, np.float64, 5e307, "float64"),
}


def summing(onnx_type, *, relu=True):
    """The sum of three entries, of their positive parts or as they are."""
    nodes = [
        helper.make_node("Relu" if relu else "Identity", ["x"], ["r"]),
        helper.make_node("ReduceSum", ["r"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("x", onnx_type, [3])],
        [helper.make_tensor_value_info("y", onnx_type, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("engine", ["sparse", "matrix-free", "adjoint"])
@pytest.mark.parametrize("name", TYPES)
def test_near_the_end_of_the_range(name, engine, tmp_path):
    onnx_type, dtype, size, composed = TYPES[name]
    if engine == "adjoint" and composed == "float64":
        pytest.skip("onnxruntime sweeps in float32")
    x = np.array([1, 2, -3], dtype) * dtype(size)
    affine = ilin.linearize(summing(onnx_type), x, dtype=composed, engine=engine)
    np.testing.assert_array_equal(affine.W, [[1, 1, 0]])
    assert affine.certificate.verified, str(affine.certificate)
    assert affine.certificate.points_held
    affine.save(tmp_path / "map.npz")
    assert np.isfinite(ilin.load(tmp_path / "map.npz").record.bounds).all()
    assert affine.certify_deeply().verified, str(affine.certificate)


@pytest.mark.filterwarnings("error")
def test_sizes_that_leave_a_range_which_their_sum_stays_in():
    x = np.array([3e38, -3e38, 1e38], np.float32)  # |x| sums to 7e38
    affine = ilin.linearize(summing(TensorProto.FLOAT, relu=False), x)
    assert affine.certificate.verified, str(affine.certificate)
    bounds = affine.record.bounds
    assert np.isfinite(bounds).all()
    assert (bounds < 1e34).all()  # some units of rounding of 7e38, rather than anything


def test_a_wrong_map_there_is_told_from_a_right_one():
    x = np.array([1, 2, -3], np.float32) * np.float32(1e38)
    found = verify.over(np.array([1.0]), np.array([np.inf]))
    assert np.isnan(found)
    compiled = ilin.compile(summing(TensorProto.FLOAT))
    asked = compiled._asked(x, "all")
    composed = compiled._compose(asked)
    composed.W[0, 2] = 0.01
    wrong = compiled._answer(asked, composed)
    assert not wrong.certificate.verified
    assert "nan" not in str(wrong.certificate)


def test_a_bound_outside_float64_is_neither_compared_nor_saved(tmp_path):
    x = np.array([1.5e308, -1.5e308, 1e308])
    affine = ilin.linearize(summing(TensorProto.DOUBLE, relu=False), x, dtype="float64")
    assert not affine.certificate.verified
    assert "leaves the range of float64" in affine.certificate.reason
    affine.save(tmp_path / "map.npz")
    assert ilin.load(tmp_path / "map.npz").record is None


def test_tiny_values_in_float64_get_bounds_of_their_own_size():
    x = np.array([1e-60, 2e-60, -3e-60])
    affine = ilin.linearize(summing(TensorProto.DOUBLE), x, dtype="float64")
    record = affine.record
    assert record.bounds.max() < 1e-74
    assert len(record.interior.bounds)
    assert record.interior.bounds.max() < 1e-74
    found = affine.certify_deeply()
    assert found.verified
    assert found.double.points
    assert found.double.moved_over_bound > 1e9  # W = 0 would be noticed
