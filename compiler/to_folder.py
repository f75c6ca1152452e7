"""A map whose W does not fit memory, composed block by block of rows into a folder, each block checked.

Every row is compared with onnxruntime at x and at the fresh points while it is in memory, and the largest
deviations are kept with the progress: the certificate says the same as that of a map in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..runtime.affine_map import AffineMap
from ..runtime.folder import Plan, Progress, finish, opened, write_rows
from ..runtime.memory import limit_of
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from ..runtime.rounding import Arithmetic
from .answer import affine_map
from .compose import Composed, _add_final_rounding
from .footprint import rows_that_fit
from .pipeline import CompiledModel
from .region import find_neighbours
from .rows import Rows, choose_rows
from .sweep import Magnitudes, Sweep
from .trace import Given, Trace, feeds_of
from .verify import certificate_of, deviation, rounding_at

_BLOCK = 64 << 20  # bytes of W that are written, and marked as finished, at once
_ONNXRUNTIME = 3  # memory that a sweep takes there, over what it takes with numpy: at most 2.8 was measured


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
        progress: called with the rows finished and their number.

    Returns:
        The map; its W is a read-only numpy.memmap. `ilin.load(folder)` gives it back.

    Raises:
        OutputError: the folder holds something else, is in use, cannot be written, or is too small.
        InputError, RowsError, UnsupportedError: as `CompiledModel.at`.
    """
    feeds, notes = feeds_of(compiled.graph, x)
    trace = compiled._observer.trace(feeds)
    program = compiled._lower(trace)
    chosen = choose_rows(rows, trace.stacked(program.outputs))
    theirs, ours = Arithmetic.of(compiled._observer.dtype), Arithmetic.of(compiled.dtype)
    fresh, tried = find_neighbours(
        program, trace, partial(compiled._look, trace), compiled.dtype, theirs.coarser(ours)
    )
    magnitudes = rounding_at(program, trace, fresh, compiled.dtype, theirs + ours)
    places = [trace, *(neighbour.trace for neighbour in fresh)]
    sweep, block = _sweep(compiled, program, chosen, magnitudes)
    identity = _identity(compiled, feeds, chosen, magnitudes.inputs)
    plan = Plan(identity, chosen, program.in_size, len(program.steps), compiled.dtype)
    checked = partial(_checked, sweep, program, magnitudes, places, compiled.dtype)
    written = write_rows(folder, plan, checked, block=block, progress=progress)

    audited = {**compiled._observer.audit(trace.feeds), **trace.values}
    certificate = certificate_of(
        program, _pairs(written.worst), audited, len(fresh), tried, theirs.coarser(ours)
    )
    composed = Composed(*opened(folder), np.zeros((len(places), 0)), "reverse")
    affine = affine_map(
        compiled.graph, program, composed, chosen, trace, certificate, compiled._engine.name, notes
    )
    affine = replace(affine, provenance={**affine.provenance, "nonzero": written.nonzero})
    arrays = {"rows": affine.rows}
    arrays |= {f"x{i}": value for i, value in enumerate(affine.inputs.values())}
    arrays |= {f"y{i}": value for i, value in enumerate(affine.outputs.values())}
    finish(folder, affine.header(), arrays)
    return affine


def _sweep(
    compiled: CompiledModel, program: LinearProgram, rows: Array, magnitudes: Magnitudes
) -> tuple[Sweep, int]:
    """How blocks of rows are composed, and how many rows one takes."""
    sweep = compiled._engine.sweep(program, rows, magnitudes, compiled.dtype)
    budget = min(limit_of(compiled.memory_limit), 1 << 30) // _ONNXRUNTIME
    worth = max(1, min(len(rows), _BLOCK // max(1, program.in_size * compiled.dtype.itemsize)))
    return sweep, rows_that_fit(program, worth, compiled.dtype, budget)


def _checked(
    sweep: Sweep,
    program: LinearProgram,
    magnitudes: Magnitudes,
    places: Sequence[Trace],
    dtype: np.dtype[Any],
    rows: Array,
) -> tuple[Array, Array, Array]:
    """A block of W, the shares in b, and its deviations from onnxruntime: at each place, two numbers."""
    W, shares, rounding = sweep(rows)
    _add_final_rounding(rounding, W, magnitudes.inputs, shares, dtype)
    composed = Composed(W, shares.sum(axis=0), shares, rounding, "reverse")
    found = [deviation(composed, program, rows, place, i) for i, place in enumerate(places)]
    return W, shares, np.array(found).ravel()


def _pairs(numbers: Sequence[float]) -> list[tuple[float, float]]:
    """Deviations and the same over their bounds, place by place; none deviates where there are no rows."""
    return list(zip(numbers[::2], numbers[1::2], strict=True)) or [(0.0, 0.0)]


def _identity(
    compiled: CompiledModel, feeds: Mapping[str, Array], rows: Array, points: Array
) -> dict[str, str]:
    """All that decides the answer, by the names that a refusal to go on with another run uses."""
    return {
        "ilin's version": __version__,
        "the model (its SHA-256)": compiled.graph.sha256,
        "x (its SHA-256)": _digest(feeds),
        "inputs": ", ".join(compiled.scope.inputs),
        "outputs": ", ".join(compiled.scope.outputs),
        "rows (their SHA-256)": _digest({"rows": rows}),
        "dtype": str(compiled.dtype),
        "engine": compiled._engine.name,
        "fresh points (their SHA-256)": _digest({"points": points}),
    }


def _digest(arrays: Mapping[str, Array]) -> str:
    """A hash of names, types, shapes and values."""
    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        found.update(f"{name} {value.dtype.str} {value.shape}".encode())
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()
