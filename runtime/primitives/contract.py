"""Contract: y = Σ x · w along labelled axes — dense weights: Gemm, MatMul, Einsum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape
from .base import Primitive, squares

if TYPE_CHECKING:
    from ..emit import Builder


@dataclass(frozen=True, eq=False)
class Contract(Primitive):
    """The einsum `labels` ("x,w->y") with the second operand fixed.

    Every label of x stands in w or in y, and every label of y in x or in w, each at most once per
    operand, so that exchanging x and y gives the transpose.
    """

    in_shape: Shape
    weight: Array
    labels: str  # such as "bmk,kn->bmn"
    bound: Array | None = None  # on |weight|, where rounding is relative to more than |weight| itself

    def __post_init__(self) -> None:
        x, w, y = self._axes
        fits = set(x) <= set(w) | set(y) and set(y) <= set(x) | set(w) and set(w) <= set(x) | set(y)
        if not fits or any(len(set(axes)) != len(axes) for axes in (x, w, y)):
            raise ValueError(f"not a contraction that can be transposed: {self.labels}")
        sizes = self._sizes
        if any(sizes[label] != size for label, size in zip(x, self.in_shape, strict=True)):
            raise ValueError(f"{self.labels}: x of shape {self.in_shape} against w of {self.weight.shape}")

    @cached_property
    def _axes(self) -> tuple[str, str, str]:
        operands, y = self.labels.split("->")
        x, w = operands.split(",")
        return x, w, y

    @cached_property
    def _sizes(self) -> dict[str, int]:
        x, w, _ = self._axes
        return dict(zip(x, self.in_shape, strict=True)) | dict(zip(w, self.weight.shape, strict=True))

    @cached_property
    def _groups(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """Labels of all three operands, of x and y, of x and w, and of w and y."""
        x, w, y = self._axes
        return (
            [a for a in x if a in w and a in y],
            [a for a in x if a not in w],
            [a for a in x if a not in y],
            [a for a in w if a not in x],
        )

    def _extent(self, axes: Sequence[str]) -> int:
        sizes = self._sizes
        return math.prod(sizes[a] for a in axes)

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        """The sizes of y's labels."""
        sizes = self._sizes
        return tuple(sizes[label] for label in self._axes[2])

    def matrix(self) -> sparse.csr_array:
        """One entry for each combination of labels, rows in y's order, summed labels in x's order."""
        x, w, y = self._axes
        summed = "".join(label for label in x if label not in y)
        order, sizes = y + summed, self._sizes
        full = tuple(sizes[label] for label in order)
        columns = np.zeros(full, np.int64)
        stride = 1
        for label in reversed(x):
            along = [1] * len(order)
            along[order.index(label)] = -1
            columns += np.arange(sizes[label]).reshape(along) * stride
            stride *= sizes[label]
        missing = "".join(label for label in order if label not in w)
        spread = self.weight.reshape(self.weight.shape + (1,) * len(missing))
        values = np.broadcast_to(spread.transpose([(w + missing).index(label) for label in order]), full)
        per_row = math.prod(sizes[label] for label in summed)
        indptr = np.arange(self.out_size + 1) * per_row
        return sparse.csr_array(
            (values.ravel(), columns.ravel(), indptr), shape=(self.out_size, self.in_size)
        )

    @cached_property
    def dense(self) -> Array | None:
        """The (out_size, in_size) matrix, where the weight holds all of it; None where it repeats in it."""
        x, w, y = self._axes
        if self._extent([a for a in x if a in y]) != 1:
            return None
        order = [*(w.index(a) for a in y if a in w), *(w.index(a) for a in x if a in w and a not in y)]
        return self.weight.transpose(order).reshape(self.out_size, self.in_size)

    def apply(self, block: Array) -> Array:
        """One batched matrix product: labels in all three operands are its batch axes."""
        x, w, y = self._axes
        sizes, extent = self._sizes, self._extent
        batch, rows, summed, columns = self._groups
        left = block.transpose(
            [*(x.index(a) + 1 for a in batch), 0, *(x.index(a) + 1 for a in rows + summed)]
        )
        left = left.reshape(extent(batch), len(block) * extent(rows), extent(summed))
        right = self.weight.astype(block.dtype, copy=False)
        right = right.transpose([w.index(a) for a in batch + summed + columns])
        right = right.reshape(extent(batch), extent(summed), extent(columns))
        product: Array = left @ right
        named = product.reshape(*(sizes[a] for a in batch), len(block), *(sizes[a] for a in rows + columns))
        order = [*batch, "", *rows, *columns]
        return named.transpose([order.index(""), *(order.index(a) for a in y)])

    def emit(self, graph: Builder, x: str) -> str:
        """One MatMul between transpositions, as in `apply`; without batch labels the weight is a matrix."""
        xs, w, y = self._axes
        batch, rows, summed, columns = self._groups
        sizes = {**self._sizes, "": 0}  # "" is the block axis, whose length is open
        x = graph.reshape(x, self.in_shape)
        left = _ordered(graph, x, ["", *xs], [*batch, "", *rows, *summed], sizes)
        right = self.weight.transpose([w.index(a) for a in (*batch, *summed, *columns)])
        right = right.reshape(
            *([self._extent(batch)] if batch else []), self._extent(summed), self._extent(columns)
        )
        head = [self._extent(batch)] if batch else []
        if head:
            left = graph.node("Reshape", left, graph.constant([*head, -1, self._extent(summed)]))
        else:
            left = graph.reshape(left, [self._extent(summed)])
        product = graph.node("MatMul", left, graph.array(right, "weight"))
        made = [*batch, "", *rows, *columns]
        if head or not _same_order(made, ["", *y], sizes):
            shape = [*(sizes[a] for a in batch), -1, *(sizes[a] for a in (*rows, *columns))]
            product = graph.node("Reshape", product, graph.constant(shape))
            product = _ordered(graph, product, made, ["", *y], sizes)
        else:
            graph.shaped(product, [self._extent(columns)])
        return graph.reshape(product, self.out_shape)

    @cached_property
    def T(self) -> Primitive:
        """Exchange x and y."""
        x, w, y = self._axes
        return Contract(self.out_shape, self.weight, f"{y},{w}->{x}", self.bound)

    def magnitude(self) -> Primitive:
        """The same with |w|, or with the bound on it."""
        return self._magnitude

    @cached_property
    def _magnitude(self) -> Primitive:
        bound = np.abs(self.weight) if self.bound is None else self.bound
        return Contract(self.in_shape, bound, self.labels)

    def size_bound(self, size: Array) -> Array:
        """‖w‖ ‖s‖, both over the summed labels."""
        x, _, y = self._axes
        squared, scale = squares(size)
        norms = np.sqrt(squared.sum(axis=tuple(1 + x.index(a) for a in x if a not in y))) * scale
        kept = [a for a in x if a in y]
        order = [0, *(1 + kept.index(a) for a in y if a in kept)]
        norms = norms.transpose(order).reshape(len(size), *(self._sizes[a] if a in kept else 1 for a in y))
        return np.asarray(norms * self._norms.astype(size.dtype, copy=False), size.dtype)

    @cached_property
    def _norms(self) -> Array:
        """‖w‖, or that of the bound on it, over the summed labels; broadcastable to y."""
        _, w, y = self._axes
        weight = np.asarray(self.weight if self.bound is None else self.bound, np.float64)
        norms = np.sqrt(np.square(weight).sum(axis=tuple(w.index(a) for a in w if a not in y)))
        kept = [a for a in w if a in y]
        norms = norms.transpose([kept.index(a) for a in y if a in kept])
        return np.asarray(norms).reshape([self._sizes[a] if a in kept else 1 for a in y])

    def reach(self, mask: Array) -> Array:
        """Entries of y that share their free labels with a reached entry of x."""
        x, _, y = self._axes
        summed = tuple(axis for axis, label in enumerate(x) if label not in y)
        kept = [label for label in x if label in y]
        reached: Array = np.any(mask, axis=summed)
        order = [kept.index(label) for label in y if label in kept]
        shape = [self._sizes[label] if label in kept else 1 for label in y]
        return np.broadcast_to(reached.transpose(order).reshape(shape), self.out_shape)

    @property
    def fan_in(self) -> int:
        """Products in one sum."""
        x, _, y = self._axes
        return math.prod(self._sizes[label] for label in x if label not in y)

    @property
    def work(self) -> int:
        """One multiply-add for each combination of labels."""
        return math.prod(self._sizes.values())


def _same_order(given: Sequence[str], wanted: Sequence[str], sizes: Mapping[str, int]) -> bool:
    """Whether two orders of axes differ in axes of length 1 alone, which need no values moved."""
    return [a for a in given if sizes[a] != 1] == [a for a in wanted if sizes[a] != 1]


def _ordered(
    graph: Builder, x: str, given: Sequence[str], wanted: Sequence[str], sizes: Mapping[str, int]
) -> str:
    """Values in the wanted order of axes; the shape itself is right up to axes of length 1."""
    if _same_order(given, wanted, sizes):
        return x
    return graph.node("Transpose", x, perm=[given.index(a) for a in wanted])
