"""The tile: out[c, k] = base[c, k] + Σₑ w[wrows[e] + channels[c]] · a[arows[e], k], summed in registers.

Everything heavy is this one sum: `e` runs over the active units that a few outputs read, `c` over up to
C_TILE of these outputs, `k` over one or a few vectors of rows of W. Loops that numba compiles cannot keep
the sums in registers, because to LLVM every store may change every array; so the loop is written in LLVM's
own language, with vector types. LLVM splits the vectors on machines whose registers are narrower.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR_BYTES = 64 if get_host_cpu_features().get("avx512f", False) else 32
C_TILE = 8 if VECTOR_BYTES == 64 else 6  # outputs of one tile
V_TILE = 3 if VECTOR_BYTES == 64 else 2  # vectors of one tile; its sums and operands fill the registers
ENTRIES = 256  # summed at a stretch, so that their rows of `a` stay in the first cache from tile to tile

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_ARRAYS = {"arows": _INT32, "wrows": _INT32, "channels": _INT32, "brows": _INT32}
_NAMES = (
    *("C", "V", "lanes", "n", "e0", "arows", "wrows", "a", "w", "c0", "channels", "u0", "k0"),
    *("out", "based", "base", "brows"),
)


def lanes_of(itemsize: int, K: int) -> int:
    """Numbers in one vector of K rows: half a register where they fit into it."""
    full = VECTOR_BYTES // itemsize
    return full // 2 if full // 2 >= K else full


@intrinsic
def _tile(
    typingctx: Any, C: Any, V: Any, lanes: Any, n: Any, e0: Any, arows: Any, wrows: Any, a: Any, w: Any,
    c0: Any, channels: Any, u0: Any, k0: Any, out: Any, based: Any, base: Any, brows: Any,
):  # fmt: skip
    """Run the tile of C outputs and V vectors of `lanes` numbers, chosen at run time."""
    i = types.int64
    signature = types.void(i, i, i, i, i, arows, wrows, a, w, i, channels, i, i, out, i, base, brows)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        kinds = dict(zip(_NAMES, signature.args, strict=True))
        given = dict(zip(_NAMES, args, strict=True))
        number = context.get_value_type(kinds["a"].dtype)
        full = VECTOR_BYTES // (kinds["a"].dtype.bitwidth // 8)
        given["stride"] = builder.extract_value(
            context.make_array(kinds["a"])(context, builder, given["a"]).shape, 1
        )
        for name in (*_ARRAYS, "a", "w", "out", "base"):
            data = context.make_array(kinds[name])(context, builder, given[name]).data
            given[name] = builder.bitcast(data, _ARRAYS.get(name, number).as_pointer())
        end = builder.function.append_basic_block("end")
        wanted = (given["lanes"], 64), (given["V"], 16), (given["C"], 1)
        key = ir.Constant(_INT64, 0)
        for value, weight in wanted:
            key = builder.add(key, builder.mul(value, ir.Constant(_INT64, weight)))
        switch = builder.switch(key, end)
        sizes = [(full // 2, 1), *((full, v) for v in range(1, V_TILE + 1))]
        for lanes_, V_ in sizes:
            for C_ in range(1, C_TILE + 1):
                block = builder.function.append_basic_block("tile")
                switch.add_case(ir.Constant(_INT64, lanes_ * 64 + V_ * 16 + C_), block)
                builder.position_at_end(block)
                _Tile(builder, given, number, lanes_, C_, V_).emit(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, codegen


class _Tile:
    """One tile of C outputs and V vectors."""

    def __init__(self, builder: Any, given: dict[str, Any], number: Any, lanes: int, C: int, V: int) -> None:
        self.builder, self.given, self.lanes, self.C, self.V = builder, given, lanes, C, V
        self.vector = ir.VectorType(number, lanes)
        single = isinstance(number, ir.FloatType)
        self.align = 4 if single else 8
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{lanes}f{32 if single else 64}"
        self.fmuladd = cgutils.get_or_insert_function(builder.function.module, kind, name)

    def _pointer(self, array: str, row: Any, v: int) -> Any:
        """Vector v of a row."""
        builder, given = self.builder, self.given
        at = builder.add(builder.mul(row, given["stride"]), given["k0"])
        at = builder.gep(given[array], [builder.add(at, ir.Constant(_INT64, v * self.lanes))])
        return builder.bitcast(at, self.vector.as_pointer())

    def _load(self, array: str, row: Any, v: int) -> Any:
        return self.builder.load(self._pointer(array, row, v), align=self.align)

    def _entry(self, array: str, index: Any) -> Any:
        builder = self.builder
        return builder.sext(builder.load(builder.gep(self.given[array], [index])), _INT64)

    def _splat(self, number: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        lane0 = self.builder.insert_element(undefined, number, ir.Constant(_INT32, 0))
        everywhere = ir.Constant(ir.VectorType(_INT32, self.lanes), None)
        return self.builder.shuffle_vector(lane0, undefined, everywhere)

    def _phis(self, *incoming: tuple[list[Any], Any]) -> list[Any]:
        """Values that depend on the block that control comes from."""
        phis = []
        for values in zip(*(values for values, _ in incoming), strict=True):
            phi = self.builder.phi(values[0].type)
            for value, (_, block) in zip(values, incoming, strict=True):
                phi.add_incoming(value, block)
            phis.append(phi)
        return phis

    def _step(self, e: Any, lanes: list[Any], sums: list[Any]) -> list[Any]:
        """The sums with entry e added."""
        builder, given = self.builder, self.given
        weights = builder.gep(given["w"], [self._entry("wrows", e)])
        row = self._entry("arows", e)
        operands = [self._load("a", row, v) for v in range(self.V)]
        after = []
        for c, lane in enumerate(lanes):
            factor = self._splat(builder.load(builder.gep(weights, [lane])))
            for v, operand in enumerate(operands):
                after.append(builder.call(self.fmuladd, [factor, operand, sums[c * self.V + v]]))
        return after

    def emit(self, end: Any) -> None:
        """Emit the blocks from the builder's position to a branch to `end`."""
        builder, given, V = self.builder, self.given, range(self.V)
        zero = ir.Constant(_INT64, 0)
        units = [builder.add(given["u0"], ir.Constant(_INT64, c)) for c in range(self.C)]
        lanes = [builder.sub(self._entry("channels", unit), given["c0"]) for unit in units]
        start = builder.block
        blocks = (builder.function.append_basic_block("tile") for _ in range(5))
        with_base, continued, head, body, done = blocks
        nothing = [ir.Constant(self.vector, None)] * (self.C * self.V)
        choice = builder.switch(given["based"], head)
        choice.add_case(ir.Constant(_INT64, 1), with_base)
        choice.add_case(ir.Constant(_INT64, 2), continued)

        builder.position_at_end(with_base)
        found = []
        for unit in units:
            row = self._entry("brows", unit)
            present = builder.icmp_signed(">=", row, zero)
            row = builder.select(present, row, zero)
            found += [builder.select(present, self._load("base", row, v), nothing[0]) for v in V]
        builder.branch(head)

        builder.position_at_end(continued)
        before = [self._load("out", unit, v) for unit in units for v in V]
        builder.branch(head)

        builder.position_at_end(head)
        first = self._phis((nothing, start), (found, with_base), (before, continued))
        builder.cbranch(builder.icmp_signed("<", given["e0"], given["n"]), body, done)

        builder.position_at_end(body)
        e, *sums = (builder.phi(value.type) for value in (given["e0"], *first))
        after = self._step(e, lanes, sums)
        following = builder.add(e, ir.Constant(_INT64, 1))
        for phi, initial, then in zip((e, *sums), (given["e0"], *first), (following, *after), strict=True):
            phi.add_incoming(initial, head)
            phi.add_incoming(then, body)
        builder.cbranch(builder.icmp_signed("<", following, given["n"]), body, done)

        builder.position_at_end(done)
        totals = self._phis((first, head), (after, body))
        for i, total in enumerate(totals):
            builder.store(total, self._pointer("out", units[i // self.V], i % self.V), align=self.align)
        builder.branch(end)


@intrinsic
def weighted_sum(
    typingctx: Any, n: Any, first: Any, rows: Any, factors: Any, a: Any, k0: Any, lanes: Any, total: Any
):
    """total[k0 + k] += Σ factors[i] · a[rows[first + i], k0 + k] for i < n and k < lanes, in float64."""
    i = types.int64
    signature = types.void(i, i, rows, factors, a, i, i, total)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        names = ("n", "first", "rows", "factors", "a", "k0", "lanes", "total")
        kinds, given = dict(zip(names, signature.args, strict=True)), dict(zip(names, args, strict=True))
        number, double = context.get_value_type(kinds["a"].dtype), ir.DoubleType()
        stride = builder.extract_value(context.make_array(kinds["a"])(context, builder, given["a"]).shape, 1)
        for name, element in (("rows", _INT32), ("factors", double), ("a", number), ("total", double)):
            data = context.make_array(kinds[name])(context, builder, given[name]).data
            given[name] = builder.bitcast(data, element.as_pointer())
        full = VECTOR_BYTES // (kinds["a"].dtype.bitwidth // 8)
        end = builder.function.append_basic_block("end")
        switch = builder.switch(given["lanes"], end)
        for width in (full // 2, full):
            start = builder.function.append_basic_block("start")
            switch.add_case(ir.Constant(_INT64, width), start)
            builder.position_at_end(start)
            _emit_weighted_sum(builder, given, stride, ir.VectorType(number, width), end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, codegen


def _emit_weighted_sum(builder: Any, given: dict[str, Any], stride: Any, vector: Any, end: Any) -> None:
    """One width of `weighted_sum`."""
    width, double = vector.count, ir.DoubleType()
    wide = ir.VectorType(double, width)
    kind = ir.FunctionType(wide, [wide] * 3)
    fmuladd = cgutils.get_or_insert_function(builder.function.module, kind, f"llvm.fmuladd.v{width}f64")
    start = builder.block
    body, done = (builder.function.append_basic_block("sum") for _ in range(2))
    place = builder.bitcast(builder.gep(given["total"], [given["k0"]]), wide.as_pointer())
    first = builder.load(place, align=8)
    builder.cbranch(builder.icmp_signed(">", given["n"], ir.Constant(_INT64, 0)), body, done)

    builder.position_at_end(body)
    i, sums = builder.phi(_INT64), builder.phi(wide)
    listed = builder.gep(given["rows"], [builder.add(given["first"], i)])
    row = builder.sext(builder.load(listed), _INT64)
    at = builder.gep(given["a"], [builder.add(builder.mul(row, stride), given["k0"])])
    single = isinstance(vector.element, ir.FloatType)
    found = builder.load(builder.bitcast(at, vector.as_pointer()), align=4 if single else 8)
    found = builder.fpext(found, wide) if single else found
    factor = builder.load(builder.gep(given["factors"], [i]))
    undefined = ir.Constant(wide, ir.Undefined)
    factor = builder.insert_element(undefined, factor, ir.Constant(_INT32, 0))
    factor = builder.shuffle_vector(factor, undefined, ir.Constant(ir.VectorType(_INT32, width), None))
    after = builder.call(fmuladd, [factor, found, sums])
    following = builder.add(i, ir.Constant(_INT64, 1))
    for phi, initial, then in ((i, ir.Constant(_INT64, 0), following), (sums, first, after)):
        phi.add_incoming(initial, start)
        phi.add_incoming(then, body)
    builder.cbranch(builder.icmp_signed("<", following, given["n"]), body, done)

    builder.position_at_end(done)
    total = builder.phi(wide)
    total.add_incoming(first, start)
    total.add_incoming(after, body)
    builder.store(total, place, align=8)
    builder.branch(end)


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
        vector, flags = ir.VectorType(_INT32, LISTED), ir.VectorType(ir.IntType(1), LISTED)
        place = vector.as_pointer()
        load = cgutils.get_or_insert_function(
            builder.function.module,
            ir.FunctionType(vector, [place, _INT32, flags, vector]),
            f"llvm.masked.load.v{LISTED}i32.p0",
        )
        lanes = ir.Constant(vector, list(range(LISTED)))

        def splat(value: Any) -> Any:
            value = builder.trunc(value, _INT32)
            lane0 = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INT32, 0))
            return builder.shuffle_vector(lane0, lane0, ir.Constant(vector, None))

        shift, width, count = (splat(given[name]) for name in ("shift", "width", "count"))
        start = builder.block
        body, end = (builder.function.append_basic_block("list") for _ in range(2))
        zero, step = ir.Constant(_INT64, 0), ir.Constant(_INT64, LISTED)
        builder.cbranch(builder.icmp_signed(">", given["count"], zero), body, end)

        builder.position_at_end(body)
        at = builder.phi(_INT64)
        mask = builder.icmp_signed("<", builder.add(splat(at), lanes), count)
        source, target = builder.add(given["first"], at), builder.add(given["n"], at)

        def read(name: str) -> Any:
            pointer = builder.bitcast(builder.gep(given[name], [source]), place)
            return builder.call(load, [pointer, ir.Constant(_INT32, 4), mask, ir.Constant(vector, None)])

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
            ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32]),
            "llvm.prefetch.p0" if ir.PointerType(ir.IntType(8)).is_opaque else "llvm.prefetch.p0i8",
        )
        builder.call(function, [at, *(ir.Constant(_INT32, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return signature, codegen


@njit(nogil=True, cache=True)
def tiles(n, arows, wrows, a, w, c0, channels, u0, u1, out, based, base, brows, lanes, vectors):
    """out[u] = base[brows[u]] + Σₑ w[wrows[e] + channels[u] - c0] a[arows[e]], e < n, for units u0 ≤ u < u1.

    A negative row of the base is zero; without `based` all are. Rows have `vectors` vectors of `lanes`.
    """
    passes = (vectors + V_TILE - 1) // V_TILE
    groups = (u1 - u0 + C_TILE - 1) // C_TILE
    stretches = max(1, (n + ENTRIES // 2) // ENTRIES)
    for s in range(stretches):
        e0, e1 = s * n // stretches, (s + 1) * n // stretches
        for i in range(passes):
            v0, v1 = i * vectors // passes, (i + 1) * vectors // passes
            for g in range(groups):
                g0, g1 = u0 + g * (u1 - u0) // groups, u0 + (g + 1) * (u1 - u0) // groups
                _tile(g1 - g0, v1 - v0, lanes, e1, e0, arows, wrows, a, w, c0, channels, g0, v0 * lanes,
                      out, based if s == 0 else 2, base, brows)  # fmt: skip
