"""Numbers for people, each with its exact value beside it for machines."""

from __future__ import annotations

import math

from markupsafe import Markup

_DIGITS = 4  # significant, of the largest in a column


def number(value: float, scale: float | None = None, *, signed: bool = False) -> str:
    """A number in text.

    Args:
        value: the number.
        scale: the largest of its column, which decides how many decimals all of it show.
        signed: with a plus, too.
    """
    size = abs(value if scale is None else scale)
    if not size:
        return "0"
    if not math.isfinite(value):
        return str(value).replace("-", "−").replace("inf", "∞")
    exponent = math.floor(math.log10(size)) if math.isfinite(size) else 0
    form = f".{max(0, _DIGITS - 1 - exponent)}f" if -4 <= exponent < 6 else f".{_DIGITS - 1}e"
    text = f"{value:{'+' if signed else ''}{form}}"
    if float(text) == 0:
        text = text.lstrip("+-")  # no sign where nothing of it is shown
    return text.replace("-", "−")


def data(value: float, scale: float | None = None, *, signed: bool = False) -> Markup:
    """The same as an HTML element that holds the exact value."""
    return Markup('<data value="{}">{}</data>').format(
        repr(float(value)), number(value, scale, signed=signed)
    )


def percent(share: float) -> str:
    """A share of one in percent, two digits."""
    return f"{100 * share:.2g} %" if 100 * share < 1000 else f"{100 * share:,.0f} %"
