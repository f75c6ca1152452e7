"""Builder: linear primitives as the nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .arrays import Array, Shape

OPSET = 18  # the first with everything that primitives emit; onnxruntime has run it since 1.14

_MEANINGS = {
    "slope": "node {!r} at x: what each entry is multiplied by (a mask: which entries pass)",
    "winner": "node {!r} at x: flat position, in the node's input, of the entry that each output takes",
    "offset": "node {!r} at x: what it adds whatever its input is",
    "weight": "node {!r} at x: the weight that it multiplies its input by",
}


class Builder:
    """Collects nodes, weights and inputs. Tensors are named by strings; blocks have the batch axis first.

    Arrays are of two sorts. Those of steps that are the same at every point become initializers. Those
    that a point decides (slopes, winners, offsets) become graph inputs, named by their role and their node
    such as "slope/relu_1": `arrays` holds this point's, in the order of emission, so that emitting another
    point's program gives the values to feed.
    """

    def __init__(self, dtype: np.dtype[Any], *, collect_only: bool = False, prefix: str = "") -> None:
        """Start an empty graph.

        Args:
            dtype: floating type of all values.
            collect_only: make no nodes, and only collect the arrays that a point decides.
            prefix: of the names of all tensors that are made.
        """
        self.dtype = dtype
        self.fixed = True  # whether the arrays that come next are the same at every point
        self.subject = ""  # the node that they belong to
        self.arrays: dict[str, Array] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.collect_only = collect_only
        self.supplied: Iterator[str] | None = None  # tensors that stand for the arrays to come, not inputs
        self._prefix = prefix
        self._known: dict[int, tuple[Array, str]] = {}
        self._shapes: dict[str, Shape] = {}  # of blocks, behind their first axis, where known
        self._viewed: dict[str, str] = {}  # a reshaped block to what it was reshaped from
        self._scaled: dict[str, tuple[str, str]] = {}  # a scaled block to the block and the factor
        self._count = 0

    # -- nodes and arrays ------------------------------------------------------------------------------

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = self._name(op_type.lower())
        if not self.collect_only:
            self.nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))
        return output

    def second(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its second output; the first is not needed."""
        outputs = [self._name(op_type.lower()), self._name(op_type.lower())]
        if not self.collect_only:
            self.nodes.append(helper.make_node(op_type, list(inputs), outputs, **attributes))
        return outputs[1]

    def array(self, value: Array, role: str) -> str:
        """A floating or index array that the current step multiplies or selects by; booleans come as 0 and 1.

        Args:
            value: the array.
            role: what it is to its node, such as "slope".
        """
        floating = value.dtype.kind in "fb"
        if self.fixed:
            return self.constant(value.astype(self.dtype if floating else np.int64, copy=False))
        if value.dtype != bool:
            value = value.astype(self.dtype if floating else np.int64, copy=False)
        name = self._unique(f"{role}/{self.subject.strip('/')}")
        self.arrays[name] = value
        if self.supplied is not None:
            name = next(self.supplied)
        else:
            name = self.input(name, value.dtype, value.shape, _MEANINGS[role].format(self.subject))
        if value.dtype == bool or (floating and self.supplied is not None):
            return self.node("Cast", name, to=helper.np_dtype_to_tensor_dtype(self.dtype))
        return name

    def constant(self, value: Array | Sequence[int]) -> str:
        """An array that is part of the graph's structure. A list of integers is a shape or axes."""
        if self.collect_only:
            return ""
        array = np.asarray(value, np.int64) if isinstance(value, Sequence) else value
        known = self._known.get(id(value))
        if known is not None and known[0] is value:
            return known[1]
        name = self._name("w")
        self.initializers.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
        if not isinstance(value, Sequence):
            self._known[id(value)] = (value, name)
        return name

    def input(self, name: str, dtype: Any, shape: Sequence[int | str], meaning: str = "") -> str:
        """Declare a graph input."""
        if not self.collect_only:
            element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            self.inputs.append(helper.make_tensor_value_info(name, element, list(shape), meaning))
        return name

    # -- blocks ----------------------------------------------------------------------------------------

    def shaped(self, x: str, shape: Sequence[int]) -> str:
        """Note that a block has the shape (any, *shape), so that no node reshapes it to what it is."""
        self._shapes[x] = tuple(shape)
        return x

    def cast(self, x: str, dtype: Any) -> str:
        """Another element type."""
        return self.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Reshape a block to (any, *shape)."""
        source = self._viewed.get(x, x)
        if self._shapes.get(source) == tuple(shape):
            return source
        if 0 in shape:
            rows = self.node("Shape", x, start=0, end=1)
            put = self.node("Concat", rows, self.constant(list(shape)), axis=0)
            return self.shaped(self.node("Reshape", x, put, allowzero=1), shape)
        viewed = self.shaped(self.node("Reshape", source, self.constant([-1, *shape])), shape)
        self._viewed[viewed] = source
        return viewed

    def bare(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """A block (B, *shape) without leading axes of length 1, where it was made without them.

        Returns:
            The block's name and its shape behind the batch axis.
        """
        source = self._viewed.get(x, x)
        made = self._shapes.get(source)
        if made is None:  # a source whose shape was not noted may have been reshaped in any way
            return x, shape
        lead = len(shape) - len(made)
        same = lead >= 0 and shape == (1,) * lead + made
        return (source, made) if same else (x, shape)

    def scaled(self, x: str, factor: str) -> str:
        """A block times a factor, where the factor is the same for all rows of the block.

        Factors in a row are multiplied with each other first, which costs one row, not the block.
        """
        if x in self._scaled:
            x, first = self._scaled[x]
            factor = self.node("Mul", first, factor)
        product = self.node("Mul", x, factor)
        self._scaled[product] = (x, factor)
        return product

    def added(self, parts: Sequence[str], shape: Shape) -> str:
        """The sum of blocks (B, *shape)."""
        if len(parts) == 1:
            return parts[0]
        bared = [self.bare(part, shape) for part in parts]
        if len({own for _, own in bared}) > 1:
            bared = [(self.reshape(part, shape), shape) for part in parts]
        total, own = bared[0]
        for name, _ in bared[1:]:  # onnxruntime's Sum is slower than its Add
            total = self.node("Add", total, name)
        return self.reshape(self.shaped(total, own), shape)

    # -- the whole -------------------------------------------------------------------------------------

    def named(self, name: str, x: str) -> str:
        """Give a tensor the name of a graph output."""
        self.nodes.append(helper.make_node("Identity", [x], [self._prefix + name]))
        return self._prefix + name

    def model(
        self, outputs: Mapping[str, Sequence[int | str]], name: str, description: str = ""
    ) -> onnx.ModelProto:
        """The finished model; `outputs` maps tensor names to shapes."""
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        nodes, read = needed(self.nodes, outputs)
        graph = helper.make_graph(
            nodes,
            name,
            [put for put in self.inputs if put.name in read],
            [helper.make_tensor_value_info(put, element, list(shape)) for put, shape in outputs.items()],
            [tensor for tensor in self.initializers if tensor.name in read],
            doc_string=description,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="ilin"
        )

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{self._prefix}{stem}_{self._count}"

    def _unique(self, name: str) -> str:
        """The name, or with _2, _3, … behind it where it is taken."""
        candidate, taken = name, 1
        while candidate in self.arrays:
            taken += 1
            candidate = f"{name}_{taken}"
        return candidate


def needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that an output depends on, and all tensors that are read: views may be left over."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(node.input)
    return kept[::-1], read
