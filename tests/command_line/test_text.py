"""Numbers, names and shapes as people read them."""

from __future__ import annotations

import pytest

from ilin.command_line._text import column, dimensions, listed, one_line, shortened


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), ("a\nb\tc", "a b c"), ("\x1b[31mred", "\\x1b[31mred"), ("größe ×", "größe ×")],
)
def test_one_line(text, expected):
    assert one_line(text) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, -0.25], ["+1.5000", "-0.2500"]),
        ([123.456, 0.001], ["+123.46", "+0.00"]),
        ([12345.6], ["+12346"]),
        ([0.0123, 0], ["+0.012300", "+0.000000"]),
        ([1e-9, 1], ["+0.0000", "+1.0000"]),
        ([1e-9], ["+1.000e-09"]),
        ([1e12, 1], ["+1.000e+12", "+1.000e+00"]),
        ([0.0], ["+0.0000"]),
        ([None, 1.0], ["not finite", "+1.0000"]),
        ([], []),
    ],
)
def test_column(values, expected):
    assert column(values, signed=True) == expected


def test_shortened():
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcd…ghijk"


def test_dimensions():
    assert dimensions([1, "batch", None]) == "1×batch×?"
    assert dimensions([]) == "scalar"
    assert dimensions(None) == "?"


def test_listed():
    assert listed(["a", "b", "c", "d"], 3) == "a, b, c and 1 more"
    assert listed(["a"]) == "a"
