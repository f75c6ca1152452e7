"""Numbers for people, each with its exact value beside it for machines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

_DIGITS = 4  # significant, of the largest in a column
_NOISE = 1e-9  # of the largest in a column, up to which a number shows as zero
_ZEROS = -12  # exponent, down to which zeros are written out
_THIN = "\u202f"  # a narrow space that does not break
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LARGE = ((1e12, " trillion"), (1e9, " billion"), (1e6, " million"))


def number(value: float, scale: float | None = None, *, signed: bool = False) -> str:
    """A number in text.

    Args:
        value: the number.
        scale: the largest of its column, which decides how many decimals all of it show; a number that
            would show as zero, and is more than rounding, has its own.
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
        if scale is not None and abs(value) > _NOISE * size:
            return number(value, signed=signed)
        text = text.lstrip("+-")  # no sign where nothing of it is shown
    mantissa, _, power = text.partition("e")
    if power:
        mantissa = f"{mantissa}×10{str(int(power)).translate(_RAISED)}"
    return mantissa.replace("-", "−")


def written_out(size: float) -> str:
    """A small size with all its zeros, for sentences: 0.000 000 013. Two digits."""
    exponent = math.floor(math.log10(size)) if size > 0 else 0
    if not _ZEROS <= exponent < -3:
        return number(size)
    digits = f"{size:.{1 - exponent}f}".removeprefix("0.")
    return f"0.{_THIN.join(digits[i : i + 3] for i in range(0, len(digits), 3))}"


def part(share: float) -> str:
    """A share of one as one says it: "12 %", "about one part in 80 million"."""
    if share >= 0.001 or not share:
        return percent(share)
    if 1 / share >= 1e15:
        return "less than one part in a million billion"
    count = float(f"{1 / share:.2g}")
    unit, word = next(((u, w) for u, w in _LARGE if count >= u), (1.0, ""))
    return f"about one part in {count / unit:,.4g}{word}" if word else f"about one part in {count:,.0f}"


def data(value: float, scale: float | None = None, *, signed: bool = False) -> Markup:
    """The same as an HTML element that holds the exact value."""
    from markupsafe import Markup  # comes with jinja2, which a plot does without

    return Markup('<data value="{}">{}</data>').format(
        repr(float(value)), number(value, scale, signed=signed)
    )


def percent(share: float) -> str:
    """A share of one in percent, two digits."""
    size = 100 * share
    if size >= 99.5:
        return f"{size:,.0f} %"
    return f"{written_out(size) if 0 < size < 1e-3 else f'{size:.2g}'} %"
