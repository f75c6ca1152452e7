"""Which outputs are explained."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..runtime.errors import RowsError
from ..runtime.largest import by_size
from ..runtime.primitives import Array

Rows = str | int | Sequence[int]

_TOP = re.compile(r"top([0-9]+)")
_FORMS = '"all", "top5" or 5 for the 5 largest outputs, or a list of indices such as [5]'


def largest_of(rows: Rows) -> Rows:
    """The number k in place of "topK"; rows asked for in another way as they are."""
    top = _TOP.fullmatch(rows) if isinstance(rows, str) else None
    return int(top[1]) if top else rows


def choose_rows(rows: Rows, y: Array, leading: range) -> Array:
    """Flat output indices for "all", "top5" or 5 (the largest, all where there are fewer), or indices.

    Args:
        rows: as they were asked for.
        y: all outputs, flat and stacked.
        leading: flat indices of the output whose entries the largest are of.

    Raises:
        RowsError: indices outside the output, or rows that are none of these.
    """
    if isinstance(rows, str):
        if rows == "all":
            return np.arange(len(y))
        if not _TOP.fullmatch(rows):
            raise RowsError(f"rows {rows!r} is not understood; write {_FORMS}")
        rows = largest_of(rows)
    if isinstance(rows, (int, np.integer)) and not isinstance(rows, bool):
        if rows < 1:
            raise RowsError(f"rows = {rows} asks for the {rows} largest outputs, but at least one must be")
        return np.array(by_size(y, np.arange(len(y)), leading)[: int(rows)], np.int64)
    chosen = np.asarray(rows).ravel()
    if chosen.dtype.kind not in "iu":  # an empty list too, which numpy takes for floating point
        raise RowsError(f"rows {rows!r} is not understood; write {_FORMS}")
    outside = [int(row) for row in chosen if not -len(y) <= row < len(y)]
    if outside:
        raise RowsError(f"row {outside[0]} is outside the output's {len(y)} elements (0 to {len(y) - 1})")
    return np.where(chosen < 0, chosen + len(y), chosen)


def fewer(rows: Rows, found: Array) -> tuple[str, ...]:
    """A note where more outputs are asked for than there are."""
    rows = largest_of(rows)
    if not isinstance(rows, (int, np.integer)) or rows <= len(found):
        return ()
    return (f"the {rows} largest outputs are asked for, and there {_are(len(found))}",)


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"


def wording(rows: Rows) -> str:
    """How rows were asked for, in words that stay short: "all", "top5" or "given"."""
    if isinstance(rows, str):
        return rows
    return f"top{int(rows)}" if isinstance(rows, (int, np.integer)) else "given"
