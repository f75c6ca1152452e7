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

    def padded(self, x: Array) -> Array:
        """(…, *in_size) in its padding: as many entries along each axis as the window passes over."""
        lead = x.shape[: x.ndim - len(self.in_size)]
        extents: list[int] = []
        inside: list[slice] = []
        given: list[slice] = []
        for i, o, k, s, d, p in zip(*self.fields(), strict=True):
            extent = max(0, (o - 1) * s + (k - 1) * d + 1)
            first = max(0, p)
            last = max(first, min(extent, i + p))
            extents.append(extent)
            inside.append(slice(first, last))
            given.append(slice(first - p, last - p))
        if tuple(extents) == self.in_size and not any(self.pads):
            return x
        room = np.zeros((*lead, *extents), x.dtype)
        room[(..., *inside)] = x[(..., *given)]  # type: ignore[arg-type, index]
        return room

    def read(self, padded: Array, top: int, rows: int) -> Array:
        """What taps read at output positions top … top + rows of the first axis, from a padded tensor.

        (N, G, C, …) to a view (G, C, *kernel, N, rows, *out_size[1:]).
        """
        steps = padded.strides[3:]
        taps = [d * step for d, step in zip(self.dilations, steps, strict=True)]
        moves = [s * step for s, step in zip(self.strides, steps, strict=True)]
        N, G, C = padded.shape[:3]
        return np.lib.stride_tricks.as_strided(
            padded[:, :, :, top * self.strides[0] :],
            (G, C, *self.kernel, N, rows, *self.out_size[1:]),
            (*padded.strides[1:3], *taps, padded.strides[0], *moves),
            writeable=False,
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
