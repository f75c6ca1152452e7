"""A ledger as a table for people, added up as one would on paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import html
from .arrays import located
from .decision import DecisionBoundary
from .region import NORMS, name_of
from .text import column, number, shortened

if TYPE_CHECKING:
    from .ledger import Ledger, Share

_LABEL, _X, _WEIGHT, _AMOUNT = 24, 10, 10, 12
_WIDTH = _LABEL + _X + _WEIGHT + _AMOUNT + 3  # 59: what is left of 80 columns is for a remark
_LONGEST = 80  # columns of a name that has a line of its own


class _Line(NamedTuple):
    label: str
    amount: float
    x: float | None = None
    weight: float | None = None
    remark: str = ""


def text_of(ledger: Ledger, largest: int) -> str:
    """See `Ledger.text`."""
    entries, shares, ends = _lines(ledger, largest)
    rows = [_row(*cells) for cells in _cells([*entries, *shares, *ends])]
    table = [_heading(ledger), *rows[: len(entries)]]
    if shares:
        table += [_shares_heading(ledger), *rows[len(entries) : len(entries) + len(shares)]]
    table += [*rows[len(entries) + len(shares) :], *_remarks(ledger)]
    return "\n".join(table)


def html_of(ledger: Ledger, largest: int) -> str:
    """The same as an HTML table, for notebooks."""
    entries, shares, ends = _lines(ledger, largest)
    return html.table(
        _title(ledger), ("", _factor(ledger), "weight", "adds", ""), _cells([*entries, *shares, *ends])
    )


def _lines(ledger: Ledger, largest: int) -> tuple[list[_Line], list[_Line], list[_Line]]:
    """The contributions or groups, the shares, and what stands below them."""
    entries = [*(_groups if ledger.grouped else _contributions)(ledger, largest)]
    base = [] if ledger.base is None else [_Line("the map at the baseline", ledger.base)]
    ends = [
        _Line("sum", ledger.sum),
        _Line("onnxruntime", ledger.value, remark=f"residual {ledger.residual:.1e}"),
    ]
    return entries, [*_shares(ledger.shares, largest)], [*base, *ends]


def _cells(lines: Sequence[_Line]) -> list[tuple[str, str, str, str, str]]:
    """Label, x, weight, amount and remark of each line; the numbers of a column in the same format."""
    amounts = column([line.amount for line in lines], signed=True)
    xs = iter(column([line.x for line in lines if line.x is not None]))
    weights = iter(column([line.weight for line in lines if line.weight is not None], signed=True))
    return [
        (
            line.label,
            "" if line.x is None else next(xs),
            "" if line.weight is None else next(weights),
            amount,
            line.remark,
        )
        for line, amount in zip(lines, amounts, strict=True)
    ]


def _heading(ledger: Ledger) -> str:
    title = _title(ledger)
    if ledger.grouped:
        return _row(title, "", "", "contribution")
    if len(title) > _LABEL:  # on a line of its own
        return f"{title}\n{_row('', _factor(ledger), 'weight', 'contribution')}"
    return _row(title, _factor(ledger), "weight", "contribution")


def _title(ledger: Ledger) -> str:
    against = "" if ledger.sides is None else f" - {_name(ledger.sides[1])}"
    return _name(ledger) + against


def _name(ledger: Ledger) -> str:
    index = f"[{', '.join(map(str, ledger.index))}]"
    return shortened(ledger.output, max(8, 36 - len(index))) + index


def _factor(ledger: Ledger) -> str:
    return "x" if ledger.base is None else "x - x0"


def _contributions(ledger: Ledger, largest: int) -> Iterator[_Line]:
    flat = ledger.flat
    order = [int(j) for j in np.argsort(-np.abs(flat), kind="stable")[:largest] if flat[j]]
    for j in order:
        name, index = located(j, ledger.shapes)
        label = f"[{', '.join(map(str, index))}]"
        if len(ledger.shapes) > 1:
            label = shortened(name, max(4, _LABEL - 2 - len(label))) + label
        yield _Line(f"  {label}", flat[j], ledger.x[j], ledger.slopes[j])
    yield from _others(flat, order)


def _groups(ledger: Ledger, largest: int) -> Iterator[_Line]:
    names, sums = [*ledger.groups], np.array([*ledger.groups.values()])
    order = [int(j) for j in np.argsort(-np.abs(sums), kind="stable")[:largest]]
    for j in order:
        yield _Line(f"  {shortened(names[j], _LONGEST - 2)}", sums[j])
    yield from _others(sums, order)


def _shares(shares: Sequence[Share], largest: int) -> Iterator[_Line]:
    parts = [(share, channel, value) for share in shares for channel, value in share.parts]
    values = np.array([value for _, _, value in parts])
    order = [int(j) for j in np.argsort(-np.abs(values), kind="stable")[:largest] if values[j]]
    for j in order:
        share, channel, value = parts[j]
        place = "" if channel is None else f", channel {channel}"
        start = f"  {share.op} "
        room = _LONGEST - len(start) - len(place)
        yield _Line(f"{start}{shortened(share.node, max(8, room))}{place}", value)
    yield from _others(values, order)


def _others(values: np.ndarray, shown: Sequence[int]) -> Iterator[_Line]:
    """The terms that have no line of their own, those that are 0 not counted."""
    rest = np.delete(values, shown)
    if rest.any():
        yield _Line(f"  {np.count_nonzero(rest):,} others", float(rest.sum()))


def _shares_heading(ledger: Ledger) -> str:
    split = any(share.channels is not None for share in ledger.shares)
    return "bias shares, by step and channel" if split else "bias shares, by step"


def _remarks(ledger: Ledger) -> Iterator[str]:
    yield f"the residual is {ledger.relative_residual:.1e} of the sum of all sizes, |terms|"
    if ledger.slack:
        yield f"up to {number(ledger.slack)} of it is by design, as steps read rounding as linear"
    if ledger.boundary is not None:
        yield from _boundary(ledger.boundary)


def _boundary(boundary: DecisionBoundary) -> Iterator[str]:
    yield "the map makes both equal at a distance of"
    for norm in NORMS:
        found = boundary.nearest(norm)
        name = "L∞" if name_of(norm) == "inf" else f"L{name_of(norm)}"
        where = {
            True: "inside the region around x: so does the model",
            False: "outside of the region around x: true of the map only",
            None: "" if found.step is None else "not known to be in the region: true of the map only",
        }[found.inside]
        yield f"  {name}  {number(found.distance):<10} {where}".rstrip()


def _row(label: str, x: str, weight: str, amount: str, remark: str = "") -> str:
    head = f"{label:<{_LABEL}}"
    if x or weight:
        head = f"{head} {x:>{_X}} {weight:>{_WEIGHT}}"
    room = _WIDTH - _AMOUNT - 1
    if len(head) > room:  # a long name has a line of its own
        return f"{head}\n{'':{room}} {amount:>{_AMOUNT}}  {remark}".rstrip()
    return f"{head:<{room}} {amount:>{_AMOUNT}}  {remark}".rstrip()
