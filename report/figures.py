"""Which pictures a page shows of an input, and what stands under them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..runtime.arrays import Array
from .charts import Chart, bars, curve, tallest
from .content import Content
from .layouts import Layout
from .maps import Picture, block_of, limit_of, overlay, photograph, signed_map, summed
from .numbers import number

_CHANNELS = 6  # at most, each in a picture of its own
_OVER = "The same over the input"
_LONG = 40  # entries, from which a drawing shows more than a table does


@dataclass(frozen=True)
class Figure:
    """A picture or a drawing with its words."""

    title: str
    caption: str
    picture: Picture | None = None
    chart: Chart | None = None
    limit: float | None = None  # of a map in colours
    saturated: bool = False  # whether some entries lie beyond it


@dataclass(frozen=True)
class Shown:
    """The figures of one input."""

    name: str
    figures: tuple[Figure, ...]
    channels: tuple[Figure, ...]  # what each channel adds
    channels_left: int  # not shown
    contrast: tuple[Figure, ...]


def shown_of(name: str, layout: Layout, x: Array, columns: slice, content: Content) -> Shown:
    """The figures of one input.

    Args:
        name: of the input.
        layout: how its axes are read.
        x: its values.
        columns: its part of the stacked inputs.
        content: what the page says.
    """
    contributions = layout.ordered(content.account.contributions[columns])
    contrast = None if content.contrast is None else layout.ordered(content.contrast.contributions[columns])
    slopes = layout.ordered(content.slopes[columns])
    values = layout.ordered(x)
    if layout.form == "image":
        return _images(name, values, contributions, slopes, contrast, content)
    if layout.form == "sequence" or values.size > _LONG:
        lifted = [
            None if each is None else each.reshape(-1, each.shape[-1])
            for each in (values, contributions, contrast)
        ]
        assert lifted[0] is not None and lifted[1] is not None
        return _drawings(name, layout, lifted[0], lifted[1], lifted[2], content)
    return Shown(name, (), (), 0, ())


def _images(
    name: str, x: Array, contributions: Array, slopes: Array, contrast: Array | None, content: Content
) -> Shown:
    """Maps of (C, H, W)."""
    C, what = len(x), content.explained.name
    added, block = contributions.sum(axis=0), block_of(*x.shape[1:])
    against = None if contrast is None else contrast.sum(axis=0)
    limit = limit_of(*(summed(each, block) for each in (added, against) if each is not None))
    across = f", the {C} channels added up" if C > 1 else ""
    blocks = f" One dot stands for {block} × {block} entries." if block > 1 else ""
    low, high = (number(float(each)) for each in (x.min(), x.max()))
    photo = f"The input {name}, {x.shape[1]} rows by {x.shape[2]} columns, from {low} to {high}."
    colours = "" if C in (1, 3) else f" Grey shows the mean of the {C} channels." if C != 4 else ""
    tale = _told(added)
    weights = slopes.sum(axis=0)
    weight_limit = limit_of(summed(weights, block))
    figures = (
        Figure("The input", f"Dark is {low}, bright is {high}.{colours}", photograph(x, photo)),
        _map(
            f"What each place adds to {what}",
            f"Red adds, blue takes away, white does neither{across}. "
            f"All together {number(added.sum(), signed=True)}." + blocks,
            added,
            limit,
            f"Map of what each place adds to {what}: {tale}.",
        ),
        Figure(
            _OVER,
            "The stronger the colour, the more a place adds or takes away.",
            overlay(x, added, limit, f"The same map over the input in grey: {tale}."),
        ),
        _map(
            "Weights",
            f"By how much {what} would rise for one unit more in a place{across}: red up, blue down.",
            weights,
            weight_limit,
            f"Map of the weights of {what}: {_told(weights)}.",
        ),
    )
    chosen, left = _largest(contributions) if C > 1 else ([], 0)
    channel_limit = limit_of(*(summed(contributions[c], block) for c in chosen)) if chosen else 1.0
    channels = tuple(
        _map(
            f"Channel {c}",
            f"adds {number(contributions[c].sum(), signed=True)}",
            contributions[c],
            channel_limit,
            f"Map of what channel {c} adds: {_told(contributions[c])}.",
        )
        for c in chosen
    )
    versus: tuple[Figure, ...] = ()
    if against is not None and content.against is not None:
        rival = content.against.name
        tale = f"Map of what speaks for {what} against {rival}: {_told(against)}."
        first = _map(
            f"{what} against {rival}",
            f"Red speaks for {what}, blue for {rival}{across}. "
            f"All together {number(against.sum(), signed=True)}." + blocks,
            against,
            limit,
            tale,
        )
        over = "The stronger the colour, the more a place speaks for one of them."
        versus = (first, Figure(_OVER, over, overlay(x, against, limit, f"Over the input in grey: {tale}")))
    return Shown(name, figures, channels, left, versus)


def _map(title: str, caption: str, values: Array, limit: float, alt: str) -> Figure:
    beyond = bool(np.abs(summed(values, block_of(*values.shape))).max() > limit * (1 + 1e-6))
    return Figure(title, caption, signed_map(values, limit, alt), limit=limit, saturated=beyond)


def _drawings(
    name: str, layout: Layout, x: Array, contributions: Array, contrast: Array | None, content: Content
) -> Shown:
    """Drawings of (C, L); plain entries are one channel."""
    what, unit = content.explained.name, "step" if layout.form == "sequence" else "entry"
    added = contributions.sum(axis=0)
    against = None if contrast is None else contrast.sum(axis=0)
    limit = tallest(*(each for each in (added, against) if each is not None))
    chosen, left = _largest(contributions)
    across = f", the {len(x)} channels added up" if len(x) > 1 else ""
    inputs = tuple(
        Figure(
            "The input" if len(x) == 1 else f"The input, channel {c}",
            f"from {number(float(x[c].min()))} to {number(float(x[c].max()))}",
            chart=curve(x[c], f"Curve of the input {name}, channel {c}, {x.shape[1]} {unit}s long."),
        )
        for c in (chosen if len(x) > 1 else [0])
    )
    total = Figure(
        f"What each {unit} adds to {what}",
        f"Bars up add, bars down take away{across}. All together {number(added.sum(), signed=True)}.",
        chart=bars(added, limit, f"Bars of what each {unit} adds to {what}: {_told(added[None])}."),
    )
    channel_limit = tallest(*(contributions[c] for c in chosen))
    channels = tuple(
        Figure(
            f"Channel {c}",
            f"adds {number(contributions[c].sum(), signed=True)}",
            chart=bars(
                contributions[c],
                channel_limit,
                f"Bars of what channel {c} adds: {_told(contributions[c][None])}.",
            ),
        )
        for c in (chosen if len(x) > 1 else [])
    )
    versus: tuple[Figure, ...] = ()
    if against is not None and content.against is not None:
        rival = content.against.name
        drawn = Figure(
            f"{what} against {rival}",
            f"Bars up speak for {what}, bars down for {rival}{across}. "
            f"All together {number(against.sum(), signed=True)}.",
            chart=bars(
                against, limit, f"Bars of what speaks for {what} against {rival}: {_told(against[None])}."
            ),
        )
        versus = (drawn,)
    return Shown(name, (*inputs, total), channels, left, versus)


def _largest(contributions: Array) -> tuple[list[int], int]:
    """The channels that move the most, in their order, and how many are left out."""
    sizes = np.abs(contributions).reshape(len(contributions), -1).sum(axis=1)
    chosen = sorted(int(c) for c in np.argsort(-sizes, kind="stable")[:_CHANNELS])
    return chosen, len(contributions) - len(chosen)


def _told(values: Array) -> str:
    """What a map (rows, columns) shows, for those who do not see it."""
    parts = []
    for word, at in (("most up", int(np.argmax(values))), ("most down", int(np.argmin(values)))):
        row, column = (int(i) for i in np.unravel_index(at, values.shape))
        amount = float(values[row, column])
        if amount and (amount > 0) == (word == "most up"):
            where = f"place {column}" if len(values) == 1 else f"row {row}, column {column}"
            parts.append(f"{word} {number(amount, signed=True)} at {where}")
    parts.append(f"all together {number(float(values.sum()), signed=True)}")
    return "; ".join(parts)
