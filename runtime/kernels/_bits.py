"""Masks as bits: 64 flags in one word, and 64 words turned, so that dead units are never looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WORD = 64
_HALF = np.uint64(0x00000000FFFFFFFF)


@intrinsic
def flags(typingctx: Any, values: Any, at: Any, above: Any):
    """Which of the 64 integers from values[at] on, a flat index, are > above: bit i for values[at + i]."""
    signature = types.uint64(values, types.int64, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, args[0]).data
        element = context.get_value_type(kind.dtype)
        vector = ir.VectorType(element, WORD)
        place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        found = builder.load(place, align=kind.dtype.bitwidth // 8)
        limit = ir.Constant(vector, ir.Undefined)
        limit = builder.insert_element(limit, builder.trunc(args[2], element), ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WORD), None)
        limit = builder.shuffle_vector(limit, limit, everywhere)
        compare = builder.icmp_signed if kind.dtype.signed else builder.icmp_unsigned
        return builder.bitcast(compare(">", found, limit), ir.IntType(WORD))

    return signature, codegen


@intrinsic
def bit_count(typingctx: Any, word: Any):
    """How many bits of a word are set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def lowest_bit(typingctx: Any, word: Any):
    """The place of the lowest bit that is set; there is one."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@njit(nogil=True, cache=True)
def turned(words):
    """Transpose 64 words in place: bit i of word j becomes bit j of word i.

    Of squares of 64, 32, ... 2 bits the two quarters off the diagonal change places.
    """
    size, low = 32, _HALF
    while size:
        shift = np.uint64(size)
        for first in range(0, WORD, 2 * size):
            for i in range(first, first + size):
                swap = ((words[i] >> shift) ^ words[i + size]) & low
                words[i + size] ^= swap
                words[i] ^= swap << shift
        size >>= 1
        low ^= low << np.uint64(size)
