"""A model in float64: every floating tensor, attribute and cast that says float32 or less says float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .arrays import Array

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
_TYPE_ATTRIBUTES = {
    ("Cast", "to"),
    ("EyeLike", "dtype"),
    ("GroupNormalization", "stash_type"),
    ("Attention", "softmax_precision"),
}


def as_float64(model: onnx.ModelProto, constants: Mapping[str, Array] | None = None) -> onnx.ModelProto:
    """The same model with every floating tensor in float64.

    Not every evaluator takes it: some operators want a float32 beside a float64, such as Resize's scales.

    Args:
        model: a model with its data inside. It is not changed.
        constants: tensors without an input behind them, and their values. They are computed in the model's
            own type otherwise, and their rounding is part of the model: what is widened is what they are.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    if constants:
        _hold(wide.graph, constants)
    _widen_graph(wide.graph)
    for function in wide.functions:
        _widen_nodes(function.node)
    return wide


def widened(value: Array) -> Array:
    """A floating array in float64, any other as it is."""
    return value.astype(np.float64) if is_floating(value) else value


def is_floating(value: Array) -> bool:
    """Whether an array holds floating-point numbers, bfloat16 included."""
    return value.dtype.kind == "f" or value.dtype.name == "bfloat16"


def _hold(graph: onnx.GraphProto, constants: Mapping[str, Array]) -> None:
    """Initializers in place of the nodes that compute nothing else."""
    held = [node for node in graph.node if node.output and all(name in constants for name in node.output)]
    for node in held:
        graph.node.remove(node)
        graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in node.output)


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for put in (*graph.input, *graph.output, *graph.value_info):
        if put.type.tensor_type.elem_type in FLOATS:
            put.type.tensor_type.elem_type = TensorProto.DOUBLE
    _widen_nodes(graph.node)


def _widen_nodes(nodes: Sequence[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.op_type == "GroupNormalization" and all(a.name != "stash_type" for a in node.attribute):
            node.attribute.append(helper.make_attribute("stash_type", TensorProto.FLOAT))  # the default
        for attribute in node.attribute:
            if (node.op_type, attribute.name) in _TYPE_ATTRIBUTES and attribute.i in FLOATS:
                attribute.i = TensorProto.DOUBLE
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.HasField("g"):
                _widen_graph(attribute.g)
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                value = np.asarray(helper.get_attribute_value(attribute), np.float64)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(value)))


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in FLOATS - {TensorProto.DOUBLE}:
        tensor.CopyFrom(numpy_helper.from_array(widened(numpy_helper.to_array(tensor)), tensor.name))
