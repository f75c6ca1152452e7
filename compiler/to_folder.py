"""A map whose W does not fit memory, composed block by block of rows into a folder, each block checked.

Every row is compared with onnxruntime at x and at the fresh points while it is in memory, and the largest
deviations are kept with the progress: the certificate is that of a map in memory, row by row. Where the
plan goes through a narrow layer, the maps that W's rows are products with stand in folders inside this one
until all rows are there. So an interruption costs one block, whatever was being made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from .._version import __version__
from ..runtime.affine_map import AffineMap
from ..runtime.archive import digest, sealed
from ..runtime.arrays import overflow_refused_later
from ..runtime.errors import NonFiniteError
from ..runtime.folder import (
    Plan,
    Progress,
    doubles,
    entries_of_map,
    finish,
    mapped,
    opened,
    settings_of,
    write_rows,
)
from ..runtime.memory import limit_of
from ..runtime.primitives import Array
from ..runtime.saved import to_header, to_members
from .answer import Asked, affine_map, require_representable
from .bounds import last_rounding
from .certify import certificate_by_rows, interior_of, magnitudes_of, with_interior
from .compose import Composed
from .evidence import FRESH, Evidence
from .in_blocks import InBlocks, Table, Whole
from .interior import Points
from .interior_bounds import inside_bounds
from .pipeline import CompiledModel
from .plan import BUDGET
from .record import allowed, kept, record_of
from .rows import Rows
from .trace import Given, all_finite
from .verify import Deviation, deviations

_BLOCK = 64 << 20  # bytes of W that are written, and marked as finished, at once


def linearize_to(
    compiled: CompiledModel,
    folder: Path,
    x: Given,
    rows: Rows = "all",
    *,
    progress: Progress | None = None,
) -> AffineMap:
    """Linearise at one point, with W on disk.

    Args:
        compiled: the model.
        folder: is made where it does not exist. A run that was interrupted goes on where it stopped.
        x: as in `CompiledModel.at`.
        rows: as in `CompiledModel.at`.
        progress: called with the rows finished and their number, those that W's rows are made of counted in.

    Returns:
        The map; its W is a read-only numpy.memmap. `ilin.load(folder)` gives it back.

    Raises:
        OutputError: the folder holds something else, is in use, cannot be written, or is too small.
        InputError, NonFiniteError, RowsError, UnsupportedError: as `CompiledModel.at`.
    """
    return answer_to(compiled, folder, compiled._asked(x, rows), progress=progress)


def answer_to(
    compiled: CompiledModel, folder: Path, asked: Asked, *, progress: Progress | None = None
) -> AffineMap:
    """The same of a question that has been asked already."""
    program = asked.program
    # A quarter of the memory, as the sweep of a block's bounds takes up to three times what its rows take.
    # Blocks keep the size they were begun with: a product's last bits depend on it.
    settings = settings_of(folder) or {"budget": min(limit_of(compiled.memory_limit) // 4, BUDGET)}
    asked = replace(asked, plan=compiled._planned(asked, settings["budget"]))
    case = compiled._case(asked)
    evidence = case.evidence(FRESH)
    with overflow_refused_later():
        inside = interior_of(case)
        magnitudes = with_interior(case, inside, magnitudes_of(case, evidence))
    work = InBlocks(program, asked.rows, asked.plan, case.engine, case.dtype, magnitudes)
    points = [place.stacked(program.inputs) for place in evidence.places]
    identity = _identity(compiled, asked.trace.feeds, work, [*points, inside.base, *inside.inside])
    entries = entries_of_map(program.in_size, len(program.steps), compiled.dtype)
    entries["bounds"] = doubles(1 + len(kept(evidence.fresh)))
    entries["inside_bounds"] = doubles(len(inside.inside))
    plan = Plan(identity, asked.rows, entries, settings)
    checked = _Checked(work, evidence, inside, folder, plan, progress)
    block = max(1, min(work.most, _BLOCK // max(1, entries["W"].bytes)))
    written = write_rows(folder, plan, checked, block=block, progress=checked.tell)

    certificate = certificate_by_rows(case, evidence, _by_place(written.worst))
    W, b, shares = opened(folder)
    given = (asked, W, b, shares)
    examine = partial(compiled._ties, asked)
    affine = affine_map(compiled.graph, compiled.scope, *given, lambda _: certificate, case.survey, examine)
    bounds, inside_bounds = (mapped(folder / f"{name}.npy") for name in ("bounds", "inside_bounds"))
    record = record_of(program, asked.trace, kept(evidence.fresh), bounds, inside, inside_bounds)
    provenance = {**affine.provenance, "nonzero": written.nonzero}
    affine = replace(affine, provenance=provenance, _recorder=lambda: record)
    arrays = to_members(affine, shares)
    others = {name: value for name, value in arrays.items() if name not in entries}
    finish(folder, sealed(to_header(affine), arrays), others, needless=[table.name for table in work.tables])
    return affine


@dataclass(frozen=True)
class _Checked:
    """Makes blocks of W and compares them with onnxruntime."""

    work: InBlocks
    evidence: Evidence
    inside: Points
    folder: Path
    plan: Plan
    progress: Progress | None

    @overflow_refused_later()
    def __call__(self, rows: Array) -> tuple[dict[str, Array], Array]:
        """A block for each of the map's files, and its deviations: at each place, three numbers."""
        work, magnitudes = self.work, self.work.magnitudes
        found = work.block(rows, self._kept)
        composed = Composed(found.W, found.shares.sum(axis=0), found.shares)
        require_representable(W=composed.W, b=composed.b.astype(work.dtype))
        places = len(self.evidence.places)
        rounding = (found.rounding + last_rounding(work.program, composed, magnitudes, work.dtype))[:places]
        inside = inside_bounds(found.rounding[places:], composed.W, self.inside, rows)
        compared = deviations(composed.W, composed.b, work.program, rows, self.evidence, rounding)
        bounds = allowed(work.program, rows, self.evidence.places, rounding, work.dtype)
        bounds = bounds[: 1 + len(kept(self.evidence.fresh))]
        if not all_finite(bounds) or not all_finite(inside):
            raise NonFiniteError("what rounding may do to W z + b leaves the range of float64")
        blocks = {"W": composed.W, "b": composed.b, "bias_shares": found.shares.T}
        blocks |= {"bounds": bounds.T, "inside_bounds": inside.T}
        return blocks, np.array(compared).ravel()

    def tell(self, done: int, _: int) -> None:
        """Report rows of W."""
        self._tell(sum(len(table.rows) for table in self.work.tables) + done)

    def _tell(self, done: int) -> None:
        if self.progress:
            self.progress(done, sum(len(table.rows) for table in self.work.tables) + len(self.plan.rows))

    @cached_property
    def _kept(self) -> list[Whole]:
        """What the rows are products with, made before the first of them; on disk."""
        found, before = [], 0
        for table in self.work.tables:
            write_rows(
                self.folder / table.name,
                Plan(self.plan.identity, table.rows, table.entries),
                partial(_unchecked, table),
                block=table.block,
                progress=lambda done, _, before=before: self._tell(before + done),  # type: ignore[misc]
            )
            found.append({name: mapped(self.folder / table.name / f"{name}.npy") for name in table.entries})
            before += len(table.rows)
        return self.work.whole(found)


