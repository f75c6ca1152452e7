"""The tile: out[c, k] = base[c, k] + Σₑ w[wrows[e] + channels[c]] · a[arows[e], k], summed in registers.

Everything heavy is this one sum: `e` runs over the active units that a few outputs read, `c` over up to
C_TILE of these outputs, `k` over one or a few vectors of rows of W. Loops that numba compiles cannot keep
the sums in registers, because to LLVM every store may change every array; so the loop is written in LLVM's
own language, with vector types. LLVM splits the vectors on machines whose registers are narrower.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ._emit import AVX512, INT32, INT64, VECTOR_BYTES, Emitter, int64, pointers

C_TILE = 8 if AVX512 else 6  # outputs of one tile
V_TILE = 3 if AVX512 else 2  # vectors of one tile; its sums and operands fill the registers
ENTRIES = 256  # summed at a stretch, so that their rows of `a` stay in the first cache from tile to tile

_NAMES = (
    *("C", "V", "n", "e0", "arows", "wrows", "a", "w", "c0", "channels", "u0", "k0"),
    *("out", "based", "base", "brows"),
)


@intrinsic
def _tile(
    typingctx: Any, C: Any, V: Any, n: Any, e0: Any, arows: Any, wrows: Any, a: Any, w: Any,
    c0: Any, channels: Any, u0: Any, k0: Any, out: Any, based: Any, base: Any, brows: Any,
):  # fmt: skip
    """Run the tile of C outputs and V vectors, chosen at run time."""
    i = types.int64
    signature = types.void(i, i, i, i, arows, wrows, a, w, i, channels, i, i, out, i, base, brows)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        kinds = dict(zip(_NAMES, signature.args, strict=True))
        given = pointers(context, builder, kinds, dict(zip(_NAMES, args, strict=True)))
        number = context.get_value_type(kinds["a"].dtype)
        lanes = VECTOR_BYTES // (kinds["a"].dtype.bitwidth // 8)
        end = builder.function.append_basic_block("end")
        switch = builder.switch(builder.add(builder.mul(given["V"], int64(16)), given["C"]), end)
        for V_ in range(1, V_TILE + 1):
            for C_ in range(1, C_TILE + 1):
                block = builder.function.append_basic_block("tile")
                switch.add_case(int64(V_ * 16 + C_), block)
                builder.position_at_end(block)
                _Tile(builder, given, number, lanes, C_, V_).emit(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, codegen


class _Tile(Emitter):
    """One tile of C outputs and V vectors."""

    def __init__(self, builder: Any, given: dict[str, Any], number: Any, lanes: int, C: int, V: int) -> None:
        super().__init__(builder, given, number, lanes)
        self.C, self.V = C, V

    def _place(self, array: str, row: Any, v: int) -> Any:
        """Where vector v of a row begins."""
        builder, given = self.builder, self.given
        at = builder.add(builder.mul(row, given[f"stride_{array}"]), given["k0"])
        return builder.gep(given[array], [builder.add(at, int64(v * self.lanes))])

    def emit(self, end: Any) -> None:
        """Emit the blocks from the builder's position to a branch to `end`."""
        builder, given, V = self.builder, self.given, range(self.V)
        units = [builder.add(given["u0"], int64(c)) for c in range(self.C)]
        lanes = [builder.sub(self.entry("channels", unit), given["c0"]) for unit in units]
        start = builder.block
        with_base, continued, head = self.blocks(3)
        nothing = [ir.Constant(self.vector, None)] * (self.C * self.V)
        choice = builder.switch(given["based"], head)
        choice.add_case(int64(1), with_base)
        choice.add_case(int64(2), continued)

        builder.position_at_end(with_base)
        found = []
        for unit in units:
            row = self.entry("brows", unit)
            present = builder.icmp_signed(">=", row, int64(0))
            row = builder.select(present, row, int64(0))
            found += [builder.select(present, self.load(self._place("base", row, v)), nothing[0]) for v in V]
        builder.branch(head)

        builder.position_at_end(continued)
        before = [self.load(self._place("out", unit, v)) for unit in units for v in V]
        builder.branch(head)

        def step(e: Any, sums: list[Any]) -> list[Any]:
            weights = builder.gep(given["w"], [self.entry("wrows", e)])
            row = self.entry("arows", e)
            operands = [self.load(self._place("a", row, v)) for v in V]
            after = []
            for c, lane in enumerate(lanes):
                factor = self.splat(builder.load(builder.gep(weights, [lane])))
                for v, operand in enumerate(operands):
                    after.append(builder.call(self.fmuladd, [factor, operand, sums[c * self.V + v]]))
            return after

        builder.position_at_end(head)
        first = self.phis((nothing, start), (found, with_base), (before, continued))
        for i, total in enumerate(self.summed(first, step)):
            self.store(total, self._place("out", units[i // self.V], i % self.V))
        builder.branch(end)


@intrinsic
def weighted_sum(
    typingctx: Any, n: Any, first: Any, rows: Any, factors: Any, a: Any, k0: Any, count: Any, total: Any
):
    """total[k0 + k] += Σ factors[i] · a[rows[first + i], k0 + k] for i < n and k < count, in float64.

    `count` is at most the numbers of one vector, and `total` has room for all of these.
    """
    i = types.int64
    signature = types.void(i, i, rows, factors, a, i, i, total)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        names = ("n", "first", "wrows", "factors", "a", "k0", "count", "total")
        kinds = dict(zip(names, signature.args, strict=True))
        given = pointers(context, builder, kinds, dict(zip(names, args, strict=True)))
        given["e0"] = int64(0)
        number = context.get_value_type(kinds["a"].dtype)
        lanes = VECTOR_BYTES // (kinds["a"].dtype.bitwidth // 8)
        wide = Emitter(builder, given, ir.DoubleType(), lanes)
        narrow, flags = ir.VectorType(number, lanes), ir.VectorType(ir.IntType(1), lanes)
        place = narrow.as_pointer()
        load = cgutils.get_or_insert_function(
            builder.function.module,
            ir.FunctionType(narrow, [place, INT32, flags, narrow]),
            f"llvm.masked.load.v{lanes}f{kinds['a'].dtype.bitwidth}.p0",
        )
        numbers = ir.VectorType(INT32, lanes)
        limit = builder.insert_element(
            ir.Constant(numbers, ir.Undefined), builder.trunc(given["count"], INT32), ir.Constant(INT32, 0)
        )
        limit = builder.shuffle_vector(limit, limit, ir.Constant(numbers, None))
        mask = builder.icmp_signed("<", ir.Constant(numbers, list(range(lanes))), limit)
        align = ir.Constant(INT32, kinds["a"].dtype.bitwidth // 8)

        def step(e: Any, sums: list[Any]) -> list[Any]:
            row = wide.entry("wrows", builder.add(given["first"], e))
            at = builder.add(builder.mul(row, given["stride_a"]), given["k0"])
            at = builder.bitcast(builder.gep(given["a"], [at]), place)
            found = builder.call(load, [at, align, mask, ir.Constant(narrow, None)])
            found = builder.fpext(found, wide.vector) if number != ir.DoubleType() else found
            factor = wide.splat(wide.entry("factors", e))
            return [builder.call(wide.fmuladd, [factor, found, sums[0]])]

        place_of_total = builder.gep(given["total"], [given["k0"]])
        (summed,) = wide.summed([wide.load(place_of_total)], step)
        wide.store(summed, place_of_total)
        return context.get_dummy_value()

    return signature, codegen


LISTED = 16  # entries that `list_entries` writes at once; its arrays need room for as many more


@intrinsic
def list_entries(
    typingctx: Any, arows: Any, wrows: Any, n: Any, row: Any, channel: Any, first: Any, count: Any,
    shift: Any, width: Any,
):  # fmt: skip
    """arows[n + i] = row[first + i], wrows[n + i] = (channel[first + i] + shift) · width for i < count.

    Both are written a few entries beyond, up to the next multiple of 16.
    """
    i = types.int64
    signature = types.void(arows, wrows, i, row, channel, i, i, i, i)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        names = ("arows", "wrows", "n", "row", "channel", "first", "count", "shift", "width")
        kinds, given = dict(zip(names, signature.args, strict=True)), dict(zip(names, args, strict=True))
        for name in ("arows", "wrows", "row", "channel"):
            given[name] = context.make_array(kinds[name])(context, builder, given[name]).data
        vector, flags = ir.VectorType(INT32, LISTED), ir.VectorType(ir.IntType(1), LISTED)
        place = vector.as_pointer()
        load = cgutils.get_or_insert_function(
            builder.function.module,
            ir.FunctionType(vector, [place, INT32, flags, vector]),
            f"llvm.masked.load.v{LISTED}i32.p0",
        )
        lanes = ir.Constant(vector, list(range(LISTED)))

        def splat(value: Any) -> Any:
            value = builder.trunc(value, INT32)
            lane0 = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(INT32, 0))
            return builder.shuffle_vector(lane0, lane0, ir.Constant(vector, None))

        shift, width, count = (splat(given[name]) for name in ("shift", "width", "count"))
        start = builder.block
        body, end = (builder.function.append_basic_block("list") for _ in range(2))
        zero, step = ir.Constant(INT64, 0), ir.Constant(INT64, LISTED)
        builder.cbranch(builder.icmp_signed(">", given["count"], zero), body, end)

        builder.position_at_end(body)
        at = builder.phi(INT64)
        mask = builder.icmp_signed("<", builder.add(splat(at), lanes), count)
        source, target = builder.add(given["first"], at), builder.add(given["n"], at)

        def read(name: str) -> Any:
            pointer = builder.bitcast(builder.gep(given[name], [source]), place)
            return builder.call(load, [pointer, ir.Constant(INT32, 4), mask, ir.Constant(vector, None)])

        for name, value in (
            ("arows", read("row")),
            ("wrows", builder.mul(builder.add(read("channel"), shift), width)),
        ):
            builder.store(value, builder.bitcast(builder.gep(given[name], [target]), place), align=4)
        following = builder.add(at, step)
        at.add_incoming(zero, start)
        at.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, given["count"]), body, end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any):
    """Ask for the line of the cache that holds array[index], a flat index."""
    signature = types.void(array, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, args[0]).data
        byte = ir.IntType(8).as_pointer()
        at = builder.bitcast(builder.gep(data, [args[1]]), byte)
        function = cgutils.get_or_insert_function(
            builder.function.module,
            ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32]),
            "llvm.prefetch.p0" if ir.PointerType(ir.IntType(8)).is_opaque else "llvm.prefetch.p0i8",
        )
        builder.call(function, [at, *(ir.Constant(INT32, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return signature, codegen


@njit(nogil=True, cache=True)
def tiles(n, arows, wrows, a, w, c0, channels, u0, u1, out, based, base, brows, vectors):
    """out[u] = base[brows[u]] + Σₑ w[wrows[e] + channels[u] - c0] a[arows[e]], e < n, for units u0 ≤ u < u1.

    A negative row of the base is zero; without `based` all are. Of each row `vectors` vectors are computed.
    """
    lanes = VECTOR_BYTES // w.itemsize
    passes = (vectors + V_TILE - 1) // V_TILE
    groups = (u1 - u0 + C_TILE - 1) // C_TILE
    stretches = max(1, (n + ENTRIES // 2) // ENTRIES)
    for s in range(stretches):
        e0, e1 = s * n // stretches, (s + 1) * n // stretches
        for i in range(passes):
            v0, v1 = i * vectors // passes, (i + 1) * vectors // passes
            for g in range(groups):
                g0, g1 = u0 + g * (u1 - u0) // groups, u0 + (g + 1) * (u1 - u0) // groups
                _tile(g1 - g0, v1 - v0, e1, e0, arows, wrows, a, w, c0, channels, g0, v0 * lanes,
                      out, based if s == 0 else 2, base, brows)  # fmt: skip
