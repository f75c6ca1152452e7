"""What a saved map is made of: arrays behind a JSON header, sealed with hashes; the same map, the same bytes.

The members and the header's fields are those of docs/file-format.md.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array
from .errors import OutputError

FORMAT = 2  # of what is written
READABLE = (1, FORMAT)
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip archive can tell of: every file says the same
_CHUNK = 1 << 22  # elements hashed at once
_PARTS = {"x": "input", "held": "input"} | dict.fromkeys(
    ("W", "W_data", "W_indices", "W_indptr", "b", "rows"), "result"
)

# What numpy, zipfile, zlib and json raise on files that are damaged or something else altogether.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


# -- hashes ------------------------------------------------------------------------------------------


def digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of arrays, by name: of each a line "NAME DTYPE SHAPE", then its values in C order.

    DTYPE is numpy's, with the byte order (<f4); SHAPE is written as a list ([1, 64]).
    """
    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        found.update(f"{name} {value.dtype.str} {list(value.shape)}\n".encode())
        if value.ndim and value.size > _CHUNK:  # it may lie on disk, and not fit into memory
            step = max(1, _CHUNK * len(value) // value.size)
            for first in range(0, len(value), step):
                found.update(value[first : first + step].tobytes())
        else:
            found.update(value.tobytes())
    return found.hexdigest()


def part_digests(arrays: Mapping[str, Array]) -> dict[str, str]:
    """SHA-256 of a map's `input` (x and what was held), `result` (W, b, rows) and `evidence` (the rest)."""
    parts: dict[str, dict[str, Array]] = {"input": {}, "result": {}, "evidence": {}}
    for name, value in arrays.items():
        parts[_PARTS.get(name.rstrip("0123456789"), "evidence")][name] = value
    return {part: digest(members) for part, members in parts.items()}


def header_digest(header: Mapping[str, Any]) -> str:
    """SHA-256 of a header as JSON with sorted keys, but for this hash itself."""
    hashes = {name: value for name, value in header["sha256"].items() if name != "header"}
    return hashlib.sha256(_text({**header, "sha256": hashes})).hexdigest()


def sealed(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The header with the hashes of the arrays and of itself."""
    document = {**header, "sha256": part_digests(arrays)}
    document["sha256"]["header"] = header_digest(document)
    return document


# -- arrays as every reader of .npy has them ---------------------------------------------------------


def plain(value: Array) -> Array:
    """An array without types that only some readers know: their bits instead, and text of fixed width."""
    if value.dtype.kind == "V":  # bfloat16 and the like, which ml_dtypes adds to numpy
        return value.view(f"u{value.dtype.itemsize}")
    return value.astype(str) if value.dtype.kind == "O" else value


def typed(value: Array, name: str) -> Array:
    """The inverse of `plain`, given the name of the type."""
    if name == "object":
        return value.astype(object)
    if value.dtype.name == name:
        return value
    import ml_dtypes

    if value.dtype.kind != "u" or not hasattr(ml_dtypes, name):
        raise ValueError(f"an array holds {value.dtype.name}, where the header says {name}")
    return value.view(np.dtype(getattr(ml_dtypes, name)))


# -- the file ----------------------------------------------------------------------------------------


def write_archive(file: Any, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a sealed map as a zip archive of .npy files, the header first and the others by name."""
    members = {"header": np.frombuffer(_text(header), np.uint8), **dict(sorted(arrays.items()))}
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in members.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EARLIEST)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # on Windows too
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a file.

    Raises:
        OutputError: no such file, or no map; it says what it seems to be instead.
    """
    with path.open("rb") as file:
        magic = file.read(6)
    if magic == b"\x93NUMPY":
        raise _no_map(path, "it holds one array (.npy)")
    if not magic.startswith(b"PK"):
        raise _no_map(path, "it is no .npz file")
    if not zipfile.is_zipfile(path):
        raise _no_map(path, "it begins like a .npz file, but its end is missing")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "header.npy" not in names:
        held = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        raise _no_map(path, f"it has no header, but holds {held or 'nothing'}")
    with np.load(path, allow_pickle=False) as members:
        header = header_of(members["header"].tobytes(), path)
        return header, {name: members[name] for name in members.files if name != "header"}


def header_of(text: str | bytes, path: Path) -> dict[str, Any]:
    """A header that this version can read.

    Raises:
        OutputError: it is none, or of another format.
    """
    try:
        header = json.loads(text)
        found = header["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_map(path, "its header is not that of a map") from error
    if found not in READABLE:
        raise OutputError(
            f"{path} has format {found!r}, and this version of ilin reads formats 1 to {FORMAT}; a newer "
            "ilin wrote it: python -m pip install --upgrade ilin"
        )
    return dict(header)


def _no_map(path: Path, why: str) -> OutputError:
    return OutputError(
        f"{path} is not a map saved by ilin, or it is truncated or corrupt: {why}; "
        "ilin-compile MODEL.onnx X.npy -o OUT.npz writes one"
    )


def _text(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True).encode()
