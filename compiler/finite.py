"""Masks that hold infinities, as finite numbers.

A causal mask is often a constant of zeros and -inf that is added to scores, or chosen by Where, before a
softmax. A linear map has no infinite entries, so an infinite constant is replaced by a quarter of the largest
number of the model's floating type: a few of them can be added, and exp takes what is so negative to 0 alike.
What comes out is compared with the model as it is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..runtime.surroundings import is_external
from .graph import is_floating


def holds_infinities(model: onnx.ModelProto) -> bool:
    """Whether a constant of the model is infinite."""
    numbers = (number for literal in _literals(model.graph) for number in (literal.f, *literal.floats))
    return any(map(_is_infinite, _tensors(model.graph))) or any(map(np.isinf, numbers))


def with_finite_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose infinite constants are large numbers instead; the model itself where it has none."""
    if not holds_infinities(model):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in _tensors(copy.graph):
        if _is_infinite(tensor):
            value = numpy_helper.to_array(tensor)
            large = _large(copy.graph, value.dtype)
            finite = np.where(np.isinf(value), np.copysign(large, value), value).astype(value.dtype)
            tensor.CopyFrom(numpy_helper.from_array(finite, tensor.name))
    large = _large(copy.graph, np.dtype(np.float32))
    for literal in _literals(copy.graph):
        if np.isinf(literal.f):
            literal.f = np.copysign(large, literal.f)
        if any(map(np.isinf, literal.floats)):
            literal.floats[:] = [np.copysign(large, f) if np.isinf(f) else f for f in literal.floats]
    return copy


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Initializers and tensors in attributes, those of subgraphs included."""
    found = list(graph.initializer)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        found += [attribute.t] if attribute.HasField("t") else []
        for inner in (attribute.g, *attribute.graphs):
            found += _tensors(inner)
    return found


def _literals(graph: onnx.GraphProto) -> list[onnx.AttributeProto]:
    """Attributes of Constant nodes, those of subgraphs included."""
    found = []
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute] if node.op_type == "Constant" else []
            for inner in (attribute.g, *attribute.graphs):
                found += _literals(inner)
    return found


def _is_infinite(tensor: onnx.TensorProto) -> bool:
    if is_external(tensor) or not is_floating(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)):
        return False
    return bool(np.isinf(numpy_helper.to_array(tensor).astype(np.float64)).any())


def _large(graph: onnx.GraphProto, dtype: np.dtype[Any]) -> float:
    """What stands for infinity: it must fit half precision where some tensor is, or becomes, of that type."""
    half = onnx.TensorProto.FLOAT16
    puts = (*graph.input, *graph.output, *graph.value_info)
    casts = (a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to")
    declared = (put.type.tensor_type.elem_type for put in puts)
    types = (*declared, *casts, *(tensor.data_type for tensor in graph.initializer))
    return float(np.finfo(np.float16 if half in types else dtype).max) / 4
