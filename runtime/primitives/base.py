"""What every linear primitive offers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape

if TYPE_CHECKING:
    from ..emit import Builder


class Primitive(ABC):
    """A linear map L from tensors of `in_shape` to tensors of `out_shape`.

    `matrix()` is the definition: a sparse (out_size, in_size) matrix over C-ordered flattened
    tensors. Every other form is tested against it. Subclasses are frozen dataclasses.

    Laws: `apply` equals `matrix`; ⟨L x, y⟩ = ⟨x, Lᵀ y⟩; `L.T.T == L`.
    """

    in_shape: Shape
    out_shape: Shape
    __hash__: ClassVar[None]  # type: ignore[assignment]

    @abstractmethod
    def matrix(self) -> sparse.csr_array:
        """Return the (out_size, in_size) matrix of the map."""

    @abstractmethod
    def apply(self, block: Array) -> Array:
        """Map a block of tensors, (B, *in_shape) to (B, *out_shape), in the block's dtype."""

    @property
    @abstractmethod
    def T(self) -> Primitive:
        """The transposed map."""

    @abstractmethod
    def emit(self, graph: Builder, x: str) -> str:
        """Add the map to an ONNX graph, from a block named x, (B, *in_shape), to one (B, *out_shape)."""

    def magnitude(self) -> Primitive:
        """Return |L|, entry by entry (or an upper bound of it); L itself where entries are 0 and 1."""
        return self

    def size_bound(self, size: Array) -> Array:
        """Return an upper bound of |L| s for sizes s ≥ 0, (B, *in_shape) to (B, *out_shape), however cheap.

        Dense sums are bounded by norms, Σ |w| s ≤ ‖w‖ ‖s‖ (Cauchy-Schwarz), which reads no weight again.
        """
        return self.magnitude().apply(size)

    def reach(self, mask: Array) -> Array:
        """Return which outputs can be nonzero when only inputs in `mask` (in_shape, bool) are."""
        return np.full(self.out_shape, bool(mask.any()))

    @property
    def fan_in(self) -> int:
        """Rounded operations behind one output at most; 0 where values are only moved, without rounding."""
        return 0

    @property
    def work(self) -> int:
        """Multiply-adds of one application."""
        return self.out_size

    def structure(self) -> tuple[Any, ...]:
        """What an emitted graph depends on: everything but the values of arrays. Hashable."""
        return (type(self).__name__, *(_form(getattr(self, name)) for name in _field_names(type(self))))

    @property
    def in_size(self) -> int:
        """Elements of one input tensor."""
        return math.prod(self.in_shape)

    @property
    def out_size(self) -> int:
        """Elements of one output tensor."""
        return math.prod(self.out_shape)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]


def squares(size: Array) -> tuple[Array, float]:
    """Squares of sizes over that of the largest, and the largest: their sums neither overflow nor vanish.

    Each is raised by the smallest normal number, which is more than underflow takes from it.
    """
    largest = float(size.max(initial=0.0))
    scale = largest if 0 < largest < np.inf else 1.0
    squared = size / size.dtype.type(scale)
    np.square(squared, out=squared)
    squared += np.finfo(size.dtype).tiny
    return squared, scale


def flat(block: Array) -> Array:
    """(B, *shape) to (B, size); unlike reshape(B, -1), also where B or a length is 0."""
    return block.reshape(len(block), math.prod(block.shape[1:]))


@cache
def _field_names(primitive: type[Primitive]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(primitive))  # type: ignore[arg-type]


def _form(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape
    if isinstance(value, tuple):
        return tuple(map(_form, value)) if value and isinstance(value[0], Primitive) else value
    if isinstance(value, sparse.csr_array):
        return (*value.shape, value.nnz)
    return value.structure() if isinstance(value, Primitive) else value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, sparse.csr_array) and isinstance(b, sparse.csr_array):
        return bool(a.shape == b.shape and abs(a - b).sum() == 0)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b)
