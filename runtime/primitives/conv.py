"""Conv: y = w ⋆ x — every convolution; and its transpose ConvTranspose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape
from .base import Primitive

if TYPE_CHECKING:
    from ..emit import Builder

Slices = tuple[slice, ...]

_CACHED = 4 << 20  # bytes that one matrix product reads, so that they are still in cache when it does


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


@dataclass(frozen=True, eq=False)
class Conv(Primitive):
    """y[n, m, o] = Σ_c Σ_t w[m, c, t] x[n, g(m)·C/G + c, window(o, t)], in any number of axes."""

    batch: int
    weight: Array  # (M, C/G, *kernel)
    window: Window
    group: int = 1

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        """(N, C, *spatial)."""
        return (self.batch, self.weight.shape[1] * self.group, *self.window.in_size)

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        """(N, M, *spatial)."""
        return (self.batch, self.weight.shape[0], *self.window.out_size)

    def matrix(self) -> sparse.csr_array:
        """Rows (n, m, o); the pattern of one output channel repeats for all channels of its group."""
        M, channels = self.weight.shape[:2]
        positions = self.window.positions()  # (O, taps)
        valid = np.broadcast_to((positions >= 0)[:, None, :], (len(positions), channels, positions.shape[1]))
        offsets = np.arange(channels)[:, None] * math.prod(self.window.in_size)
        columns = (positions[:, None, :] + offsets)[valid]  # of one output channel of group 0
        counts = valid.sum(axis=(1, 2))
        weights = self.weight.reshape(M, 1, channels, math.prod(self.window.kernel))
        values = np.broadcast_to(weights, (M, *valid.shape))[:, valid]  # (M, nnz of one channel)
        group_of = np.arange(M) // (M // self.group)
        per_group = channels * math.prod(self.window.in_size)
        one = columns + group_of[:, None] * per_group  # (M, nnz of one channel)
        image = per_group * self.group
        indices = (np.arange(self.batch)[:, None] * image + one.ravel()).ravel()
        indptr = np.concatenate([[0], np.cumsum(np.tile(counts, M * self.batch))])
        data = np.tile(values.ravel(), self.batch)
        return sparse.csr_array((data, indices, indptr), shape=(self.out_size, self.in_size))

    def apply(self, block: Array) -> Array:
        """Sum over channels and taps in one matrix product; tap by tap where each channel is by itself."""
        G, (M, channels) = self.group, self.weight.shape[:2]
        x = block.reshape(len(block) * self.batch, G, channels, *self.window.in_size)
        weight = self.weight.astype(block.dtype, copy=False).reshape(G, M // G, channels, *self.window.kernel)
        slide = _by_taps if channels == M // G == 1 or not self.window.kernel else _in_columns
        return slide(weight, x, self.window).reshape(len(block), *self.out_shape)

    def emit(self, graph: Builder, x: str) -> str:
        """One Conv; padding at the end is what the window reads beyond the input, if anything."""
        window = self.window
        ends = [
            (o - 1) * s + (k - 1) * d + 1 - p - i for i, o, k, s, d, p in zip(*window.fields(), strict=True)
        ]
        images = graph.reshape(x, self.in_shape[1:])
        if min(ends, default=0) < 0:  # the window leaves the last inputs unread
            images = _cropped(
                graph, images, [i + min(e, 0) for i, e in zip(window.in_size, ends, strict=True)]
            )
        mixed = graph.node(
            "Conv",
            images,
            graph.array(self.weight),
            group=self.group,
            strides=list(window.strides),
            dilations=list(window.dilations),
            pads=[*window.pads, *(max(e, 0) for e in ends)],
        )
        return graph.reshape(mixed, self.out_shape)

    @property
    def T(self) -> Primitive:
        """The transposed convolution."""
        return ConvTranspose(self.batch, self.weight, self.window, self.group)

    def magnitude(self) -> Primitive:
        """The same with |w|."""
        return self._magnitude

    @cached_property
    def _magnitude(self) -> Primitive:
        return Conv(self.batch, np.abs(self.weight), self.window, self.group)

    @property
    def fan_in(self) -> int:
        """Channels times taps."""
        return math.prod(self.weight.shape[1:])

    @property
    def work(self) -> int:
        """Multiply-adds, padding counted in."""
        return self.out_size * self.fan_in


@dataclass(frozen=True, eq=False)
class ConvTranspose(Primitive):
    """The transpose of the Conv with the same fields: scatters each position through the window."""

    batch: int
    weight: Array  # (M, C/G, *kernel), as in Conv
    window: Window
    group: int = 1

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        """(N, M, *spatial)."""
        return self.T.out_shape

    @property
    def out_shape(self) -> Shape:  # type: ignore[override]
        """(N, C, *spatial)."""
        return self.T.in_shape

    def matrix(self) -> sparse.csr_array:
        """The transpose of Conv's matrix."""
        return sparse.csr_array(self.T.matrix().T)

    def apply(self, block: Array) -> Array:
        """Tap by tap, as Conv, from outputs to inputs."""
        G, (M, channels) = self.group, self.weight.shape[:2]
        images = len(block) * self.batch
        y = block.reshape(images, G, M // G, *self.window.out_size)
        x = np.zeros((images, G, channels, *self.window.in_size), block.dtype)
        weight = self.weight.astype(block.dtype, copy=False).reshape(G, M // G, channels, *self.window.kernel)
        for tap, outputs, inputs in self.window.taps():
            mixed = _mix_channels(weight[(..., *tap)].swapaxes(1, 2), y[(..., *outputs)])  # type: ignore[arg-type]
            x[(..., *inputs)] += mixed  # type: ignore[arg-type]
        return x.reshape(len(block), *self.out_shape)

    def emit(self, graph: Builder, x: str) -> str:
        """At stride 1 a Conv with the flipped kernel, which is several times faster than ConvTranspose."""
        images = graph.reshape(x, self.in_shape[1:])
        window = self.window
        reach = [d * (k - 1) for k, d in zip(window.kernel, window.dilations, strict=True)]
        begin = [r - p for r, p in zip(reach, window.pads, strict=True)]
        end = [i - o + p for i, o, p in zip(window.in_size, window.out_size, window.pads, strict=True)]
        if set(window.strides) <= {1} and min(begin + end, default=0) >= 0:
            back = graph.node(
                "Conv",
                images,
                graph.array(self._flipped()),
                group=self.group,
                dilations=list(window.dilations),
                pads=[*begin, *end],
            )
            return graph.reshape(back, self.out_shape)
        full = graph.node(
            "ConvTranspose",
            images,
            graph.array(self.weight),
            group=self.group,
            strides=list(window.strides),
            dilations=list(window.dilations),
        )  # every position that a tap reaches, before padding is cut off
        sizes = [(o - 1) * s + r + 1 for o, s, r in zip(window.out_size, window.strides, reach, strict=True)]
        return graph.reshape(_shifted(graph, full, sizes, window.pads, window.in_size), self.out_shape)

    def _flipped(self) -> Array:
        """(C, M/G, *kernel): the weight of the stride-1 convolution that equals this transpose."""
        M, channels = self.weight.shape[:2]
        grouped = self.weight.reshape(self.group, M // self.group, channels, *self.window.kernel).swapaxes(
            1, 2
        )
        flipped = np.flip(grouped, tuple(range(3, grouped.ndim)))
        return flipped.reshape(self.group * channels, M // self.group, *self.window.kernel)

    @property
    def T(self) -> Primitive:
        """The convolution that this transposes."""
        return Conv(self.batch, self.weight, self.window, self.group)

    def magnitude(self) -> Primitive:
        """The same with |w|."""
        return self._magnitude

    @cached_property
    def _magnitude(self) -> Primitive:
        return ConvTranspose(self.batch, np.abs(self.weight), self.window, self.group)

    @property
    def fan_in(self) -> int:
        """Channels times the taps that can meet in one place."""
        taps: int = math.prod(
            -(-k // (s // math.gcd(s, d)))
            for k, s, d in zip(self.window.kernel, self.window.strides, self.window.dilations, strict=True)
        )
        return int(self.weight.shape[0]) // self.group * taps

    @property
    def work(self) -> int:
        """As much as the convolution."""
        return self.T.work


def _in_columns(weight: Array, x: Array, window: Window) -> Array:
    """Slide weight (G, M/G, C/G, *kernel) over x (n, G, C/G, *spatial) to (n, G, M/G, *out).

    What the outputs read is copied into columns and multiplied by the weight as one matrix: as many images,
    or rows of one image, at a time as the columns stay in cache.
    """
    G, M, *read = weight.shape
    matrix = weight.reshape(G, M, math.prod(read))
    height, *rest = window.out_size
    y = np.zeros((len(x), G, M, height, *rest), x.dtype)
    if not y.size:
        return y
    per_row = matrix.shape[2] * G * math.prod(rest) * x.itemsize
    rows = max(1, _CACHED // max(1, per_row))
    images = max(1, rows // max(1, height))
    for first in range(0, len(x), images):
        padded = window.padded(x[first : first + images])
        for top in range(0, height, rows):
            part = y[first : first + images, :, :, top : top + rows]
            columns = window.read(padded, top, part.shape[3]).reshape(
                G, matrix.shape[2], part.size // (G * M)
            )
            product = (matrix @ columns).reshape(G, M, len(part), *part.shape[3:])
            part[:] = np.moveaxis(product, 2, 0)
    return y


def _by_taps(weight: Array, x: Array, window: Window) -> Array:
    """The same, one product over channels for each tap."""
    y = np.zeros((*x.shape[:2], weight.shape[1], *window.out_size), x.dtype)
    for tap, outputs, inputs in window.taps():
        y[(..., *outputs)] += _mix_channels(weight[(..., *tap)], x[(..., *inputs)])  # type: ignore[arg-type]
    return y


def _mix_channels(weight: Array, x: Array) -> Array:
    """Σ_c weight[g, m, c] x[n, g, c, *s] → (n, g, m, *s)."""
    if weight.shape[2] == 1:  # depthwise: a matrix product of inner length 1 would only cost calls
        return weight.reshape(*weight.shape[:2], *(1,) * (x.ndim - 3)) * x
    columns = x.reshape(*x.shape[:3], math.prod(x.shape[3:]))
    return (weight @ columns).reshape(*x.shape[:2], weight.shape[1], *x.shape[3:])


def _cropped(graph: Builder, x: str, sizes: list[int]) -> str:
    """The first `sizes` positions of each spatial axis of (images, channels, *spatial)."""
    axes = list(range(2, 2 + len(sizes)))
    return graph.node(
        "Slice", x, graph.constant([0] * len(sizes)), graph.constant(sizes), graph.constant(axes)
    )


def _shifted(graph: Builder, x: str, sizes: list[int], starts: Shape, wanted: Shape) -> str:
    """Positions start to start + wanted of each spatial axis, zeros beyond the `sizes` that exist."""
    missing = [max(0, start + w - size) for start, w, size in zip(starts, wanted, sizes, strict=True)]
    if any(missing):
        pads = [0] * (2 + len(sizes)) + [0, 0, *missing]
        x = graph.node("Pad", x, graph.constant(pads))
    ends = [start + w for start, w in zip(starts, wanted, strict=True)]
    axes = list(range(2, 2 + len(sizes)))
    return graph.node("Slice", x, graph.constant(list(starts)), graph.constant(ends), graph.constant(axes))
