"""Arrays and shapes, tensors in a stack, and what happens where numbers leave their type's range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


@contextmanager
def overflow_refused_later() -> Iterator[None]:
    """Keep numpy's warnings back where a result that is not finite is refused in the end anyhow."""
    with np.errstate(over="ignore", invalid="ignore"):
        yield


def stack(tensors: Mapping[str, Array]) -> Array:
    """Tensors flattened in C order, one behind the other."""
    return np.concatenate([np.ravel(value) for value in tensors.values()])


def unstack(flat: Array, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """The inverse: name to array."""
    parts, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        parts[name] = flat[start : start + size].reshape(shape)
        start += size
    return parts


def alone(tensors: Mapping[str, Any]) -> Any:
    """How a user is given tensors: the array where there is one, else name to array."""
    return next(iter(tensors.values())) if len(tensors) == 1 else dict(tensors)


def located(position: int, shapes: Mapping[str, Shape]) -> tuple[str, tuple[int, ...]]:
    """The tensor that a stacked, flat position lies in, and the index there."""
    for name, shape in shapes.items():
        size = math.prod(shape)
        if position < size:
            return name, tuple(int(i) for i in np.unravel_index(position, shape))
        position -= size
    raise IndexError(position)
