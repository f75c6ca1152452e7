"""Which pictures a page shows of an input, and what stands under them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..runtime.arrays import Array
from .charts import Chart, bars, curve, tallest
from .content import Content
from .layouts import Layout
from .maps import Picture, block_of, limit_of, overlay, photograph, signed_map, summed
from .numbers import number, percent
from .spots import Spot, spot_of

_CHANNELS = 6  # at most, each in a picture of its own
_OVER = "The same over the input"


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
    closer: tuple[Figure, ...]  # where most of them lies, larger
    channels: tuple[Figure, ...]  # what each channel adds
    channels_left: int  # not shown
    contrast: tuple[Figure, ...]
    contrast_closer: tuple[Figure, ...]


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
    if layout.form == "sequence":
        return _drawings(name, values, contributions, contrast, content)
    return Shown(name, (), (), (), 0, (), ())  # entries in no order: a table of the largest shows them


def _images(
    name: str, x: Array, contributions: Array, slopes: Array, contrast: Array | None, content: Content
) -> Shown:
    """Maps of (C, H, W)."""
    C, what = len(x), content.what
    across = f", the {C} channels added up" if C > 1 else ""
    low, high = (number(float(each)) for each in (x.min(), x.max()))
    photo = f"The input {name}, {x.shape[1]} rows by {x.shape[2]} columns, from {low} to {high}."
    colours = "" if C in (1, 3) else f" Grey shows the mean of the {C} channels." if C != 4 else ""
    added, weights = contributions.sum(axis=0), slopes.sum(axis=0)
    spot = spot_of(added)
    figures = (
        Figure("The input", f"Dark is {low}, bright is {high}.{colours}", photograph(x, photo)),
        *_map_and_overlay(
            x,
            added,
            spot,
            "What each place adds",
            f"Red adds, blue takes away, white does neither{across}.",
            "The stronger the colour, the more a place adds or takes away.",
            f"Map of what each place adds to {what}",
        ),
        _map(
            "Weights",
            f"By how much {what} would rise for one unit more in a place{across}: red up, blue down.",
            weights,
            _limit(spot_of(weights), weights),
            f"Map of the weights of {what}: {_told(weights)}.",
        ),
    )
    chosen, left = _largest(contributions) if C > 1 else ([], 0)
    limit = _limit(spot, *(contributions[c] for c in chosen)) if chosen else 1.0
    channels = tuple(
        _map(
            f"Channel {c}",
            f"adds {number(contributions[c].sum(), signed=True)}",
            contributions[c],
            limit,
            f"Map of what channel {c} adds: {_told(contributions[c])}.",
        )
        for c in chosen
    )
    versus: tuple[Figure, ...] = ()
    closer_versus: tuple[Figure, ...] = ()
    if contrast is not None and content.against is not None:
        rival, against = content.against.name, contrast.sum(axis=0)
        of_both = spot_of(against)
        versus = _map_and_overlay(
            x,
            against,
            of_both,
            "What each place speaks for",
            f"Red speaks for {what}, blue for {rival}{across}.",
            "The stronger the colour, the more a place speaks for one of them.",
            f"Map of what speaks for {what} against {rival}",
        )
        closer_versus = _closer(x, against, of_both, f"what speaks for {what} against {rival}")
    closer = _closer(x, added, spot, f"what each place adds to {what}")
    return Shown(name, figures, closer, channels, left, versus, closer_versus)


def _map_and_overlay(
    x: Array, values: Array, spot: Spot | None, title: str, caption: str, over: str, alt: str
) -> tuple[Figure, Figure]:
    """Signed numbers (H, W) in colours, and the same over the input (C, H, W); framed where most of it is."""
    limit, block = _limit(spot, values), block_of(*values.shape)
    parts = [caption, f"All together {number(values.sum(), signed=True)}."]
    if block > 1:
        parts.append(f"One dot stands for {block} × {block} entries.")
    tale = _told(values)
    if spot is not None:
        held = f"{percent(spot.share)} of all that is added and taken away"
        parts.append(f"The frame holds {held}, and is shown larger below.")
        tale = f"{tale}; {held} lies in {_where(spot)}"
    first = _map(title, " ".join(parts), values, limit, f"{alt}: {tale}.")
    second = Figure(_OVER, over, overlay(x, values, limit, f"{alt}, over the input in grey: {tale}."))
    return (_framed(first, spot), _framed(second, spot))


def _closer(x: Array, values: Array, spot: Spot | None, what: str) -> tuple[Figure, ...]:
    """The framed place of a map (H, W), larger, and the same over the input (C, H, W)."""
    if spot is None:
        return ()
    inside = spot.of(values)
    limit, block = _limit(None, inside), block_of(*inside.shape)
    blocks = f" One dot stands for {block} × {block} entries." if block > 1 else ""
    alt = f"{what} in {_where(spot)}, larger: all together {number(inside.sum(), signed=True)}."
    where = _where(spot)
    told = f"{where[0].upper()}{where[1:]}.{blocks}"
    return (
        _map("The framed place, larger", told, inside, limit, f"Map of {alt}"),
        Figure(
            "The same over the input",
            "The input there in grey.",
            overlay(spot.of(x), inside, limit, f"Over the input in grey, {alt}"),
        ),
    )


def _framed(figure: Figure, spot: Spot | None) -> Figure:
    if spot is None or figure.picture is None:
        return figure
    return replace(figure, picture=figure.picture.framed(spot))


def _where(spot: Spot) -> str:
    return f"rows {spot.top} to {spot.bottom - 1}, columns {spot.left} to {spot.right - 1}"


def _limit(spot: Spot | None, *maps: Array) -> float:
    """What the deepest colour stands for in maps (H, W): by the place where most is, if there is one."""
    block = block_of(*maps[0].shape)
    return limit_of(*(summed(each if spot is None else spot.of(each), block) for each in maps))


def _map(title: str, caption: str, values: Array, limit: float, alt: str) -> Figure:
    beyond = bool(np.abs(summed(values, block_of(*values.shape))).max() > limit * (1 + 1e-6))
    return Figure(title, caption, signed_map(values, limit, alt), limit=limit, saturated=beyond)


def _drawings(name: str, x: Array, contributions: Array, contrast: Array | None, content: Content) -> Shown:
    """Drawings of (C, L)."""
    what, unit, units = content.what, "step", "steps"
    added = contributions.sum(axis=0)
    chosen, left = _largest(contributions)
    across = f", the {len(x)} channels added up" if len(x) > 1 else ""
    inputs = tuple(
        _curve(
            "The input" if len(x) == 1 else f"The input, channel {c}",
            x[c],
            f"Curve of the input {name}, channel {c}, {x.shape[1]} {units} long",
        )
        for c in (chosen if len(x) > 1 else [0])
    )
    total, closer = _bars_and_closer(
        added,
        f"What each {unit} adds",
        f"Bars up add, bars down take away{across}.",
        f"Bars of what each {unit} adds to {what}",
        units,
    )
    larger: tuple[Figure, ...] = () if closer is None else (closer,)
    if closer is not None and closer.chart is not None and len(x) == 1:
        start, end = closer.chart.first, closer.chart.last + 1
        alt = f"Curve of the input {name} from {unit} {start} to {end - 1}"
        larger = (_curve("The input there", x[0, start:end], alt, start), closer)
    limit = tallest(*(contributions[c] for c in chosen))
    channels = tuple(
        _bars(
            contributions[c],
            limit,
            f"Channel {c}",
            f"adds {number(contributions[c].sum(), signed=True)}.",
            f"Bars of what channel {c} adds: {_told(contributions[c][None])}.",
            units,
        )
        for c in (chosen if len(x) > 1 else [])
    )
    versus: tuple[Figure, ...] = ()
    closer_versus: tuple[Figure, ...] = ()
    if contrast is not None and content.against is not None:
        rival = content.against.name
        drawn, framed = _bars_and_closer(
            contrast.sum(axis=0),
            f"What each {unit} speaks for",
            f"Bars up speak for {what}, bars down for {rival}{across}.",
            f"Bars of what speaks for {what} against {rival}",
            units,
        )
        versus, closer_versus = (drawn,), () if framed is None else (framed,)
    return Shown(name, (*inputs, total), larger, channels, left, versus, closer_versus)


def _bars_and_closer(
    values: Array, title: str, caption: str, alt: str, units: str
) -> tuple[Figure, Figure | None]:
    """Signed numbers (L,) as bars, and the part where most of them lies, larger."""
    spot = spot_of(values[None])
    told = f"{caption} All together {number(values.sum(), signed=True)}."
    tale = f"{alt}: {_told(values[None])}"
    if spot is None:
        return _bars(values, tallest(values), title, told, f"{tale}.", units), None
    held = f"{percent(spot.share)} of all that is added and taken away"
    where = f"{units} {spot.left} to {spot.right - 1}"
    told = f"{told} The frame holds {held}, and is shown larger below."
    whole = _bars(values, tallest(values), title, told, f"{tale}; {held} lies in {where}.", units)
    assert whole.chart is not None
    inside = values[spot.left : spot.right]
    tale = f"{alt}, {where}, larger: all together {number(inside.sum(), signed=True)}."
    title, told = "The framed part, larger", f"{where[0].upper()}{where[1:]}."
    larger = _bars(inside, tallest(inside), title, told, tale, units, spot.left)
    return replace(whole, chart=whole.chart.framed(spot.left, spot.right)), larger


def _bars(
    values: Array, limit: float, title: str, caption: str, alt: str, units: str, first: int = 0
) -> Figure:
    chart = bars(values, limit, alt, first)
    folded = f" One bar stands for {chart.steps} {units}." if chart.steps > 1 else ""
    edges = f" The edges stand for ±{number(limit)}."
    return Figure(title, f"{caption}{edges}{folded}", chart=chart)


def _curve(title: str, values: Array, alt: str, first: int = 0) -> Figure:
    """Values (L,) as a curve; its range stands below it."""
    chart = curve(values, f"{alt}.", first)
    caption = f"from {number(chart.low)}, at the bottom, to {number(chart.high)}"
    return Figure(title, caption, chart=replace(chart, alt=f"{alt}, {caption}."))


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
