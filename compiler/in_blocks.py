"""W of a plan in blocks of rows, each with what rounding may do to it: for a W that is never in memory whole.

Of a plan's legs, only a top one in reverse makes its rows block by block. The maps of all others are wanted
whole, and before the first row of W: a block of W is W_top W_1 … W_n for its rows of W_top, and its shares in
b and its rounding bounds follow likewise. Each of these maps is a table, made block by block as well, of its
rows in reverse and of its columns forward, so that the caller may put it where there is room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..runtime.folder import Entry
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from ..runtime.rounding import Arithmetic, growth
from .bounds import abs_products, running_bound, values_below
from .compose import columns_on
from .cuts import live_elements
from .engine import Engine
from .plan import Leg, Plan
from .sweep import Magnitudes


@dataclass(frozen=True)
class Table:
    """A leg's map, to be made block by block: a row of the table for each row or column."""

    name: str
    rows: Array  # what `make` is called with, block by block
    entries: Mapping[str, Entry]
    block: int  # rows at once
    make: Callable[[Array], dict[str, Array]]  # from (k,) to (k, …) for each entry


@dataclass(frozen=True)
class Whole:
    """A leg's map for some elements of its upper cut."""

    elements: Array  # (m,) in rising order
    W: Array  # (m, below)
    shares: Array  # (steps, m)
    rounding: Array  # (P, m): what rounding may do to a row


@dataclass(frozen=True)
class Block:
    """Some rows of W."""

    W: Array  # (k, N)
    shares: Array  # (steps, k)
    rounding: Array  # (P, k): what rounding may do, W z + b itself left out


@dataclass(frozen=True)
class InBlocks:
    """The rows of W that a plan makes."""

    program: LinearProgram
    rows: Array  # (K,) flat output indices
    plan: Plan
    engine: Engine
    dtype: np.dtype[Any]
    magnitudes: Magnitudes  # of rounding errors, and of the tensors between the legs

    @property
    def kept(self) -> tuple[Leg, ...]:
        """The legs whose maps are wanted whole, from the outputs down."""
        return self.plan.legs[self.plan.legs[0].direction == "reverse" :]

    @property
    def most(self) -> int:
        """Rows of W that one block may have."""
        top = self.plan.legs[0]
        return top.block if top.direction == "reverse" else len(self.rows)

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The maps of the kept legs."""
        return tuple(
            self._by_rows(leg) if leg.direction == "reverse" else self._by_columns(leg) for leg in self.kept
        )

    def whole(self, found: Sequence[Mapping[str, Array]]) -> list[Whole]:
        """The kept maps, from their tables' arrays, (all rows of the table, …) for each entry."""
        return [self._whole(leg, arrays) for leg, arrays in zip(self.kept, found, strict=True)]

    def block(self, rows: Array, kept: Sequence[Whole]) -> Block:
        """Some rows of W, by their flat output indices."""
        top, lower = self.plan.legs[0], kept
        shares = np.zeros((len(self.program.steps), len(rows)))
        if len(kept) < len(self.plan.legs):
            sweep, bounds = self._top
            found = sweep(rows)
            W, shares[top.first : top.last], rounding = found.W, found.shares, bounds(rows)
        else:
            whole, *lower = kept
            at = np.searchsorted(whole.elements, rows)
            W, rounding = whole.W[at], whole.rounding[:, at]
            shares[top.first : top.last] = whole.shares[:, at]
        for leg, whole in zip(self.plan.legs[1:], lower, strict=True):
            upper = np.ascontiguousarray(W[:, whole.elements])
            shares[leg.first : leg.last] = whole.shares @ upper.T
            rounding = rounding + abs_products(upper, whole.rounding)
            W = upper @ whole.W
        return Block(W, shares, rounding)

    @cached_property
    def _top(self) -> tuple[Callable[[Array], Any], Callable[[Array], Array]]:
        """Sweeps of the top leg in reverse: of its rows, and of their bounds."""
        leg = self.plan.legs[0]
        given = (leg, leg.of(self.program), self.rows, self.dtype)
        return self.engine.rows(*given), self.engine.bounds(*given, self.magnitudes)

    def _elements(self, leg: Leg) -> Array:
        """Elements of a leg's upper cut that its map is wanted for."""
        if leg is self.plan.legs[0]:
            return np.unique(self.rows)
        return np.flatnonzero(live_elements(self.program, leg.above))

    def _by_rows(self, leg: Leg) -> Table:
        part, elements = leg.of(self.program), self._elements(leg)
        given = (leg, part, elements, self.dtype)
        sweep, bounds = self.engine.rows(*given), self.engine.bounds(*given, self.magnitudes)

        def make(rows: Array) -> dict[str, Array]:
            found = sweep(rows)
            return {"W": found.W, "shares": found.shares.T, "rounding": bounds(rows).T}

        float64 = np.dtype(np.float64)
        entries = {
            "W": Entry((part.in_size,), self.dtype),
            "shares": Entry((len(part.steps),), float64),
            "rounding": Entry((self.magnitudes.count,), float64),
        }
        return Table(f"rows_{leg.last}", elements, entries, leg.block, make)

    def _by_columns(self, leg: Leg) -> Table:
        part, elements = leg.of(self.program), self._elements(leg)
        columns, sweep = columns_on(leg, part, self.engine, self.dtype)

        def make(block: Array) -> dict[str, Array]:
            return {"W": sweep(block).W[:, elements]}

        return Table(
            f"columns_{leg.last}", columns, {"W": Entry((len(elements),), self.dtype)}, leg.block, make
        )

    def _whole(self, leg: Leg, arrays: Mapping[str, Array]) -> Whole:
        part, elements = leg.of(self.program), self._elements(leg)
        if leg.direction == "reverse":
            W, shares, rounding = (arrays[name] for name in ("W", "shares", "rounding"))
            shares, rounding = shares.T, rounding.T
        else:
            W = arrays["W"][: part.in_size].T
            shares = np.zeros((len(part.steps), len(elements)))
            bearing = [position for position, step in enumerate(part.steps) if step.offset is not None]
            shares[bearing] = arrays["W"][part.in_size :]
            rounding = running_bound(part, elements, self.magnitudes)
        if leg is not self.plan.legs[0]:  # the product with the rows above rounds as well
            joining = growth(len(elements), Arithmetic.of(self.dtype).u)
            rounding = rounding + joining * abs_products(W, values_below(self.magnitudes, part))
        return Whole(elements, W, shares, rounding)
