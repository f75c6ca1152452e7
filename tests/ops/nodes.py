"""Models of one node, for what the backend's own cases leave out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from ..conformance.cases import Case
from ..conformance.oracle import onnxruntime_of

_AROUND = 17  # the opset of ai.onnx beside a node of another domain
Values = Mapping[str, np.ndarray | None]


def case_of(
    op_type: str,
    inputs: Values,
    opset: int,
    outputs: int = 1,
    *,
    domain: str = "",
    output: int = 0,
    **attributes: object,
) -> Case:
    """One node, all of whose inputs are graph inputs; None leaves an optional one out.

    The graph's output is the node's first, or the one at another position, y, in the shape in which
    onnxruntime computes it. The opset is that of the node's domain.
    """
    given = {name: np.asarray(value) for name, value in inputs.items() if value is not None}
    names = [name if name in given else "" for name in inputs]
    results = [f"y{i}" if i != output else "y" for i in range(max(outputs, output + 1))]
    node = helper.make_node(op_type, names, results, domain=domain, **attributes)
    puts = [_declared(name, value) for name, value in given.items()]
    y = onnxruntime_of(_model(node, puts, onnx.ValueInfoProto(name="y"), opset))(given)["y"]
    return Case(op_type, _model(node, puts, _declared("y", y), opset), tuple(given.values()))


def _declared(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _model(
    node: onnx.NodeProto, puts: list[onnx.ValueInfoProto], result: onnx.ValueInfoProto, opset: int
) -> onnx.ModelProto:
    graph = helper.make_graph([node], "one", puts, [result])
    opsets = {"": _AROUND, node.domain: opset}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def in_type(inputs: Values, dtype: str) -> Values:
    """The same inputs with those in float32 in another floating type."""
    return {
        name: value.astype(dtype) if value is not None and value.dtype == np.float32 else value
        for name, value in inputs.items()
    }
