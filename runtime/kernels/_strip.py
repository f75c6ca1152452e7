"""The strip: the rows that fill no vector, summed by vectors that lie along the target channels.

Rows of W come in vectors; of those left over, each costs a whole vector there. Here a few rows cost a vector
for every 16 target channels instead, dead channels among them:

    sums[r, s] = Σₑ w[wrows[e] + channel of slot s] · a[arows[e], r].

Where the processor can permute two vectors by indices, each vector of slots takes the live ones of twice as
many channels, and so few slots are dead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ._emit import AVX512, INT32, INT64, VECTOR_BYTES, Emitter, int64, pointers

NARROW = 4  # numbers in the vector that serves blocks of up to so many channels
R_STRIP = 8 if AVX512 else 4  # rows of one strip: half of the numbers in a vector
_SUMS = 20 if AVX512 else 8  # vectors of sums of one strip; with the operands they fill the registers
_PERMUTED = 3  # rows from which permuting weights pays
_NAMES = (
    *("R", "V", "lanes", "n", "e0", "arows", "wrows", "a", "w", "offsets", "second", "index"),
    *("v0", "k0", "sums", "u0", "begins", "slot", "out", "based", "base", "brows"),
)


def rest_of(itemsize: int, K: int) -> int:
    """How many of K rows strips compute: those behind whole vectors, if they fill at most half of one."""
    lanes = VECTOR_BYTES // itemsize
    rest = K % lanes
    return rest if 2 * rest <= lanes else 0


def _vectors_of(R: int) -> int:
    """Vectors of one strip of R rows at most."""
    return min(4, _SUMS // R)


def strip_width(itemsize: int, channels: int) -> int:
    """Numbers in each row of a block of weights for so many target channels: whole vectors."""
    lanes = VECTOR_BYTES // itemsize
    return NARROW if channels <= NARROW else -(-channels // lanes) * lanes


@intrinsic
def _strip(
    typingctx: Any, R: Any, V: Any, lanes: Any, n: Any, e0: Any, arows: Any, wrows: Any, a: Any, w: Any,
    offsets: Any, second: Any, index: Any, v0: Any, k0: Any, sums: Any,
    u0: Any, begins: Any, slot: Any, out: Any, based: Any, base: Any, brows: Any,
):  # fmt: skip
    """Run the strip of R rows and V vectors of `lanes` slots, chosen at run time.

    Vector v reads the weights from offsets[v0 + v] on; permuted ones also those `second` further, and
    index[v0 + v] says which of both. Its slots are those of the units from u0 + begins[v0 + v] on.
    """
    i = types.int64
    signature = types.void(
        *(i, i, i, i, i, arows, wrows, a, w, offsets, i, index, i, i, sums),
        *(i, begins, slot, out, i, base, brows),
    )

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        kinds = dict(zip(_NAMES, signature.args, strict=True))
        given = pointers(context, builder, kinds, dict(zip(_NAMES, args, strict=True)))
        number = context.get_value_type(kinds["a"].dtype)
        full = VECTOR_BYTES // (kinds["a"].dtype.bitwidth // 8)
        end = builder.function.append_basic_block("end")
        key = builder.add(builder.mul(given["lanes"], int64(256)), builder.mul(given["V"], int64(16)))
        switch = builder.switch(builder.add(key, given["R"]), end)
        for R_ in range(1, R_STRIP + 1):
            for lanes_, V_ in sorted({(NARROW, 1), *((full, v) for v in range(1, _vectors_of(R_) + 1))}):
                block = builder.function.append_basic_block("strip")
                switch.add_case(int64(lanes_ * 256 + V_ * 16 + R_), block)
                builder.position_at_end(block)
                permuted = AVX512 and lanes_ == full and R_ >= _PERMUTED
                _Strip(builder, given, number, lanes_, R_, V_, permuted).emit(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, codegen


class _Strip(Emitter):
    """One strip of R rows and V vectors of slots."""

    def __init__(
        self, builder: Any, given: dict[str, Any], number: Any, lanes: int, R: int, V: int, permuted: bool
    ) -> None:
        super().__init__(builder, given, number, lanes)
        self.R, self.V, self.permuted = R, V, permuted

    def _permute(self, low: Any, index: Any, high: Any) -> Any:
        """The numbers of two vectors that the indices name."""
        kind = ir.FunctionType(self.vector, [self.vector, index.type, self.vector])
        name = f"llvm.x86.avx512.vpermi2var.{'ps' if self.single else 'pd'}.512"
        function = cgutils.get_or_insert_function(self.builder.function.module, kind, name)
        return self.builder.call(function, [low, index, high])

    def _indices(self, v: Any) -> Any:
        """Which weights a vector's slots take."""
        builder = self.builder
        kind = ir.VectorType(INT32, self.lanes)
        at = builder.gep(self.given["index"], [builder.mul(v, int64(self.lanes))])
        found = builder.load(builder.bitcast(at, kind.as_pointer()), align=4)
        return found if self.single else builder.sext(found, ir.VectorType(INT64, self.lanes))

    def emit(self, end: Any) -> None:
        """Emit the blocks from the builder's position to a branch to `end`."""
        builder, given = self.builder, self.given
        vectors = [builder.add(given["v0"], int64(v)) for v in range(self.V)]
        offsets = [self.entry("offsets", v) for v in vectors]
        indices = [self._indices(v) for v in vectors] if self.permuted else []

        def step(e: Any, sums: list[Any]) -> list[Any]:
            weights = builder.gep(given["w"], [self.entry("wrows", e)])
            row = builder.mul(self.entry("arows", e), given["stride_a"])
            numbers = builder.gep(given["a"], [builder.add(row, given["k0"])])
            factors = [self.splat(builder.load(builder.gep(numbers, [int64(r)]))) for r in range(self.R)]
            after = []
            for v, offset in enumerate(offsets):
                place = builder.gep(weights, [offset])
                operand = self.load(place)
                if self.permuted:
                    high = self.load(builder.gep(place, [given["second"]]))
                    operand = self._permute(operand, indices[v], high)
                for r, factor in enumerate(factors):
                    after.append(builder.call(self.fmuladd, [operand, factor, sums[v * self.R + r]]))
            return after

        nothing = [ir.Constant(self.vector, None)] * (self.V * self.R)
        for i, total in enumerate(self.summed(nothing, step)):
            v, r = divmod(i, self.R)
            at = builder.add(builder.mul(vectors[v], int64(self.lanes)), self._row_of_sums(r))
            self.store(total, builder.gep(given["sums"], [at]))
        self._emit_outputs(self.entry("begins", vectors[0]), end)

    def _row_of_sums(self, r: int) -> Any:
        return self.builder.mul(int64(r), self.given["stride_sums"])

    def _emit_outputs(self, first: Any, end: Any) -> None:
        """Copy the sums of each unit from its slot to its row, and add the base's."""
        builder, given = self.builder, self.given
        last = self.entry("begins", builder.add(given["v0"], int64(self.V)))
        start = builder.block
        body, with_base, write = self.blocks(3)
        builder.branch(body)
        builder.position_at_end(body)
        j = builder.phi(INT64)
        slot, unit = self.entry("slot", j), builder.add(given["u0"], j)
        found = [
            builder.load(builder.gep(given["sums"], [builder.add(slot, self._row_of_sums(r))]))
            for r in range(self.R)
        ]
        builder.cbranch(builder.icmp_signed("!=", given["based"], int64(0)), with_base, write)

        builder.position_at_end(with_base)
        row = self.entry("brows", unit)
        present = builder.icmp_signed(">=", row, int64(0))
        row = builder.mul(builder.select(present, row, int64(0)), given["stride_base"])
        base = builder.gep(given["base"], [builder.add(row, given["k0"])])
        added = []
        for r, total in enumerate(found):
            more = builder.load(builder.gep(base, [int64(r)]))
            more = builder.select(present, more, ir.Constant(more.type, 0))
            added.append(builder.fadd(total, more))
        builder.branch(write)

        builder.position_at_end(write)
        totals = self.phis((found, body), (added, with_base))
        at = builder.add(builder.mul(unit, given["stride_out"]), given["k0"])
        place = builder.gep(given["out"], [at])
        for r, total in enumerate(totals):
            builder.store(total, builder.gep(place, [int64(r)]))
        following = builder.add(j, int64(1))
        j.add_incoming(first, start)
        j.add_incoming(following, write)
        builder.cbranch(builder.icmp_signed("<", following, last), body, end)


