"""An ONNX model as it is given: a path, bytes, or a ModelProto."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from .errors import ModelError

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto


def read_model(model: ModelSource) -> tuple[onnx.ModelProto, bytes, str]:
    """The model, its bytes, and a name for it.

    Raises:
        ModelError: no such file, not ONNX, truncated or corrupt.
    """
    if isinstance(model, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
        try:
            return proto, model.SerializeToString(deterministic=True), model.graph.name
        except (ValueError, EncodeError) as error:
            raise ModelError(
                "the model is too large for one protobuf message (2 GB); save it with external data "
                "(onnx.save(…, save_as_external_data=True)) and give the path"
            ) from error
    if isinstance(model, bytes | bytearray):
        return _parse(bytes(model), "the given bytes"), bytes(model), "<bytes>"
    if not isinstance(model, str | os.PathLike):
        raise ModelError(f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__name__}")
    path = Path(model)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"no such file: {path}") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    return _parse(content, str(path)), content, path.name


def _parse(content: bytes, source: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise ModelError(f"{source} is not an ONNX model, or it is truncated or corrupt") from None
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(f"{source} is not an ONNX model: it holds no graph")
    return proto
