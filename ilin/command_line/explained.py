"""Which output is explained, and against which one: `--explain` and `--against`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..runtime.errors import RowsError
from ..runtime.largest import by_size
from ..runtime.primitives import Array


@dataclass(frozen=True)
class Explained:
    """Flat output indices as they were typed, negative ones counted from the end; None where none was."""

    row: int | None = None  # None: the largest of the map's rows
    against: int | None = None  # None: nothing, or the runner-up where a rival is needed

    def positions(self, rows: Array, y: Array, leading: range) -> tuple[int, int | None]:
        """Positions among a map's rows.

        Args:
            rows: (K,) flat output indices of the map.
            y: all outputs, flat and stacked.
            leading: flat indices of the output whose largest entry is explained where none was typed.

        Returns:
            Of the output to explain, and of its rival where one was named.

        Raises:
            RowsError: an index outside the output, one that is not among the rows, or one against itself.
        """
        if self.row is None:
            top = by_size(y, rows, leading)[0]
        else:
            top = _position("--explain", self.row, rows, len(y))
        if self.against is None:
            return top, None
        rival = _position("--against", self.against, rows, len(y))
        if rival == top:
            raise RowsError(f"--against {self.against} is the explained output itself; name another one")
        return top, rival


def _position(option: str, index: int, rows: Array, count: int) -> int:
    if not -count <= index < count:
        raise RowsError(f"{option} {index}: the outputs are 0 to {count - 1:,}; -1 is the last")
    found = np.flatnonzero(rows == index % count)
    if not len(found):
        raise RowsError(f"{option} {index} is not among --rows; add it there, or leave --rows out")
    return int(found[0])