@njit(nogil=True, cache=True)
def _slots(width, lanes, permuted, c0, channels, u0, u1, offsets, index, begins, slot):
    """Give the units u0 ≤ u < u1 slots: slot[u - u0]; return the number of vectors.

    Permuted, a vector takes up to `lanes` units of 2 · lanes channels; else every channel has a slot.
    Vector v's first unit is u0 + begins[v], and behind the last vector stands the number of units.
    """
    count, u = 0, u0
    while u < u1:
        offset = (channels[u] - c0) // lanes * lanes
        seen = lanes
        if permuted:
            offset, seen = max(0, min(offset, width - 2 * lanes)), 2 * lanes
        offsets[count], begins[count] = offset, u - u0
        last = min(u + lanes, u1)
        i = 0
        while u < last:
            c = channels[u] - c0 - offset
            if c >= seen:
                break
            if permuted:
                index[count, i] = c
                c = i
            slot[u - u0] = count * lanes + c
            i += 1
            u += 1
        count += 1
    begins[count] = u1 - u0
    return count


@njit(nogil=True, cache=True)
def strips(
    n, arows, wrows, a, w, width, c0, channels, u0, u1, out, based, base, brows, k0, rest,
    sums, offsets, index, begins, slot,
):  # fmt: skip
    """out[u, k] = base[brows[u], k] + Σₑ w[wrows[e] + channels[u] - c0] a[arows[e], k], k0 ≤ k < k0 + rest.

    As `tiles`, for units u0 ≤ u < u1 and at most R_STRIP rows of W. The last five arrays are for its own use.
    """
    full = VECTOR_BYTES // w.itemsize
    lanes = full if width % full == 0 else NARROW
    permuted = AVX512 and lanes == full and rest >= _PERMUTED
    vectors = _slots(width, lanes, permuted, c0, channels, u0, u1, offsets, index, begins, slot)
    second = lanes if width >= 2 * lanes else 0
    most = min(4, _SUMS // rest)
    pieces = (vectors + most - 1) // most
    for i in range(pieces):
        v0, v1 = i * vectors // pieces, (i + 1) * vectors // pieces
        _strip(rest, v1 - v0, lanes, n, 0, arows, wrows, a, w, offsets, second, index, v0, k0, sums,
               u0, begins, slot, out, based, base, brows)  # fmt: skip


@njit(nogil=True, cache=True)
def strip_room(width, rest, weights):
    """The last five arrays of `strips`, for blocks of `width` channels."""
    vectors = width // NARROW + 1
    lanes = VECTOR_BYTES // weights.itemsize
    return (
        np.empty((rest, vectors * lanes), weights.dtype),
        np.zeros(vectors, np.int64),
        np.zeros((vectors, lanes), np.int32),
        np.zeros(vectors + 1, np.int64),
        np.empty(width, np.int64),
    )
