"""Window: where a sliding window reads; what convolutions and pooling share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..arrays import Array, Shape

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Window:
    """Where a sliding window reads: output position o and tap t read input o·stride + t·dilation - pad.

    Padding at the end is implied by `out_size`. Each field has one entry per spatial axis.
    """

    in_size: Shape
    out_size: Shape
    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: Shape  # at the begin

    def fields(self) -> tuple[Shape, Shape, Shape, Shape, Shape, Shape]:
        """All fields, to be zipped over the axes."""
        return self.in_size, self.out_size, self.kernel, self.strides, self.dilations, self.pads

    def taps(self) -> Iterator[tuple[Shape, Slices, Slices]]:
        """For each tap, the output positions it serves and the input positions it reads there."""
        for tap in product(*map(range, self.kernel)):
            outputs, inputs = [], []
            for t, i, o, _, s, d, p in zip(tap, *self.fields(), strict=True):
                shift = t * d - p
                first = max(0, -(shift // s))
                last = min(o, (i - 1 - shift) // s + 1)
                if first >= last:
                    break
                outputs.append(slice(first, last))
                inputs.append(slice(first * s + shift, (last - 1) * s + shift + 1, s))
            else:
                yield tap, tuple(outputs), tuple(inputs)

    @property
    def tiles(self) -> bool:
        """Whether the windows lie side by side from the first position on: no overlap, gap or padding."""
        return (
            self.kernel == self.strides
            and not any(self.pads)
            and set(self.dilations) <= {1}
            and all(o * k <= i for i, o, k in zip(self.in_size, self.out_size, self.kernel, strict=True))
        )

    def positions(self) -> Array:
        """(outputs, taps) flat input position read, or -1 in the padding."""
        grid = np.zeros((1, 1), np.int64)
        for i, o, k, s, d, p in zip(*self.fields(), strict=True):
            axis = np.arange(o)[:, None] * s + np.arange(k) * d - p  # (o, k)
            axis = np.where((axis >= 0) & (axis < i), axis, -1)
            outer, inner = grid[:, None, :, None], axis[None, :, None, :]
            merged = np.where((outer < 0) | (inner < 0), -1, outer * i + inner)
            grid = merged.reshape(grid.shape[0] * o, grid.shape[1] * k)
        return grid
