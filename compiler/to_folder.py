"""A map whose W does not fit memory, composed block by block of rows into a folder, each block checked.

Every row is compared with onnxruntime at x and at the fresh points while it is in memory, and the largest
deviations are kept with the progress: the certificate says the same as that of a map in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..runtime.affine_map import AffineMap
from ..runtime.folder import Plan, Progress, finish, opened, write_rows
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from .answer import affine_map
from .bounds import last_rounding
from .compose import Composed
from .pipeline import CompiledModel
from .rows import Rows
from .sweep import Sweep
from .trace import Given
from .verify import Evidence, certificate_of, deviations

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
        progress: called with the rows finished and their number.

    Returns:
        The map; its W is a read-only numpy.memmap. `ilin.load(folder)` gives it back.

    Raises:
        OutputError: the folder holds something else, is in use, cannot be written, or is too small.
        InputError, RowsError, UnsupportedError: as `CompiledModel.at`.
    """
    asked = compiled.asked(x, rows)
    program, chosen = asked.program, asked.rows
    way = compiled._plan(program, len(chosen), "reverse")
    evidence = compiled._evidence(program, asked.trace)
    given = (way.legs[0], program, chosen, compiled.dtype)
    engine = compiled.prepared(asked.trace)._engine
    sweep, bounds = engine.rows(*given), engine.bounds(*given, evidence.magnitudes)
    identity = _identity(
        compiled, asked.trace.feeds, chosen, [place.stacked(program.inputs) for place in evidence.places]
    )
    plan = Plan(identity, chosen, program.in_size, len(program.steps), compiled.dtype)
    checked = partial(_checked, sweep, bounds, program, evidence, compiled.dtype)
    worth = _BLOCK // max(1, program.in_size * compiled.dtype.itemsize)
    block = max(1, min(way.legs[0].block, worth))
    written = write_rows(folder, plan, checked, block=block, progress=progress)

    certificate = certificate_of(program, evidence, _pairs(written.worst))
    W, b, shares = opened(folder)
    affine = affine_map(compiled.graph, replace(asked, plan=way), W, b, shares, lambda: certificate)
    affine = replace(affine, provenance={**affine.provenance, "nonzero": written.nonzero})
    arrays = {"rows": affine.rows}
    arrays |= {f"x{i}": value for i, value in enumerate(affine.inputs.values())}
    arrays |= {f"y{i}": value for i, value in enumerate(affine.outputs.values())}
    finish(folder, affine.header(), arrays)
    return affine


def _checked(
    sweep: Sweep,
    bounds: Callable[[Array], Array],
    program: LinearProgram,
    evidence: Evidence,
    dtype: np.dtype[Any],
    rows: Array,
) -> tuple[Array, Array, Array]:
    """A block of W, the shares in b, and its deviations from onnxruntime: at each place, two numbers."""
    found = sweep(rows)
    composed = Composed(found.W, found.shares.sum(axis=0), found.shares)
    rounding = bounds(rows) + last_rounding(program, composed, evidence.magnitudes, dtype)
    compared = deviations(composed.W, composed.b, program, rows, evidence, rounding)
    return found.W, found.shares, np.array(compared).ravel()


def _pairs(numbers: Sequence[float]) -> list[tuple[float, float]]:
    """Deviations and the same over their bounds, place by place; none deviates where there are no rows."""
    return list(zip(numbers[::2], numbers[1::2], strict=True)) or [(0.0, 0.0)]


def _identity(
    compiled: CompiledModel, feeds: Mapping[str, Array], rows: Array, points: Sequence[Array]
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
        "engine": compiled.engine,
        "fresh points (their SHA-256)": _digest({f"point {i}": point for i, point in enumerate(points)}),
    }


def _digest(arrays: Mapping[str, Array]) -> str:
    """A hash of names, types, shapes and values."""
    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        found.update(f"{name} {value.dtype.str} {value.shape}".encode())
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()
