"""DFT, STFT: y[k] = Σ_j x[j] exp(∓2πi jk / n) along one axis, complex numbers as pairs; STFT in windows.

Linear in x: cosines and sines as a matrix. The inverse divides by n; onesided leaves out what conjugates
repeat, and the inverse of that gives real numbers. A signal longer than n is cut, a shorter one padded by 0.
onnxruntime rounds all entries of a transform in parts of the largest, as fast transforms do; and in float64
its inverse of a length that is no power of 2 is only good to 4e-9.
https://onnx.ai/onnx/operators/onnx__DFT.html, …STFT.html
"""

from __future__ import annotations

import math

import numpy as np

from ..runtime.primitives import Array, Broadcast, Contract, Primitive, Reshape, Scale, chain
from ..runtime.rounding import growth
from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("DFT", linear_in=(0,))
def dft(site: Site) -> Local:
    """Transform along one axis."""
    shape = site.shape()
    (axis,) = site.integers("axis", (1,) if site.opset < 20 else (-2,)) or ()
    axis %= len(shape)
    inverse, onesided = bool(site.attribute("inverse", 0)), bool(site.attribute("onesided", 0))
    length = shape[axis]
    n = (site.integers("dft_length") or (2 * (length - 1) if inverse and onesided else length,))[0]
    weight = _waves(length, n, shape[-1], inverse=inverse, onesided=onesided)
    split = (math.prod(shape[:axis]), length, math.prod(shape[axis + 1 : -1]), shape[-1])
    transformed = Contract(split, weight, "ajbc,jckd->akbd", _bound(weight, n, inverse=inverse))
    out_shape = (*shape[:axis], weight.shape[2], *shape[axis + 1 : -1], weight.shape[3])
    return Local(chain(Reshape(shape, split), transformed, Reshape(transformed.out_shape, out_shape)))


@lowers("STFT", linear_in=(0, 2), products=((0, 2),))
def stft(site: Site) -> Local:
    """Cut out the frames, weigh them by the window and transform each.

    https://onnx.ai/onnx/operators/onnx__STFT.html
    """
    batch, samples = site.shape(0)[:2]
    (step,) = site.integers("frame_step") or ()
    (n,) = site.integers("frame_length") or (site.shape(2)[0] if site.has(2) else samples,)
    entries = positions(site).reshape(batch, samples, -1)
    starts = np.arange((samples - n) // step + 1) * step
    frames = gathered(site, entries[:, starts[:, None] + np.arange(n)])  # (N, F, n, c)
    onesided = bool(site.attribute("onesided", 1))
    weight = _waves(n, n, entries.shape[-1], inverse=False, onesided=onesided)
    transformed = Contract(frames.out_shape, weight, "afjc,jckd->afkd", _bound(weight, n, inverse=False))
    if site.active(2):
        held = frames.apply(site.value(0)[None])[0]
        column = (n, 1)
        spread = [Reshape((n,), column), Broadcast(column, held.shape), Scale(held.shape, held)]
        return Local({2: chain(*spread, transformed)})
    windowed: list[Primitive] = []
    if site.has(2):
        windowed = [Scale(frames.out_shape, site.value(2)[:, None])]
    return Local(chain(frames, *windowed, transformed))


def _waves(length: int, n: int, parts: int, *, inverse: bool, onesided: bool) -> Array:
    """Cosines and sines, (length, parts of x, outputs, parts of y); rows beyond n are 0."""
    halved = n // 2 + 1
    read = min(length, halved if inverse and onesided else n)
    outputs = halved if onesided and not inverse else n
    angle = 2 * np.pi / n * (np.outer(np.arange(read), np.arange(outputs)) % n)
    cosine, sine = np.cos(angle), np.sin(angle) if inverse else -np.sin(angle)
    weight = np.zeros((length, 2, outputs, 2))
    weight[:read, 0, :, 0], weight[:read, 0, :, 1] = cosine, sine
    weight[:read, 1, :, 0], weight[:read, 1, :, 1] = -sine, cosine
    if inverse:
        weight /= n
    if inverse and onesided:  # each pair of conjugates comes once
        alone = 2 * np.arange(read) % n == 0
        weight[:read] *= np.where(alone, 1, 2)[:, None, None, None]
        return weight[..., :1]
    return weight[:, :parts]


def _bound(weight: Array, n: int, *, inverse: bool) -> Array:
    """What onnxruntime's roundings are in parts of: not |weight|, which is 0 where its waves are not quite.

    Powers of 2 go through butterflies, whose errors are in parts of Σ |x|. Other lengths are convolved with a
    chirp, whose angles grow to πn before they are rounded: two of them make an error of 2πn·u. (Measured on
    256 random signals for each n, at most, in parts of u·Σ |x|: 15 for n = 10, 110 for n = 100, 436 for
    n = 1000, 456 for n = 997, 1.0 for n = 1024.)
    """
    size = (
        1.0 if n & (n - 1) == 0 else max(1.0, 2 * np.pi * n / growth(weight.shape[0] * weight.shape[1], 1.0))
    )
    return np.full(weight.shape, size / n if inverse else size)
