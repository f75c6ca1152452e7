"""A model with every floating tensor in float64, which onnx's reference evaluator then computes in.

It is plain numpy and mostly ignores declared types: this is a matter of weights, casts and constants.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def as_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in float64; it is not changed. Its tensors must not be external data."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen_graph(wide.graph)
    for function in wide.functions:
        _widen_nodes(function.node)
    return wide


def widened(value: Array) -> Array:
    """A floating array in float64, any other as it is."""
    floating = value.dtype.kind == "f" or value.dtype.name == "bfloat16"
    return value.astype(np.float64) if floating else value


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
