"""Builder: linear primitives as the nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .arrays import Array

OPSET = 18  # the first with everything that primitives emit; onnxruntime has run it since 1.14


class Builder:
    """Collects nodes, weights and inputs. Tensors are named by strings; blocks have the batch axis first.

    Arrays are of two sorts. Those of steps that are the same at every point become initializers. Those
    that a point decides (slopes, winners, offsets) become graph inputs, numbered in the order of emission:
    `arrays` holds this point's, so that emitting another point's program gives the values to feed.
    """

    def __init__(self, dtype: np.dtype[Any], *, collect_only: bool = False) -> None:
        """Start an empty graph.

        Args:
            dtype: floating type of all values.
            collect_only: make no nodes, and only collect the arrays that a point decides.
        """
        self.dtype = dtype
        self.fixed = True  # whether the arrays that come next are the same at every point
        self.arrays: dict[str, Array] = {}
        self._collect_only = collect_only
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._known: dict[int, tuple[Array, str]] = {}
        self._count = 0

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = self._name(op_type.lower())
        if not self._collect_only:
            self._nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))
        return output

    def array(self, value: Array) -> str:
        """A floating or index array that the current step multiplies or selects by."""
        if value.dtype.kind in "fb":
            value = value.astype(self.dtype, copy=False)
        else:
            value = value.astype(np.int64, copy=False)
        if self.fixed:
            return self.constant(value)
        name = f"at_x_{len(self.arrays)}"
        self.arrays[name] = value
        self.input(name, value.dtype, value.shape)
        return name

    def constant(self, value: Array | Sequence[int]) -> str:
        """An array that is part of the graph's structure. A list of integers is a shape or axes."""
        if self._collect_only:
            return ""
        array = np.asarray(value, np.int64) if isinstance(value, Sequence) else value
        known = self._known.get(id(value))
        if known is not None and known[0] is value:
            return known[1]
        name = self._name("w")
        self._initializers.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
        if not isinstance(value, Sequence):
            self._known[id(value)] = (value, name)
        return name

    def input(self, name: str, dtype: Any, shape: Sequence[int | str]) -> str:
        """Declare a graph input."""
        if not self._collect_only:
            element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            self._inputs.append(helper.make_tensor_value_info(name, element, list(shape)))
        return name

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Reshape a block to (B, *shape)."""
        return (
            self.node("Reshape", x, self.constant([-1, *shape])) if 0 not in shape else self._empty(x, shape)
        )

    def _empty(self, x: str, shape: Sequence[int]) -> str:
        rows = self.node("Shape", x, start=0, end=1)
        return self.node(
            "Reshape", x, self.node("Concat", rows, self.constant(list(shape)), axis=0), allowzero=1
        )

    def named(self, name: str, x: str) -> None:
        """Give a tensor the name of a graph output."""
        self._nodes.append(helper.make_node("Identity", [x], [name]))

    def model(self, outputs: dict[str, Sequence[int | str]], name: str, description: str) -> onnx.ModelProto:
        """The finished model; `outputs` maps tensor names to shapes."""
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            self._nodes,
            name,
            self._inputs,
            [helper.make_tensor_value_info(put, element, list(shape)) for put, shape in outputs.items()],
            self._initializers,
            doc_string=description,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="ilin"
        )

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
