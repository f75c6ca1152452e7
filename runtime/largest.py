"""Which output is the largest, where nobody names one: an entry of the leading output, and of no other.

Entries of different outputs are no rivals: a probability is neither more nor less than the state of a memory.
So the largest is looked for in one output, the first of the model that depends on x: what `leading` names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .arrays import Array, Shape, located


def entries_of(output: str, shapes: Mapping[str, Shape]) -> range:
    """Flat indices of an output's entries among all outputs, stacked.

    Args:
        output: its name.
        shapes: of all outputs, in their order.
    """
    first = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        if name == output:
            return range(first, first + size)
        first += size
    raise KeyError(output)


def by_size(y: Array, rows: Array, among: range) -> list[int]:
    """Positions in `rows` of the entries that lie in `among`, the largest first; of all where none does.

    Args:
        y: all outputs, flat and stacked.
        rows: (K,) flat output indices.
        among: flat output indices, such as those of the leading output.
    """
    own = np.flatnonzero((rows >= among.start) & (rows < among.stop))
    own = own if len(own) else np.arange(len(rows))
    order = np.argsort(-y[rows[own]].astype(np.float64), kind="stable")
    return [int(k) for k in own[order]]


def rivals(position: int, y: Array, rows: Array, shapes: Mapping[str, Shape]) -> list[int]:
    """Positions in `rows` of the other entries of the output that one lies in, the largest first.

    Args:
        position: in `rows`, of the one.
        y: all outputs, flat and stacked.
        rows: (K,) flat output indices.
        shapes: of all outputs, in their order.
    """
    output, _ = located(int(rows[position]), shapes)
    return [k for k in by_size(y, rows, entries_of(output, shapes)) if k != position]
