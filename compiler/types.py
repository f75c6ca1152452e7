"""Types of tensors before anything runs, by onnx's shape inference."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from ..expansions import Tensor

_SMALL = 1024  # entries up to which shape inference is shown the value of an initializer


def inferred(model: onnx.ModelProto) -> tuple[dict[str, Tensor], set[str]]:
    """Types of tensors, as far as shape inference finds them, and the names of what is no tensor.

    It is shown small initializers only: large ones cost a copy, and their values tell nothing of shapes.
    """
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name or "graph"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    declared = {put.name for put in model.graph.input}
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= _SMALL:
            light.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    found = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    types, containers = {}, set()
    for put in (*found.input, *found.value_info):
        if put.type.HasField("tensor_type"):
            types[put.name] = _tensor(put.type.tensor_type)
        else:
            containers.add(put.name)
    for tensor in model.graph.initializer:
        types[tensor.name] = Tensor(tensor.data_type, tuple(tensor.dims))
    return types, containers


def _tensor(put: onnx.TypeProto.Tensor) -> Tensor:
    if not put.HasField("shape"):
        return Tensor(put.elem_type, None)
    dims = (dim.dim_value if dim.HasField("dim_value") else None for dim in put.shape.dim)
    return Tensor(put.elem_type, tuple(dims))