def _unchecked(table: Table, rows: Array) -> tuple[dict[str, Array], Array]:
    """A block of a table: what is checked are the rows of W that it goes into."""
    return table.make(rows), np.zeros(0)


def _by_place(numbers: Sequence[float]) -> list[Deviation]:
    """Deviations place by place; none deviates where there are no rows."""
    size = len(Deviation._fields)
    found = [Deviation(*numbers[first : first + size]) for first in range(0, len(numbers), size)]
    return found or [Deviation(0.0, 0.0)]


def _identity(
    compiled: CompiledModel, feeds: Mapping[str, Array], work: InBlocks, points: Sequence[Array]
) -> dict[str, str]:
    """All that decides the answer, by the names that a refusal to go on with another run uses."""
    return {
        "ilin's version": __version__,
        "the model (its SHA-256)": compiled.graph.sha256,
        "x (its SHA-256)": digest(feeds),
        "inputs": ", ".join(compiled.scope.inputs),
        "outputs": ", ".join(compiled.scope.outputs),
        "rows (their SHA-256)": digest({"rows": work.rows}),
        "dtype": str(compiled.dtype),
        **compiled.scope.reading.names,
        "engine": compiled.engine,
        "the plan": "; ".join(
            f"{leg.passes} passes {leg.direction} by {leg.block} to step {leg.first}, {leg.engine}"
            for leg in work.plan.legs
        ),
        "fresh points (their SHA-256)": digest({f"point {i}": point for i, point in enumerate(points)}),
    }
