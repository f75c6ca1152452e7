"""Load: from a file, bytes or ModelProto to a `Graph`; nothing downstream sees protobuf."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from ..expansions import Tensor
from ..ops import registered_by_others
from ..runtime.errors import ModelError, UnsupportedError
from ..runtime.model_file import ModelSource, read_model
from ..runtime.primitives import Array
from ..runtime.surgery import captured, sort_topologically
from ..runtime.surroundings import (
    ALONE,
    Surroundings,
    digest,
    external_tensor,
    is_external,
    take_in_attributes,
    without_data,
)
from .types import inferred


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output as the model declares it."""

    name: str
    dtype: np.dtype[Any] | None  # None where it is no tensor
    shape: tuple[int | str | None, ...] | None  # None where even the rank is open
    columns: str = ""  # of maps that ZipMap makes: the tensor whose columns they name

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point values."""
        return self.dtype is not None and is_floating(self.dtype)

    @property
    def explained(self) -> str:
        """The floating-point tensor to explain for it; "" where there is none."""
        return self.name if self.floating else self.columns

    def __str__(self) -> str:
        dims = "?" if self.shape is None else "×".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.dtype or 'no tensor'}[{dims}]"


@dataclass(frozen=True)
class Node:
    """One operator of the graph, with the schema's defaults filled in."""

    position: int  # in the graph, and in the model that onnxruntime runs
    name: str
    op_type: str
    domain: str
    opset: int
    inputs: tuple[str, ...]  # "" where an optional input is left out
    outputs: tuple[str, ...]
    formal: tuple[str, ...]  # the schema's name of each input
    attributes: Mapping[str, Any]
    captured: tuple[str, ...] = ()  # tensors that its subgraphs read from here
    random: bool = False

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.op_type}, {self.domain or 'ai.onnx'} opset {self.opset})"


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, local functions inlined but for those that have a rule."""

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    initializers: Mapping[str, Array]
    nodes: tuple[Node, ...]
    sha256: str
    producer: str
    opsets: Mapping[str, int]
    proto: onnx.ModelProto = field(repr=False)  # for onnxruntime alone
    surroundings: Surroundings = ALONE  # likewise

    @property
    def weights(self) -> int:
        """Number of floating-point parameters."""
        return sum(value.size for value in self.initializers.values() if is_floating(value.dtype))

    @cached_property
    def types(self) -> tuple[dict[str, Tensor], set[str]]:
        """Types of tensors, as far as shape inference finds them, and the names of what is no tensor."""
        return inferred(self.proto)

    def tensors(self) -> set[str]:
        """Names of everything that is computed or given."""
        computed = {name for node in self.nodes for name in node.outputs if name}
        return computed | {put.name for put in self.inputs} | set(self.initializers)


def load(model: ModelSource, custom_ops: Sequence[str | os.PathLike[str]] = ()) -> Graph:
    """Read and check a model.

    Args:
        model: path of an ONNX file, its bytes, or a ModelProto (which is not changed).
        custom_ops: shared libraries that implement operators of its own for onnxruntime.

    Raises:
        ModelError: no such file, not ONNX, corrupt, missing external data, or refused by onnx.checker.
    """
    proto, content, name = read_model(model)
    folder = Path(model).absolute().parent if isinstance(model, str | os.PathLike) else None
    sha256 = digest(content, proto, folder)
    del content  # up to 2 GB
    take_in_attributes(proto, folder)
    return _graph(proto, sha256, name, Surroundings(folder, tuple(map(_library, custom_ops))))


def _library(path: str | os.PathLike[str]) -> str:
    """A library by a path that means the same from everywhere; a bare name may be one of the system's."""
    return str(Path(path).absolute()) if Path(path).exists() else os.fspath(path)


def reread(graph: Graph, proto: onnx.ModelProto) -> Graph:
    """The same model, by name and hash, in another form.

    Raises:
        ModelError: as `load`.
    """
    return _graph(proto, graph.sha256, graph.name, graph.surroundings)


def _graph(proto: onnx.ModelProto, sha256: str, name: str, surroundings: Surroundings) -> Graph:
    if proto.functions:
        try:
            proto = onnx.inliner.inline_selected_functions(proto, _with_rules(proto), exclude=True)
        except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
            raise ModelError(f"its local functions cannot be inlined: {_one_line(error)}") from error
    if proto.graph.sparse_initializer:
        raise UnsupportedError("the model holds sparse initializers; store them densely")
    if any(node.domain == "com.microsoft.nchwc" for node in proto.graph.node):
        raise UnsupportedError(
            "onnxruntime has optimised the model for the vector length of one machine (its nodes of domain "
            "com.microsoft.nchwc); save it at ORT_ENABLE_EXTENDED, or compile the model before that"
        )
    sort_topologically(proto.graph)
    _check(proto)
    return graph_of(proto, sha256, name, surroundings)


def graph_of(proto: onnx.ModelProto, sha256: str, name: str, surroundings: Surroundings = ALONE) -> Graph:
    """A graph of a model in topological order.

    Args:
        proto: the model, which is kept.
        sha256: of the file that it comes from.
        name: of that file.
        surroundings: what the model needs beside itself.
    """
    opsets = {_domain(entry.domain): entry.version for entry in proto.opset_import}
    initializers = {
        tensor.name: external_tensor(tensor, surroundings.folder) if is_external(tensor) else _array(tensor)
        for tensor in proto.graph.initializer
    }
    functions = {(_domain(function.domain), function.name): function for function in proto.functions}
    return Graph(
        name=name,
        inputs=tuple(_info(put) for put in proto.graph.input if put.name not in initializers),
        outputs=_outputs(proto.graph),
        initializers=initializers,
        nodes=tuple(_node(i, node, opsets, functions) for i, node in enumerate(proto.graph.node)),
        sha256=sha256,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        opsets=opsets,
        proto=proto,
        surroundings=surroundings,
    )


