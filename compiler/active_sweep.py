"""The reverse sweep over active units only: each step's transpose, by the kind of its primitive.

The adjoint of a tensor is a `Block`: a row of K numbers for each unit that x keeps alive. Moves (Relu,
pooling winners, reshaping, broadcasting) change only where units find their rows; convolutions and dense
layers write new rows; rows are added where paths meet. A block never has a unit that is not live.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..runtime import kernels
from ..runtime.primitives import (
    Array,
    Broadcast,
    Chain,
    Contract,
    Conv,
    ConvTranspose,
    Gather,
    Primitive,
    Reshape,
    Scale,
    Scatter,
    Shape,
    Sum,
    Transpose,
)
from ..runtime.program import LinearProgram, Step
from .active import Block, Layout, Rows, Storage, Units, layout_of
from .active_windows import Windows, windows_of
from .fused_store import FusedStore
from .sweep import Progress

_EVERYTHING = np.zeros(0, np.bool_)  # stands for a mask of which every entry is set
_NO_ROWS = np.zeros(0, np.int32)


class ActiveSweep:
    """One sweep: a program, some rows of its map, and the blocks that are alive."""

    def __init__(self, program: LinearProgram, rows: Array, dtype: np.dtype[Any], store: FusedStore) -> None:
        self.program, self.store = program, store
        self.wanted = rows.reshape(len(rows), -1)  # (k, images): the sum of these outputs is a row
        self.images = self.wanted.shape[1]
        self.rows = Rows.of(len(rows), dtype)
        self.arena = store.arena
        self.live = live_masks(program)
        self.shapes = dict(program.inputs) | {step.output: step.shape for step in program.steps}
        self.blocks: dict[str, Block] = {}
        self._listed: dict[tuple[str, Layout], Units] = {}

    def run(self, progress: Progress | None) -> tuple[Array, Array]:
        """Rows of W, (k, N), and shares, (steps, images, k)."""
        steps = self.program.steps
        shares = np.zeros((len(steps), self.images, self.rows.K))
        with kernels.threads_safe():
            self._seed()
            for position in range(len(steps) - 1, -1, -1):
                step = steps[position]
                block = self.blocks.pop(step.output, None)
                if block is not None and not block.empty:
                    if step.offset is not None:
                        shares[position] = self._share(step, block)
                    for name, L in step.terms:
                        self._back(step, name, L, block)
                if progress:
                    progress(len(steps) - position, len(steps))
            return self._collected(), shares

    # -- the two ends -------------------------------------------------------------------------------

    def _seed(self) -> None:
        """Unit rows at the outputs."""
        first = 0
        for name, shape in self.program.outputs:
            size = math.prod(shape)
            mine, _ = inside = np.nonzero((self.wanted >= first) & (self.wanted < first + size))
            places, which = np.unique(self.wanted[inside] - first, return_inverse=True)
            storage = self._storage(len(places))
            storage.numbers[:] = 0
            storage.numbers[which, mine] = 1
            table = np.full(size, -1, np.int32)
            table[places] = np.arange(len(places))
            mask = self.live[name]
            if mask is not None:
                table[~mask] = -1
            self._add(name, Block(storage, None, table))
            first += size

    def _collected(self) -> Array:
        """W's rows from the inputs' blocks."""
        W = np.empty((self.rows.K, self.program.in_size), self.rows.dtype)
        first = 0
        for name, shape in self.program.inputs:
            size = math.prod(shape)
            block = self.blocks.pop(name, None)
            if block is None:
                W[:, first : first + size] = 0
            else:
                kernels.spread_rows(block.table(), block.storage.numbers, W, first)
            first += size
        return W

    # -- blocks ---------------------------------------------------------------------------------------

    def _storage(self, units: int) -> Storage:
        return Storage(self.arena, units, self.rows)

    def _mask(self, name: str) -> Array:
        mask = self.live[name]
        return _EVERYTHING if mask is None else mask

    def _live_units(self, name: str, layout: Layout) -> Units:
        """The live units of a tensor, each with a row of its own."""
        mask = self.live[name]
        if mask is None:
            return self._all_units(layout)
        if (name, layout) not in self._listed:
            start, channel, _ = kernels.listed(mask.view(np.uint8), 0, *layout)
            self._listed[name, layout] = Units(layout, start, channel, self.store.counting(len(channel)))
        return self._listed[name, layout]

    def _all_units(self, layout: Layout) -> Units:
        def every() -> Units:
            N, C, P = layout
            start = np.arange(0, N * C * P + 1, C, dtype=np.int32) if C else np.zeros(N * P + 1, np.int32)
            channel = np.tile(np.arange(C, dtype=np.int32), N * P)
            return Units(layout, start, channel, np.arange(N * C * P, dtype=np.int32))

        found: Units = self.store.equal(("all units", layout), every)
        return found

    def _add(self, name: str, block: Block) -> None:
        """Add a block to what a tensor has."""
        before = self.blocks.get(name)
        if before is None or before.empty:
            self.blocks[name] = block
            return
        if block.empty:
            return
        layout = layout_of(self.shapes[name])
        tables = before.table(), block.table()
        start, channel, _ = kernels.listed(np.maximum(*tables), -1, *layout)
        sources = [kernels.looked_up(start, channel, table, *layout) for table in tables]
        storage = self._storage(len(channel))
        kernels.added(
            before.storage.numbers,
            sources[0],
            block.storage.numbers,
            sources[1],
            storage.numbers,
            self.rows.used,
        )
        units = Units(layout, start, channel, self.store.counting(len(channel)))
        self.blocks[name] = Block(storage, units)

    def _share(self, step: Step, block: Block) -> Array:
        """⟨row, offset⟩ for each image and row."""
        offset = step.offset
        assert offset is not None
        units = block.units(layout_of(step.shape))
        found: Array = kernels.share(
            units.start,
            units.channel,
            units.row,
            block.storage.numbers,
            self.store.get("offset", offset, lambda: _by_layout(offset, step.shape).astype(np.float64))
            if step.fixed
            else _by_layout(offset, step.shape).astype(np.float64),
            self.rows.K,
            self.images,
        )
        return found

    # -- one term -------------------------------------------------------------------------------------

    def _back(self, step: Step, name: str, L: Primitive, block: Block) -> None:
        """Add a term's share to its tensor's block."""
        parts = L.parts if isinstance(L, Chain) else (L,)
        for part in reversed(parts[1:]):
            block = self._through(part, block, _EVERYTHING, step.fixed)
        L = parts[0]
        alone = len(step.terms) == len(parts) == 1 and step.offset is None
        if alone and isinstance(L, Scale) and L.factor.dtype == bool:  # what is live is within the factor
            self._add(name, block)
            return
        windows = self._windows(L, step.fixed)
        if windows is not None:
            target = self._live_units(name, windows.target)
            base = self.blocks.pop(name, None)
            self.blocks[name] = self._slid(windows, block, target, base)
            return
        self._add(name, self._through(L, block, self._mask(name), step.fixed))

    def _through(self, L: Primitive, block: Block, mask: Array, fixed: bool) -> Block:
        """A block back through one primitive, within a mask of its input."""
        windows = self._windows(L, fixed)
        if windows is not None:
            return self._slid(windows, block, self._all_units(windows.target), None)
        if isinstance(L, Scale):
            return self._scaled(L, block, mask)
        if isinstance(L, Reshape):
            return self._within(block, mask)
        if isinstance(L, Transpose):
            table = np.ascontiguousarray(block.table().reshape(L.out_shape).transpose(np.argsort(L.axes)))
            return self._within(block.moved(table.ravel()), mask)
        if isinstance(L, Gather):
            return self._gathered(L.index.ravel(), L.in_size, L.out_shape, block, mask)
        if isinstance(L, Broadcast):
            index = self.store.equal(
                ("copies", L.in_shape, L.out_shape),
                lambda: _copies(L.in_shape, L.out_shape),
            )
            return self._gathered(index, L.in_size, L.out_shape, block, mask)
        if isinstance(L, Scatter):
            return block.moved(kernels.fetched(block.table(), L.index.ravel(), mask))
        if isinstance(L, Sum):
            index = self.store.equal(
                ("copies", L.out_shape, L.in_shape),
                lambda: _copies(L.out_shape, L.in_shape),
            )
            return block.moved(kernels.fetched(block.table(), index, mask))
        return self._applied(L, block, mask)

    def _windows(self, L: Primitive, fixed: bool) -> Windows | None:
        if not isinstance(L, (Conv, ConvTranspose, Contract)):
            return None
        if not fixed:
            return windows_of(L, self.rows.dtype)
        kind = ("windows", self.rows.dtype)
        found: Windows | None = self.store.get(kind, L, lambda: windows_of(L, self.rows.dtype))
        return found

    def _slid(self, windows: Windows, block: Block, target: Units, base: Block | None) -> Block:
        """A convolution or dense layer, added to the block that its tensor has."""
        source = block.units(windows.source)
        storage = self._storage(len(target))
        if base is None:
            found, base_row = storage.numbers, _NO_ROWS
        else:
            found = base.storage.numbers
            base_row = kernels.looked_up(target.start, target.channel, base.table(), *target.layout)
        workers = kernels.workers()
        positions = len(target.start) - 1
        run = max(1, min(32, positions * len(windows.lane_first) // (4 * workers)))
        kernels.windows(
            np.zeros(1, np.int64),
            workers,
            run,
            windows.room,
            windows.tap_start,
            windows.tap,
            windows.seen,
            windows.source[2],
            windows.target[2],
            windows.weights,
            windows.lane_first,
            windows.lane_last,
            windows.source_first,
            windows.source_count,
            block.storage.numbers,
            source.start,
            source.channel,
            source.row,
            storage.numbers,
            target.start,
            target.channel,
            int(base is not None),
            found,
            base_row,
            self.rows.vectors,
            self.rows.rest,
        )
        return Block(storage, target)

    def _scaled(self, L: Scale, block: Block, mask: Array) -> Block:
        if L.factor.dtype == bool:
            factor = np.broadcast_to(L.factor, L.in_shape).ravel()
            return self._within(block, factor if not len(mask) else factor & mask)
        block = self._within(block, mask)
        units = block.units(layout_of(L.in_shape))
        storage = self._storage(len(units))
        factor = _by_layout(L.factor, L.in_shape).astype(self.rows.dtype, copy=False)
        kernels.scaled(
            units.start,
            units.channel,
            units.row,
            block.storage.numbers,
            factor,
            storage.numbers,
            self.rows.used,
        )
        own = Units(units.layout, units.start, units.channel, self.store.counting(len(units)))
        return Block(storage, own)

    def _within(self, block: Block, mask: Array) -> Block:
        """The part of a block in a mask."""
        if not len(mask):
            return block
        units = block._units
        if units is None:
            return block.moved(np.where(mask, block.table(), np.int32(-1)))
        part = kernels.kept(units.start, units.channel, units.row, mask, *units.layout)
        return Block(block.storage, Units(units.layout, *part))

    def _gathered(self, index: Array, size: int, out_shape: Shape, block: Block, mask: Array) -> Block:
        """Back through y = x[index]: rows of entries that read the same one are added."""
        units = block.any_units(layout_of(out_shape))
        table, after, meet = kernels.chained(
            units.start, units.channel, units.row, index, mask, size, *units.layout
        )
        if not meet:
            return block.moved(table)
        layout = (1, size, 1)
        start, channel, head = kernels.listed(table, -1, *layout)
        storage = self._storage(len(channel))
        kernels.summed(head, units.row, after, block.storage.numbers, storage.numbers, self.rows.used)
        return Block(storage, Units(layout, start, channel, self.store.counting(len(channel))))

    def _applied(self, L: Primitive, block: Block, mask: Array) -> Block:
        """Any other primitive: on the whole block, dead units as zeros."""
        whole = np.empty((self.rows.K, L.out_size), self.rows.dtype)
        kernels.spread_rows(block.table(), block.storage.numbers, whole, 0)
        back = L.T.apply(whole.reshape(self.rows.K, *L.out_shape)).reshape(self.rows.K, L.in_size)
        places = np.flatnonzero(mask) if len(mask) else np.arange(L.in_size)
        storage = self._storage(len(places))
        storage.numbers[:, self.rows.K :] = 0
        storage.numbers[:, : self.rows.K] = back[:, places].T
        table = np.full(L.in_size, -1, np.int32)
        table[places] = np.arange(len(places))
        return Block(storage, None, table)


def live_masks(program: LinearProgram) -> dict[str, Array | None]:
    """Tensor to the flat mask of the units that can be nonzero; None for all of them.

    Convolutions and sums are taken to reach everything: finer masks would cost more than they save.
    """
    live: dict[str, Array | None] = {name: None for name, _ in program.inputs}
    for step in program.steps:
        masks = []
        if step.offset is None or not np.all(step.offset):
            masks = [_reached(L, live[name]) for name, L in step.terms]
            if step.offset is not None:
                masks.append(np.broadcast_to(step.offset != 0, step.shape).ravel())
        live[step.output] = None
        known = [mask for mask in masks if mask is not None]
        if masks and len(known) == len(masks):
            live[step.output] = known[0] if len(known) == 1 else np.logical_or.reduce(known)
    return live


def _reached(L: Primitive, mask: Array | None) -> Array | None:
    """Which outputs of a primitive are nonzero when only inputs in the mask are; None for all."""
    if isinstance(L, Scale):
        if L.factor.dtype != bool and np.all(L.factor):
            return mask
        factor = np.broadcast_to(L.factor, L.in_shape).ravel()
        factor = factor if factor.dtype == bool else factor != 0
        return factor if mask is None else factor & mask
    if isinstance(L, Gather):
        if mask is not None:
            fetched: Array = kernels.mask_fetched(mask, L.index.ravel())
            return fetched
        return (L.index >= 0).ravel() if L._has_gaps else None
    if isinstance(L, Reshape):
        return mask
    if isinstance(L, Chain):
        for part in L.parts:
            mask = _reached(part, mask)
        return mask
    if mask is None or isinstance(L, (Conv, ConvTranspose, Contract)):
        return None
    return np.ascontiguousarray(L.reach(mask.reshape(L.in_shape))).ravel()


def _by_layout(values: Array, shape: Shape) -> Array:
    """Values broadcastable to a shape as (N, C, P), each length the layout's or 1."""
    N, C, P = layout_of(shape)
    if len(shape) < 2:
        return np.ascontiguousarray(np.broadcast_to(values, shape)).reshape(N, C, P)
    aligned = np.reshape(values, (1,) * (len(shape) - np.ndim(values)) + np.shape(values))
    if math.prod(aligned.shape[2:]) not in (1, P):
        aligned = np.broadcast_to(aligned, (*aligned.shape[:2], *shape[2:]))
    return np.ascontiguousarray(aligned).reshape(*aligned.shape[:2], math.prod(aligned.shape[2:]))


def _copies(small: Shape, large: Shape) -> Array:
    """For each entry of the larger shape the flat entry of the smaller that broadcasting copies to it."""
    entries = np.arange(math.prod(small), dtype=np.int32).reshape(small)
    return np.ascontiguousarray(np.broadcast_to(entries, large)).ravel()
