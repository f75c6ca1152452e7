"""MatMulNBits of onnxruntime (com.microsoft): y = A Wᵀ + bias, W in blocks of integers of 2 to 8 bits.

Linear in A: W[n, k] = (q[n, k] - zero point) · scale, of the block that k lies in. Also affine in the bias.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

import numpy as np

from ..runtime.primitives import Array
from ._quantization import numbers
from ._rule import Local, Site, lowers
from ._smooth import plus
from .matmul import times

_A, _B, _SCALES, _ZEROS, _GROUPS, _BIAS = range(6)
_INTEGERS = 4  # the accuracy level at which onnxruntime rounds A to bytes


@lowers("MatMulNBits", domain="com.microsoft", linear_in=(_A, _BIAS))
def matmul_n_bits(site: Site) -> Local:
    """Multiply by the numbers that the bits stand for."""
    if site.attribute("accuracy_level", 0) == _INTEGERS:
        raise site.refuse("accuracy_level 4 rounds its input to bytes; set it to 0 or 1")
    if site.attribute("weight_prepacked", 0):
        raise site.refuse("its weight is packed for one machine; use the model before that")
    weight = _weight(site).T
    shape = (*site.shape(_A)[:-1], weight.shape[1])
    local = (
        Local(times(site.shape(_A), weight, 0))
        if site.active(_A)
        else Local((), np.asarray(site.value(_A) @ weight))
    )
    return plus(site, local, _BIAS, shape) if site.has(_BIAS) else local


def _weight(site: Site) -> Array:
    """W, (N, K)."""
    rows, columns, bits = (int(site.attribute(name)) for name in ("N", "K", "bits"))
    size = int(site.attribute("block_size"))
    blocks = -(-columns // size)
    if 0 in site.shape(_B):  # left out: the product is 0
        return np.zeros((rows, columns))
    q = _unpacked(site.value(_B).reshape(rows, blocks, -1), bits)[..., :size]
    scales = numbers(site, _SCALES).reshape(rows, blocks)
    zeros: Array = np.full(scales.shape, 2.0 ** (bits - 1))
    if site.has(_ZEROS):
        given = site.value(_ZEROS)
        packed = given.dtype == np.uint8
        zeros = _unpacked(given.reshape(rows, -1), bits)[:, :blocks] if packed else given.reshape(zeros.shape)
    block = np.arange(columns) // size
    if site.has(_GROUPS):
        block = site.value(_GROUPS)[:columns]
    return np.asarray((q.reshape(rows, -1)[:, :columns] - zeros[:, block]) * scales[:, block])


def _unpacked(data: Array, bits: int) -> Array:
    """Unsigned integers of a few bits from the bytes along the last axis, the low bits first."""
    every = np.unpackbits(data, axis=-1, bitorder="little")
    count = every.shape[-1] // bits
    places = every[..., : count * bits].reshape(*data.shape[:-1], count, bits)
    return np.asarray((places * (1 << np.arange(bits))).sum(-1))