def ancestors(graph: Graph, outputs: Collection[str], stop: Collection[str] = ()) -> set[int]:
    """Positions of the nodes that an output depends on, not going beyond the tensors in `stop`."""
    wanted = set(outputs) - set(stop)
    needed = set()
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            needed.add(node.position)
            wanted.update(name for name in (*node.inputs, *node.captured) if name and name not in stop)
    return needed


def descendants(graph: Graph, inputs: Collection[str]) -> set[str]:
    """The inputs, and all tensors that are computed from them."""
    reached = set(inputs)
    for node in graph.nodes:
        if reached.intersection((*node.inputs, *node.captured)):
            reached.update(name for name in node.outputs if name)
    return reached


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether values of a dtype are differentiated: floating point of 16 bits or more, bfloat16 included."""
    return dtype.name in ("float16", "bfloat16", "float32", "float64")


def floating_target(node: Node) -> np.dtype[Any] | None:
    """The floating type that a Cast casts to; None for every other node."""
    if node.op_type != "Cast" or node.domain:
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    return dtype if is_floating(dtype) else None


# Operators that onnxruntime's optimiser writes into ONNX's own domain, at versions that do not have them.
_ONNXRUNTIMES = {"LayerNormalization", "SimplifiedLayerNormalization"}


def _check(proto: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(_checkable(without_data(proto)))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"not a valid ONNX model (onnx.checker): {_one_line(error)}") from error
    except (ValueError, EncodeError) as error:
        raise ModelError(
            f"the model is too large for one protobuf message (2 GB); keep its tensors as external data: "
            f"{_one_line(error)}"
        ) from error


def _checkable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model as the checker can read it: onnxruntime's operators in onnxruntime's domain."""
    version = next((entry.version for entry in proto.opset_import if not _domain(entry.domain)), 1)
    foreign = {op for op in _ONNXRUNTIMES if not onnx.defs.has(op, version, "")}
    if not any(node.op_type in foreign and not _domain(node.domain) for node in proto.graph.node):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for node in copy.graph.node:
        if node.op_type in foreign and not _domain(node.domain):
            node.domain = "com.microsoft"
    if all(entry.domain != "com.microsoft" for entry in copy.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return copy


def _info(put: onnx.ValueInfoProto) -> TensorInfo:
    if not put.type.HasField("tensor_type"):
        return TensorInfo(put.name, None, None)
    tensor = put.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return TensorInfo(put.name, dtype, None)
    return TensorInfo(put.name, dtype, tuple(_dimension(dim) for dim in tensor.shape.dim))


def _outputs(graph: onnx.GraphProto) -> tuple[TensorInfo, ...]:
    """The declared outputs."""
    columns = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ZipMap"}
    return tuple(replace(_info(put), columns=columns.get(put.name, "")) for put in graph.output)


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None  # some exporters write -1 or 0 for "any"
    return str(dim.dim_param) or None


Functions = Mapping[tuple[str, str], onnx.FunctionProto]  # by domain and name


def _with_rules(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    """The local functions that stay nodes, as somebody registered a rule for them."""
    ids = [(function.domain, function.name) for function in proto.functions]
    return [(domain, name) for domain, name in ids if registered_by_others(name, _domain(domain))]


def _node(position: int, node: onnx.NodeProto, opsets: Mapping[str, int], functions: Functions) -> Node:
    domain = _domain(node.domain)
    opset = opsets.get(domain, 1)
    attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
    formal: tuple[str, ...] = ("",) * len(node.input)
    function = functions.get((domain, node.op_type))
    if function is not None:
        defaults = {attribute.name: _attribute(attribute) for attribute in function.attribute_proto}
        attributes = {**defaults, **attributes}
        formal = tuple(function.input[: len(node.input)])
    elif onnx.defs.has(node.op_type, opset, domain):
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
        for name, declared in schema.attributes.items():
            if name not in attributes and declared.default_value.type:
                attributes[name] = _attribute(declared.default_value)
        formal = _formal_names(schema, len(node.input))
    label = node.name or next((name for name in node.output if name), f"#{position}")
    return Node(
        position,
        label,
        node.op_type,
        domain,
        opset,
        tuple(node.input),
        tuple(node.output),
        formal,
        attributes,
        tuple(captured(node)),
        _random(node, functions),
    )


def _formal_names(schema: onnx.defs.OpSchema, count: int) -> tuple[str, ...]:
    names = [put.name for put in schema.inputs]
    return tuple(names[min(i, len(names) - 1)] for i in range(count)) if names else ("",) * count


_RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}


def _random(node: onnx.NodeProto, functions: Functions) -> bool:
    inner = [
        child
        for attribute in node.attribute
        for graph in (attribute.g, *attribute.graphs)
        for child in graph.node
    ]
    function = functions.get((_domain(node.domain), node.op_type))
    inner += [] if function is None else function.node
    return node.op_type in _RANDOM or any(_random(child, functions) for child in inner)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, Sequence):
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
    return value


def _array(tensor: onnx.TensorProto) -> Array:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"initializer {tensor.name!r} is corrupt: {_one_line(error)}") from error


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
