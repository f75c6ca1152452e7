"""Numbers and names that fit a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOT_FINITE = "not finite"


def one_line(text: str) -> str:
    """The text in one line. Names come from models that nobody here wrote: no control characters pass."""
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def shortened(name: str, width: int) -> str:
    """A name that fits, with its middle left out."""
    name = one_line(name)
    if len(name) <= width:
        return name
    left = (width - 1) // 2
    return f"{name[:left]}…{name[len(name) - (width - 1 - left) :]}"


def number(value: float | None) -> str:
    """Five significant digits."""
    return NOT_FINITE if value is None else f"{value:.5g}"


def column(values: Sequence[float | None], *, signed: bool = False) -> list[str]:
    """Numbers of one column, all in the same format: five digits of the largest."""
    largest = max((abs(v) for v in values if v is not None), default=0.0)
    exponent = math.floor(math.log10(largest)) if largest else 0
    form = f".{4 - exponent}f" if -4 < exponent < 5 else ".3e"
    return [NOT_FINITE if v is None else f"{v:{'+' if signed else ''}{form}}" for v in values]
