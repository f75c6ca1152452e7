"""What lowering keeps from point to point changes nothing, and follows what a point decides."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin

RANDOM = np.random.default_rng(3)


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def convolutional():
    """Conv, Relu, MaxPool, a residual sum, a gate that is held, and a Gemm, for any batch and image size."""
    parameters = {
        "w": weights(4, 3, 3, 3),
        "c": weights(4),
        "v": weights(4, 4, 3, 3),
        "M": weights(5, 4),
        "m": weights(5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "c"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "v"], ["q"], pads=[1] * 4),
        helper.make_node("Add", ["p", "q"], ["s"]),
        helper.make_node("LeakyRelu", ["s"], ["r"]),
        helper.make_node("Mul", ["r", "gate"], ["g"]),
        helper.make_node("GlobalAveragePool", ["g"], ["h"]),
        helper.make_node("Flatten", ["h"], ["f"]),
        helper.make_node("Gemm", ["f", "M", "m"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "height", "width"]),
            helper.make_tensor_value_info("gate", TensorProto.FLOAT, ["n", 4, 1, 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in parameters.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(batch, height, width):
    return {"x": weights(batch, 3, height, width), "gate": weights(batch, 4, 1, 1)}


def lowered(compiled, point):
    return compiled._lower(compiled._observer.trace(point))


def assert_same(one, other):
    """Everything that a program says, array by array."""
    assert (one.inputs, one.outputs, one.kind) == (other.inputs, other.outputs, other.kind)
    assert (one.in_size, one.out_size) == (other.in_size, other.out_size)
    assert one.last_uses() == other.last_uses()
    assert one.structure() == other.structure()
    assert str(one) == str(other)
    assert len(one.steps) == len(other.steps)
    for a, b in zip(one.steps, other.steps, strict=True):
        for name in ("output", "shape", "node", "op_type", "kind", "fixed", "rounds", "operands", "fan_in"):
            assert getattr(a, name) == getattr(b, name), (a.node, name)
        assert one.has_slot(a) == other.has_slot(b)
        assert a.terms == b.terms
        for name in ("offset", "offset_size"):
            mine, its = getattr(a, name), getattr(b, name)
            assert (mine is None) == (its is None)
            if mine is not None:
                np.testing.assert_array_equal(mine, its)
        for mine, its in zip(a.guards, b.guards, strict=True):
            np.testing.assert_array_equal(mine.choice, its.choice)
            np.testing.assert_array_equal(mine.margin, its.margin)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_program_is_that_of_a_fresh_lowering_at_other_points_and_shapes(dtype):
    proto = convolutional()
    kept = ilin.compile(proto, inputs=["x"], dtype=dtype)
    for size in ((1, 6, 6), (1, 6, 6), (2, 6, 6), (1, 8, 4), (1, 6, 6)):
        point = feeds(*size)
        assert_same(lowered(kept, point), lowered(ilin.compile(proto, inputs=["x"], dtype=dtype), point))


def test_programs_of_the_same_shapes_share_their_layout():
    compiled = ilin.compile(convolutional(), inputs=["x"])
    here, there, larger = (lowered(compiled, feeds(*size)) for size in ((1, 6, 6), (1, 6, 6), (1, 8, 8)))

    assert here.layout is there.layout
    assert here.structure() == there.structure()
    assert hash(here.structure()) == hash(there.structure())
    assert here.structure() != larger.structure()


def test_fixed_steps_are_kept_and_the_others_are_not():
    compiled = ilin.compile(convolutional(), inputs=["x"])
    here, there = (lowered(compiled, feeds(1, 6, 6)) for _ in range(2))

    kept = {a.op_type: a is b for a, b in zip(here.steps, there.steps, strict=True)}
    assert kept == {
        "Conv": True,
        "Relu": False,
        "MaxPool": False,
        "Add": True,
        "LeakyRelu": False,
        "Mul": False,
        "GlobalAveragePool": True,
        "Flatten": True,
        "Gemm": True,
    }


def test_the_structure_follows_a_shape_that_is_given_as_a_value():
    """A Reshape to a shape that is an input: same shapes at the inputs, another program."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("Relu", ["r"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [12]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    compiled = ilin.compile(proto, engine="adjoint")
    x = weights(12)
    programs = []
    for shape in ((3, 4), (2, 6), (3, 4)):
        point = {"x": x, "shape": np.int64(shape)}
        program = lowered(compiled, point)
        assert program.outputs == (("y", shape),)
        programs.append(program)
        affine = compiled.at(point)
        assert affine.output_shapes == {"y": shape}
        np.testing.assert_array_equal(affine.W, np.diag(x > 0))
    assert programs[0].structure() != programs[1].structure()
    assert programs[0].structure() == programs[2].structure()


def test_the_structure_follows_a_held_operand_of_another_shape():
    """Mul by a held scalar, then by a held vector: the emitted graph has to take either."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "gate"], ["y"])],
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("gate", TensorProto.FLOAT, [1, "any"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    compiled = ilin.compile(proto, inputs=["x"], engine="adjoint")
    structures = []
    for gate in (np.float32([[2.0]]), np.float32([[1.0, 0.0, -1.0, 3.0]])):
        point = {"x": weights(1, 4), "gate": gate}
        structures.append(lowered(compiled, point).structure())
        np.testing.assert_array_equal(compiled.at(point).W, np.diag(np.broadcast_to(gate[0], 4)))
    assert structures[0] != structures[1]


def test_a_huge_but_finite_value_is_no_infinity():
    """Its square overflows, which the quick test for finite values has to survive without a warning."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    affine = ilin.linearize(proto, np.float32([3e30, -3e30, 1]))

    np.testing.assert_array_equal(affine.W, np.diag([1, 0, 1]))
    with pytest.raises(ilin.IlinError, match="an infinity"):
        ilin.linearize(proto, np.float32([np.inf, 0, 1]))
