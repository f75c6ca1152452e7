"""Conv: y = w ⋆ x — every convolution; and its transpose ConvTranspose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ..arrays import Array, Shape
from .base import Primitive, squares
from .window import Window

if TYPE_CHECKING:
    from ..emit import Builder

# Channels of a sub-pixel convolution up to which it is faster than ConvTranspose: one block of its vectors.
_FEW_CHANNELS = 16
CACHED = 4 << 20  # bytes that one matrix product reads, so that they are still in cache when it does


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
            graph.array(self.weight, "weight"),
            group=self.group,
            strides=list(window.strides),
            dilations=list(window.dilations),
            pads=[*window.pads, *(max(e, 0) for e in ends)],
        )
        return graph.reshape(graph.shaped(mixed, self.out_shape[1:]), self.out_shape)

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

    def size_bound(self, size: Array) -> Array:
        """‖w[m]‖ times the norm of what the window reads: one sum over channels and one box filter."""
        G, (M, channels) = self.group, self.weight.shape[:2]
        squared, scale = squares(size)
        x = squared.reshape(len(size) * self.batch, G, channels, *self.window.in_size).sum(axis=2)
        box = np.ones((G, 1, 1, *self.window.kernel), size.dtype)
        read = np.sqrt(_by_taps(box, x[:, :, None], self.window)) * scale  # (n, G, 1, *out)
        norms = self._norms.astype(size.dtype, copy=False).reshape(G, M // G, *(1,) * len(self.window.kernel))
        return np.asarray(read * norms, size.dtype).reshape(len(size), *self.out_shape)

    @cached_property
    def _norms(self) -> Array:
        """‖w[m]‖, (M,)."""
        rows = self.weight.reshape(len(self.weight), math.prod(self.weight.shape[1:]))
        return np.asarray(np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)))

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
        """A Conv where one is faster: at stride 1, and in sub-pixel form towards few channels."""
        images = graph.reshape(x, self.in_shape[1:])
        back = self._emit_flipped(graph, images)
        if back is None:
            back = self._emit_sub_pixel(graph, images)
        if back is None:
            back = self._emit_transposed(graph, images)
        return graph.reshape(graph.shaped(back, self.out_shape[1:]), self.out_shape)

    def _emit_flipped(self, graph: Builder, images: str) -> str | None:
        """At stride 1: a Conv with the flipped kernel, several times faster than ConvTranspose."""
        window = self.window
        begin = [
            d * (k - 1) - p for k, d, p in zip(window.kernel, window.dilations, window.pads, strict=True)
        ]
        end = [i - o + p for i, o, p in zip(window.in_size, window.out_size, window.pads, strict=True)]
        if set(window.strides) != {1} or min(begin + end) < 0:
            return None
        return graph.node(
            "Conv",
            images,
            graph.array(self._flipped(), "weight"),
            group=self.group,
            dilations=list(window.dilations),
            pads=[*begin, *end],
        )

    def _flipped(self) -> Array:
        """(C, M/G, *kernel): the weight of the stride-1 convolution that equals this transpose."""
        M, channels = self.weight.shape[:2]
        grouped = self.weight.reshape(self.group, M // self.group, channels, *self.window.kernel).swapaxes(
            1, 2
        )
        flipped = np.flip(grouped, tuple(range(3, grouped.ndim)))
        return flipped.reshape(self.group * channels, M // self.group, *self.window.kernel)

    def _emit_sub_pixel(self, graph: Builder, images: str) -> str | None:
        """Towards an image of few channels: one Conv computes s·s pixels at each position (Shi et al., 2016).

        x[s q + f] = Σ w[t] y[q + (f + p - t) / s] over the taps t ≡ f + p (mod s): for each phase f a
        stride-1 convolution with every s-th tap. arXiv:1609.05158.
        """
        window, s = self.window, self.window.strides[0]
        M, channels = self.weight.shape[:2]
        fits = len(window.strides) == 2 and set(window.strides) == {s} and set(window.dilations) == {1}
        if not fits or not graph.fixed or self.group > 1 or channels * s * s > _FEW_CHANNELS:
            return None
        quotients = [-(-i // s) for i in window.in_size]
        weight, begin, end = self.weight, [], []
        for axis, p in enumerate(window.pads):
            weight, low, high = _phases(weight, 2 + 2 * axis, s, p)
            begin.append(-low)
            end.append(quotients[axis] + high - window.out_size[axis])
        if min(begin + end) < 0:
            return None
        # (M, C, fy, ky, fx, kx) → (C fy fx, M, ky, kx), as DepthToSpace reads it
        weight = weight.transpose(1, 2, 4, 0, 3, 5).reshape(-1, M, *weight.shape[3::2])
        mixed = graph.node("Conv", images, graph.array(weight, "weight"), pads=[*begin, *end])
        spread = graph.node("DepthToSpace", mixed, blocksize=s, mode="CRD")
        whole = [q * s for q in quotients]
        return spread if whole == list(window.in_size) else _cropped(graph, spread, list(window.in_size))

    def _emit_transposed(self, graph: Builder, images: str) -> str:
        """One ConvTranspose; what its attributes cannot say is padded with zeros behind it."""
        window = self.window
        full = [
            (o - 1) * s + d * (k - 1) + 1
            for o, s, d, k in zip(
                window.out_size, window.strides, window.dilations, window.kernel, strict=True
            )
        ]
        beyond = [f - p - i for f, p, i in zip(full, window.pads, window.in_size, strict=True)]
        back = graph.node(
            "ConvTranspose",
            images,
            graph.array(self.weight, "weight"),
            group=self.group,
            strides=list(window.strides),
            dilations=list(window.dilations),
            pads=[*window.pads, *(max(0, b) for b in beyond)],
        )
        missing = [max(0, -b) for b in beyond]
        if any(missing):
            back = graph.node("Pad", back, graph.constant([0] * (4 + len(missing)) + missing))
        return back

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
    rows = max(1, CACHED // max(1, per_row))
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


def _phases(weight: Array, axis: int, s: int, pad: int) -> tuple[Array, int, int]:
    """Split the kernel's axis in two, (phases, taps), zeros where a phase has no tap.

    Returns:
        The weight, and the least and the largest shift (f + pad - t) / s that its taps read at.
    """
    kernel = weight.shape[axis]
    taps = [(f, (f + pad - t) // s, t) for f in range(s) for t in range(kernel) if (f + pad - t) % s == 0]
    low, high = min(shift for _, shift, _ in taps), max(shift for _, shift, _ in taps)
    split = np.zeros((*weight.shape[:axis], s, high - low + 1, *weight.shape[axis + 1 :]), weight.dtype)
    by_phase, by_tap = np.moveaxis(split, (axis, axis + 1), (0, 1)), np.moveaxis(weight, axis, 0)
    for f, shift, t in taps:
        by_phase[f, shift - low] = by_tap[t]
    return split, low, high
