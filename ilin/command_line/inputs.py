"""X.npy and X.npz: read without pickle, and split into instances."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np

from ..compiler.graph import TensorInfo
from ..runtime.errors import InputError
from ..runtime.primitives import Array

Given = Array | dict[str, Array]  # one array, or graph input name to array
Dimensions = Sequence[int | str | None]

_NPY, _NPZ = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")
# What numpy and zipfile raise for damaged files, found by damaging files; no common base class.
_DAMAGE = (
    ValueError,
    EOFError,
    OSError,
    KeyError,
    OverflowError,
    MemoryError,  # a header that claims more than there is
    RuntimeError,  # an encrypted archive, a compression method unknown here
    SyntaxError,
    TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Instances:
    """The points that a file holds."""

    given: Given
    count: int | None  # along axis 0; None: one point, as it is

    def __len__(self) -> int:
        return 1 if self.count is None else self.count

    def __getitem__(self, i: int) -> Given:
        if self.count is None:
            return self.given
        if isinstance(self.given, dict):
            return {name: values[i] for name, values in self.given.items()}
        return np.asarray(self.given[i])


def read(path: Path) -> Given:
    """Read X.npy or X.npz; the content decides which, not the name.

    Raises:
        InputError: no such file, not a numpy file, damaged, or Python objects instead of numbers.
    """
    try:
        with path.open("rb") as file:
            content = file if file.seekable() else io.BytesIO(file.read())  # /dev/stdin cannot be read twice
            return _parsed(path, content)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _parsed(path: Path, content: BinaryIO) -> Given:
    magic = content.read(len(_NPY))
    content.seek(0)
    if magic != _NPY and not magic.startswith(_NPZ):
        raise InputError(
            f"{path} is not a .npy or .npz file{_guess(magic)}; write it with numpy.save or numpy.savez"
        )
    try:
        found = _loaded(content)
    except _DAMAGE as error:
        if "Object arrays" in str(error):
            raise InputError(
                f"{path} holds Python objects (dtype object), which are not loaded, as they can run code; "
                "save plain numbers: numpy.save(path, numpy.asarray(x, dtype=numpy.float32))"
            ) from error
        raise InputError(f"{path} is truncated or corrupt: {str(error) or type(error).__name__}") from error
    if isinstance(found, np.ndarray) and not found.size:
        raise InputError(f"{path} holds an array of shape {list(found.shape)}, which has no values")
    return found


def _loaded(content: BinaryIO) -> Given:
    found = np.load(content, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found as archive:
        arrays = {name: archive[name] for name in archive.files}
    other = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    if other:
        raise ValueError(f"its member {other[0]!r} is no array")
    return arrays


def _guess(magic: bytes) -> str:
    if not magic:
        return " (it is empty)"
    text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in magic)
    return " (it looks like text)" if text else ""


def instances(given: Given, declared: Sequence[TensorInfo], *, whole: bool = False) -> Instances:
    """Decide whether a file holds one point or several along axis 0.

    An array holds several where it has one axis more than the model's input and the other axes fit, or
    as many axes, a first one longer than 1, and the model declares 1 or leaves it open there. Named
    arrays hold several where every one of them says so, and all say how many.

    Args:
        given: what `read` returned.
        declared: the graph's inputs.
        whole: take it as one point all the same.

    Raises:
        InputError: axis 0 is empty.
    """
    if whole:
        return Instances(given, None)
    if isinstance(given, dict):
        return _named(given, {put.name: put.shape for put in declared})
    if len(declared) != 1 or declared[0].shape is None:
        return Instances(given, None)
    stack = _stack(given, declared[0].shape)
    if stack is None:
        return Instances(given, None)
    if not len(stack):
        raise InputError(f"x holds no instance: its shape is {list(given.shape)}")
    return Instances(stack, len(stack))


def _named(given: Mapping[str, Array], shapes: Mapping[str, Any]) -> Instances:
    stacks: dict[str, Array] = {}
    for name, values in given.items():
        shape = shapes.get(name)
        stack = None if shape is None else _stack(values, shape)
        if stack is None:
            return Instances(dict(given), None)
        stacks[name] = stack
    counts = {len(stack) for stack in stacks.values()}
    count = counts.pop() if len(counts) == 1 else 0
    return Instances(stacks, count) if count else Instances(dict(given), None)


def _stack(values: Array, declared: Dimensions) -> Array | None:
    """The instances in `values` along a new axis 0, each of the model's rank; None for one instance."""
    if values.ndim == len(declared) + 1 and _fits(declared, values.shape[1:]):
        return values
    if not declared or values.ndim != len(declared) or not _fits(declared[1:], values.shape[1:]):
        return None
    first = declared[0]
    if len(declared) == 1 and not isinstance(first, int):
        return None  # a vector of any length: its entries are no instances
    if isinstance(first, int) and first != 1:
        return None
    return None if values.shape[0] == 1 else values[:, None]


def _fits(declared: Dimensions, shape: Sequence[int]) -> bool:
    return len(declared) == len(shape) and all(
        not isinstance(d, int) or d == size for d, size in zip(declared, shape, strict=True)
    )
