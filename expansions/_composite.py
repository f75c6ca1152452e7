"""What an expansion sees, and writes to (`Composite`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..runtime.errors import UnsupportedError
from ..runtime.primitives import Array, Shape

MOST_NODES = 200_000  # of an expanded model; lowering that many takes minutes and gigabytes


@dataclass(frozen=True)
class Facts:
    """What is known of a node's inputs at x, by position."""

    values: Mapping[int, Array] = field(default_factory=dict)
    shapes: Mapping[int, Shape] = field(default_factory=dict)
    trips: int | None = None  # how often it runs its body


@dataclass(frozen=True)
class Tensor:
    """The type of a tensor, as far as shape inference finds it."""

    element: int  # of onnx.TensorProto.DataType
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Held:
    """An optional that holds a tensor."""

    tensor: str


Container = list[str] | Held | None  # a sequence of tensors, an optional, an optional without a value
Result = str | Container  # a tensor, or one of these


class Names:
    """Gives out names that nothing else has."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    def fresh(self, name: str) -> str:
        """The name, with a number behind it where it is taken."""
        count, made = 1, name
        while made in self._taken:
            count += 1
            made = f"{name}_{count}"
        self._taken.add(made)
        return made


class Composite:
    """A node to be written out in simpler nodes, and the nodes so far.

    An expansion reads the node's attributes, the names of its inputs, and the facts that it is registered to
    need. It adds nodes with `node`, arrays with `constant` and whole subgraphs with `inline`, and returns
    the tensors that stand for the node's outputs.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        opset: int,
        facts: Facts,
        names: Names,
        types: Mapping[str, Tensor],
        sequences: Mapping[str, Container],
    ) -> None:
        self.proto, self.opset, self.facts, self.sequences = proto, opset, facts, sequences
        self.inputs, self.outputs = tuple(proto.input), tuple(proto.output)
        self.label = proto.name or next((name for name in proto.output if name), proto.op_type)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.decisions: list[tuple[str, Array]] = []  # tensors that decided how, beside the facts
        self.part = ""  # put behind the label in the names of what is written, such as a step's number
        self._names, self._types = names, types
        self._shared: dict[int, dict[str, str]] = {}  # initializers of a subgraph, copied once
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    # -- what is known of the node -----------------------------------------------------------------------

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, texts as str, or `default` where the node has none."""
        if name not in self._attributes:
            return default
        value = helper.get_attribute_value(self._attributes[name])
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [item.decode() if isinstance(item, bytes) else item for item in value]
        return value

    def has(self, position: int) -> bool:
        """Whether an input is present."""
        return position < len(self.inputs) and bool(self.inputs[position])

    def value(self, position: int) -> Array | None:
        """Value at x of an input; None where it is left out, or typical facts do not give one."""
        return self.facts.values.get(position)

    def shape(self, position: int) -> Shape:
        """Shape at x of an input."""
        return self.facts.shapes[position]

    def integer(self, position: int, default: int) -> int:
        """A value that is one integer, or `default` where the input is left out."""
        value = self.value(position)
        return default if value is None else int(np.ravel(value)[0])

    def elements(self, position: int) -> list[str]:
        """The tensors of a sequence."""
        tensors = self.sequences[self.inputs[position]]
        assert isinstance(tensors, list)
        return tensors

    def element_type(self, position: int) -> int:
        """Element type of an input, onnx.TensorProto.FLOAT where nobody knows."""
        known = self._types.get(self.inputs[position])
        return known.element if known else int(onnx.TensorProto.FLOAT)

    def dtype(self, position: int) -> np.dtype[Any]:
        """The same as a numpy dtype."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.element_type(position)))

    def type_protos(self) -> list[onnx.TypeProto]:
        """The types of all inputs."""
        found = []
        for position, name in enumerate(self.inputs):
            if not name:
                found.append(onnx.TypeProto())
                continue
            known = self._types.get(name)
            found.append(
                helper.make_tensor_type_proto(self.element_type(position), known.shape if known else None)
            )
        return found

    def refuse(self, reason: str) -> UnsupportedError:
        """An error that names this node."""
        return UnsupportedError(
            f"node {self.label!r} ({self.proto.op_type}, {self.proto.domain or 'ai.onnx'} opset "
            f"{self.opset}): {reason}"
        )

    # -- what is written ---------------------------------------------------------------------------------

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        return self.nodes_of(op_type, *inputs, count=1, **attributes)[0]

    def nodes_of(self, op_type: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs, and return their names."""
        name = self._names.fresh(f"{self.label}/{self.part}{op_type}")
        outputs = [name] if count == 1 else [self._names.fresh(f"{name}/{i}") for i in range(count)]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name=name, **attributes))
        return outputs

    def constant(self, value: Array | Sequence[int] | int, dtype: Any = None) -> str:
        """Add an array; integers as int64 where no dtype is given."""
        name = self._names.fresh(f"{self.label}/{self.part}constant")
        given = dtype or (np.int64 if not isinstance(value, np.ndarray) else None)
        array = np.asarray(value, given)
        self.initializers.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
        return name

    def squeeze(self, tensor: str, axis: int) -> str:
        """Without an axis of one entry."""
        return self._axis("Squeeze", tensor, axis)

    def unsqueeze(self, tensor: str, axis: int) -> str:
        """With a further axis of one entry."""
        return self._axis("Unsqueeze", tensor, axis)

    def _axis(self, op_type: str, tensor: str, axis: int) -> str:
        if self.opset < 13:
            return self.node(op_type, tensor, axes=[axis])
        return self.node(op_type, tensor, self.constant([axis]))

    def split(self, tensor: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Parts of the given sizes along an axis."""
        if self.opset < 13:
            return self.nodes_of("Split", tensor, count=len(sizes), axis=axis, split=list(sizes))
        return self.nodes_of("Split", tensor, self.constant(list(sizes)), count=len(sizes), axis=axis)

    def take(self, tensor: str, index: int, axis: int) -> str:
        """One entry along an axis, which is dropped."""
        return self.node("Gather", tensor, self.constant(np.array(index, np.int64)), axis=axis)

    def stack(self, tensors: Sequence[str], axis: int) -> str:
        """Tensors of one shape along a new axis."""
        return self.node("Concat", *(self.unsqueeze(tensor, axis) for tensor in tensors), axis=axis)

    def require_room(self, count: int, of: str) -> None:
        """Refuse to write more nodes than anybody could lower.

        Raises:
            UnsupportedError: saying how many they would be.
        """
        if count > MOST_NODES:
            raise self.refuse(
                f"{of} would be {count:,} nodes, more than {MOST_NODES:,}; give a shorter sequence or fewer "
                "iterations, or name a tensor before this node in outputs"
            )

    def inline_graph(self, graph: onnx.GraphProto, inputs: Sequence[str], label: str) -> list[str]:
        """Add the nodes of a subgraph once more.

        Args:
            graph: the subgraph, whose nodes may read tensors outside of it.
            inputs: what its inputs are.
            label: put before the names of its nodes, behind the name of this node.

        Returns:
            Its outputs.
        """
        if graph.sparse_initializer:
            raise self.refuse("its subgraph holds sparse initializers; store them densely")
        formal = [put.name for put in graph.input]
        bound = {**self._copied(graph), **dict(zip(formal, inputs, strict=True))}
        return self.inline(graph.node, bound, [put.name for put in graph.output], label)

    def inline(
        self,
        nodes: Sequence[onnx.NodeProto],
        bound: Mapping[str, str],
        outputs: Sequence[str],
        label: str,
        attributes: Mapping[str, onnx.AttributeProto] | None = None,
    ) -> list[str]:
        """Add copies of nodes, with names of their own.

        Args:
            nodes: in topological order.
            bound: what the tensors that they read are here; others keep their names.
            outputs: the tensors wanted.
            label: put before their names, behind the name of this node.
            attributes: of the function whose body they are, which they may refer to.

        Returns:
            The wanted tensors, by their names here.
        """
        names = dict(bound)
        for node in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = self._names.fresh(f"{self.label}/{label}{node.name or node.op_type}")
            for name in node.output:
                if name:
                    names[name] = self._names.fresh(f"{self.label}/{label}{name}")
            _rename(copy, names)
            if attributes is not None:
                _resolve(copy, attributes)
            self.nodes.append(copy)
        return [names.get(name, name) for name in outputs]

    def _copied(self, graph: onnx.GraphProto) -> dict[str, str]:
        """The initializers of a subgraph, under names of their own."""
        if id(graph) not in self._shared:
            names = {}
            for tensor in graph.initializer:
                names[tensor.name] = self._names.fresh(f"{self.label}/{tensor.name}")
                copy = onnx.TensorProto()
                copy.CopyFrom(tensor)
                copy.name = names[tensor.name]
                self.initializers.append(copy)
            self._shared[id(graph)] = names
        return self._shared[id(graph)]

    def finish(self, results: Sequence[Result]) -> dict[str, Container]:
        """Give the results the names of the node's outputs.

        Returns:
            The outputs that are sequences or optionals.
        """
        made = {name for node in self.nodes for name in node.output if name}
        renamed: dict[str, str] = {}
        found: dict[str, Container] = {}
        for output, result in zip(self.outputs, results, strict=False):
            if not output:
                continue
            if not isinstance(result, str):
                found[output] = result
            elif result in made and result not in renamed:
                renamed[result] = output
            else:
                name = self._names.fresh(f"{self.label}/Identity")
                self.nodes.append(helper.make_node("Identity", [result], [output], name=name))
        for node in self.nodes:
            _rename(node, renamed)
        self.decisions = [(renamed.get(name, name), value) for name, value in self.decisions]
        return {
            name: [renamed.get(tensor, tensor) for tensor in held] if isinstance(held, list) else held
            for name, held in found.items()
        }


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Put other names for the tensors of a node, in place, and for those that its subgraphs read."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {put.name for put in graph.input} | {tensor.name for tensor in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            outer = {name: other for name, other in names.items() if name not in own}
            if not outer:
                continue
            for inner in graph.node:
                _rename(inner, outer)
            for put in graph.output:
                put.name = outer.get(put.name, put.name)


def _resolve(node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto]) -> None:
    """Put the attributes of a function for references to them, in place."""
    given = list(node.attribute)
    del node.attribute[:]
    for attribute in given:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name not in attributes:
                continue
            value = attributes[attribute.ref_attr_name]
            node.attribute.add().CopyFrom(value)
            node.attribute[-1].name = attribute.name
            continue
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                _resolve(inner, attributes)
        node.attribute.add().CopyFrom(attribute)
