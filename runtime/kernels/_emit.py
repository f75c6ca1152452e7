"""What the tiles are written with: vectors, entries, and the loop that sums over a list of entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

AVX512 = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")
VECTOR_BYTES = 64 if AVX512 else 32

INT32, INT64 = ir.IntType(32), ir.IntType(64)
_INDICES = ("arows", "wrows", "channels", "brows", "index")
_CHAINS = 8  # sums that the processor can work on at a time: as many as hide what one addition takes


def int64(value: int) -> Any:
    """A constant."""
    return ir.Constant(INT64, value)


def pointers(context: Any, builder: Any, kinds: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arrays among the arguments as pointers, and for two-dimensional ones `stride_` and the name."""
    found = dict(given)
    for name, kind in kinds.items():
        if not hasattr(kind, "ndim"):
            continue
        array = context.make_array(kind)(context, builder, given[name])
        element = INT32 if name in _INDICES else context.get_value_type(kind.dtype)
        found[name] = builder.bitcast(array.data, element.as_pointer())
        if kind.ndim == 2:
            found[f"stride_{name}"] = builder.extract_value(array.shape, 1)
    return found


class Emitter:
    """Writes one tile: vectors of `lanes` numbers, summed over the entries e0 ≤ e < n."""

    def __init__(self, builder: Any, given: dict[str, Any], number: Any, lanes: int) -> None:
        self.builder, self.given, self.lanes = builder, given, lanes
        self.vector = ir.VectorType(number, lanes)
        self.single = isinstance(number, ir.FloatType)
        self.align = 4 if self.single else 8
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{lanes}f{32 if self.single else 64}"
        self.fmuladd = cgutils.get_or_insert_function(builder.function.module, kind, name)

    def blocks(self, count: int) -> list[Any]:
        """New blocks of code."""
        return [self.builder.function.append_basic_block("tile") for _ in range(count)]

    def entry(self, array: str, index: Any) -> Any:
        """An element of an array of indices."""
        builder = self.builder
        found = builder.load(builder.gep(self.given[array], [index]))
        return builder.sext(found, INT64) if array in _INDICES else found

    def vector_at(self, pointer: Any) -> Any:
        """The pointer to a number as one to the vector that begins there."""
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def load(self, pointer: Any) -> Any:
        """The vector that begins at a number."""
        return self.builder.load(self.vector_at(pointer), align=self.align)

    def store(self, value: Any, pointer: Any) -> None:
        """Write the vector that begins at a number."""
        self.builder.store(value, self.vector_at(pointer), align=self.align)

    def splat(self, number: Any) -> Any:
        """A vector of one number."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        lane0 = self.builder.insert_element(undefined, number, ir.Constant(INT32, 0))
        everywhere = ir.Constant(ir.VectorType(INT32, self.lanes), None)
        return self.builder.shuffle_vector(lane0, undefined, everywhere)

    def phis(self, *incoming: tuple[list[Any], Any]) -> list[Any]:
        """Values that depend on the block that control comes from."""
        phis = []
        for values in zip(*(values for values, _ in incoming), strict=True):
            phi = self.builder.phi(values[0].type)
            for value, (_, block) in zip(values, incoming, strict=True):
                phi.add_incoming(value, block)
            phis.append(phi)
        return phis

    def summed(self, first: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """`first` with `step(e, sums)` taken for every entry; few sums are split into several chains."""
        given, chains = self.given, max(1, min(4, _CHAINS // len(first)))
        if chains == 1:
            return self._loop(first, given["e0"], 1, lambda e, sums: step(e, sums))[1]
        nothing = [ir.Constant(self.vector, None)] * len(first)

        def several(e: Any, sums: list[Any]) -> list[Any]:
            after = []
            for j in range(chains):
                part = sums[j * len(first) : (j + 1) * len(first)]
                after += step(self.builder.add(e, int64(j)), part)
            return after

        e, sums = self._loop([*first, *nothing * (chains - 1)], given["e0"], chains, several)
        totals = sums[: len(first)]
        for j in range(1, chains):
            part = sums[j * len(first) : (j + 1) * len(first)]
            totals = [self.builder.fadd(*pair) for pair in zip(totals, part, strict=True)]
        return self._loop(totals, e, 1, step)[1]

    def _loop(
        self, first: list[Any], e0: Any, stride: int, step: Callable[[Any, list[Any]], list[Any]]
    ) -> tuple[Any, list[Any]]:
        """Steps from e0 on while `stride` entries are left: the entry reached, and the sums."""
        builder, head = self.builder, self.builder.block
        body, done = self.blocks(2)
        last = builder.sub(self.given["n"], int64(stride))
        builder.cbranch(builder.icmp_signed("<=", e0, last), body, done)
        builder.position_at_end(body)
        e, *sums = (builder.phi(value.type) for value in (e0, *first))
        following, after = builder.add(e, int64(stride)), step(e, sums)
        for phi, initial, then in zip((e, *sums), (e0, *first), (following, *after), strict=True):
            phi.add_incoming(initial, head)
            phi.add_incoming(then, body)
        builder.cbranch(builder.icmp_signed("<=", following, last), body, done)
        builder.position_at_end(done)
        e, *totals = self.phis(([e0, *first], head), ([following, *after], body))
        return e, totals
