"""What a model needs beside its own file: external data, and libraries with operators of its own.

Tensors that are stored beside the model stay there: they are mapped into memory rather than read, and
onnxruntime is told where they lie, so that a model may be larger than protobuf's 2 GB.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from .errors import ModelError, OutputError
from .primitives import Array

_PROTOBUF_LIMIT = 2**31 - 1
_MAPPED: dict[int, str] = {  # element types that lie in a file as numpy has them in memory
    onnx.TensorProto.FLOAT: "<f4",
    onnx.TensorProto.FLOAT16: "<f2",
    onnx.TensorProto.DOUBLE: "<f8",
    onnx.TensorProto.INT8: "<i1",
    onnx.TensorProto.INT16: "<i2",
    onnx.TensorProto.INT32: "<i4",
    onnx.TensorProto.INT64: "<i8",
    onnx.TensorProto.UINT8: "<u1",
    onnx.TensorProto.UINT16: "<u2",
    onnx.TensorProto.UINT32: "<u4",
    onnx.TensorProto.UINT64: "<u8",
    onnx.TensorProto.BOOL: "?",
}


@dataclass(frozen=True)
class Surroundings:
    """Where a model's external data lies, and the shared libraries that implement operators of its own."""

    folder: Path | None = None  # absolute; None: the model came without a path
    custom_ops: tuple[str, ...] = ()


ALONE = Surroundings()  # of models that ilin made itself


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int
    length: int  # bytes


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's data lies in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def external_tensor(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """The value of a tensor that lies beside the model, mapped into memory where its type allows that.

    Raises:
        ModelError: the file is missing, too short, or outside of the model's folder.
    """
    place = _place(tensor, folder)
    if tensor.data_type in _MAPPED:
        dtype, shape = np.dtype(_MAPPED[tensor.data_type]), tuple(tensor.dims)
        size = math.prod(shape) * dtype.itemsize
        if place.length != size:
            raise ModelError(
                f"tensor {tensor.name!r} of shape {list(shape)} takes {size} bytes, but its external data "
                f"holds {place.length}, in {place.path}"
            )
        if not place.length:
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(place.path, dtype, "r", place.offset, shape))
    inside = onnx.TensorProto()
    inside.CopyFrom(tensor)
    _take_in(inside, place)
    try:
        return numpy_helper.to_array(inside)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"tensor {tensor.name!r} in {place.path} is corrupt: {error}") from error


def take_in_attributes(proto: onnx.ModelProto, folder: Path | None) -> None:
    """Read what external data nodes and subgraphs refer to; the graph's own initializers stay outside.

    Raises:
        ModelError: as `external_tensor`.
    """
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for tensor in _inner_tensors(nodes):
            if is_external(tensor):
                _take_in(tensor, _place(tensor, folder))


def embedded(proto: onnx.ModelProto, folder: Path | None) -> onnx.ModelProto:
    """The model with all its data inside, for what takes one protobuf message.

    Raises:
        OutputError: it would be over protobuf's 2 GB.
    """
    outside = [tensor for tensor in proto.graph.initializer if is_external(tensor)]
    if not outside:
        return proto
    places = [_place(tensor, folder) for tensor in outside]
    total = sum(place.length for place in places)
    if total > _PROTOBUF_LIMIT:
        raise OutputError(
            f"with its external data ({total / 1e9:.1f} GB) the model is over protobuf's 2 GB, and cannot "
            "be written as one file"
        )
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    for tensor in whole.graph.initializer:
        if is_external(tensor):
            _take_in(tensor, _place(tensor, folder))
    return whole


def without_data(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with graph inputs in place of what lies outside, to be checked by itself."""
    outside = [tensor for tensor in proto.graph.initializer if is_external(tensor)]
    if not outside:
        return proto
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    inside = [tensor for tensor in bare.graph.initializer if not is_external(tensor)]
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(inside)
    declared = {put.name for put in bare.graph.input}
    bare.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in outside
        if tensor.name not in declared
    )
    return bare


def digest(content: bytes, proto: onnx.ModelProto, folder: Path | None) -> str:
    """SHA-256 of a model: of its file, then of its data files in the order in which it first names them.

    `cat MODEL DATA … | sha256sum` gives the same.

    Raises:
        ModelError: a data file that cannot be read.
    """
    found = hashlib.sha256(content)
    tensors = [*proto.graph.initializer]
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        tensors += _inner_tensors(nodes)
    for path in dict.fromkeys(_place(tensor, folder).path for tensor in tensors if is_external(tensor)):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                found.update(chunk)
    return found.hexdigest()


def _inner_tensors(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Tensors in the attributes of nodes, and in their subgraphs."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from graph.initializer
                yield from _inner_tensors(graph.node)


def _take_in(tensor: onnx.TensorProto, place: _Place) -> None:
    with place.path.open("rb") as file:
        file.seek(place.offset)
        tensor.raw_data = file.read(place.length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _place(tensor: onnx.TensorProto, folder: Path | None) -> _Place:
    """Where a tensor's data lies.

    Raises:
        ModelError: nowhere, beyond the end of its file, or outside of the folder, from which a model could
            read any file of its user.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    which = f"the external data of tensor {tensor.name!r} ({location!r})"
    if folder is None:
        raise ModelError(
            f"{which} lies beside the model's file: give the path of that file, or a model with its data "
            "inside (onnx.load)"
        )
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or not path.is_relative_to(root):
        raise ModelError(f"{which} lies outside of the model's folder {root}; keep it beside the model")
    if not path.is_file():
        raise ModelError(f"{which} is missing or unreadable; keep it beside the model, at {path}")
    size = path.stat().st_size
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size - offset)
    except ValueError as error:
        raise ModelError(f"{which} is corrupt: {error}") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"{which} is truncated: {length} bytes at offset {offset} are asked for, and {path} holds {size}"
        )
    return _Place(path, offset, length)
