"""Which outputs are explained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.errors import RowsError
from ..runtime.primitives import Array

Rows = str | int | Sequence[int]


def choose_rows(rows: Rows, y: Array) -> Array:
    """Flat output indices for "all", the k largest outputs, or given indices.

    Raises:
        RowsError: indices outside the output, or rows that are none of these.
    """
    if isinstance(rows, str):
        if rows != "all":
            raise RowsError(
                f'rows {rows!r} is not understood; write "all", an integer k, or a list of indices'
            )
        return np.arange(len(y))
    if isinstance(rows, (int, np.integer)) and not isinstance(rows, bool):
        if not 1 <= rows <= len(y):
            least = "at least one must be asked for" if rows < 1 else f"there are only {len(y)}"
            raise RowsError(f"rows = {rows} asks for the {rows} largest outputs, but {least}")
        return np.argsort(-y.astype(np.float64), kind="stable")[: int(rows)]
    chosen = np.asarray(rows).ravel()
    if chosen.dtype.kind not in "iu":  # an empty list too, which numpy takes for floating point
        raise RowsError(f'rows {rows!r} is not understood; write "all", an integer k, or a list of indices')
    outside = [int(row) for row in chosen if not -len(y) <= row < len(y)]
    if outside:
        raise RowsError(f"row {outside[0]} is outside the output's {len(y)} elements (0 to {len(y) - 1})")
    return np.where(chosen < 0, chosen + len(y), chosen)


def wording(rows: Rows) -> str:
    """How rows were asked for, in words that stay short: "all", "top5" or "given"."""
    if isinstance(rows, str):
        return rows
    return f"top{int(rows)}" if isinstance(rows, (int, np.integer)) else "given"
