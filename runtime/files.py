"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from .errors import OutputError

if TYPE_CHECKING:
    import onnx


def write_whole(path: Path, write: Callable[[Any], None]) -> None:
    """Write a file beside its destination and rename it into place: the old content or the new, never half.

    Raises:
        OutputError: the path cannot be written.
    """
    try:
        path = path.resolve()  # the file that a link stands for, not the link
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: it is not a regular file")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".ilin-", suffix=".part")
    except (OSError, RuntimeError) as error:  # pathlib raises the latter on a link to itself
        raise OutputError(f"cannot write {path}: {getattr(error, 'strerror', error)}") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_model(path: str | os.PathLike[str], model: onnx.ModelProto) -> None:
    """Write an ONNX model.

    Raises:
        OutputError: the path cannot be written, or the model is over protobuf's limit.
    """
    try:
        content = model.SerializeToString()
    except (ValueError, EncodeError) as error:
        raise OutputError(f"the model is too large for one file of protobuf (2 GB): {error}") from error
    write_whole(Path(path), lambda file: file.write(content))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
