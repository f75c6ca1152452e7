"""Drawings of sequences: a curve, and bars above and below zero, as paths of an SVG that fills its width.

A drawing is WIDTH units wide and 2 · HEIGHT high, zero in the middle where numbers are signed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..runtime.arrays import Array

WIDTH, HEIGHT = 800.0, 100.0
MOST = 400  # bars, or points of a curve's outline


@dataclass(frozen=True)
class Chart:
    """Paths of one drawing, and what its edges stand for."""

    alt: str
    low: float
    high: float
    curve: str = ""  # of plain values
    up: str = ""  # bars above zero
    down: str = ""  # and below
    steps: int = 1  # that one bar stands for
    first: int = 0  # step
    length: int = 0  # steps in all
    frame: tuple[float, float] | None = None  # a part of the width: where it starts, and how wide it is

    @property
    def last(self) -> int:
        """The last step."""
        return self.first + self.length - 1

    def framed(self, start: int, end: int) -> Chart:
        """The same with a frame around steps from `start` up to `end`."""
        unit = WIDTH / self.length
        return replace(self, frame=(start * unit, (end - start) * unit))


def curve(values: Array, alt: str, first: int = 0) -> Chart:
    """Values (L,) from the least, at the bottom, to the largest; of many, the band that they fill."""
    values = values.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    scale = 2 * HEIGHT / (high - low) if high > low else 0.0
    steps = -(-len(values) // MOST)
    starts = np.arange(0, len(values), steps)
    top, bottom = np.maximum.reduceat(values, starts), np.minimum.reduceat(values, starts)
    x = (starts + steps / 2) * WIDTH / len(values)
    outline = [(x, top)] if steps == 1 else [(x, top), (x[::-1], bottom[::-1])]
    points = [
        f"{a:.1f} {2 * HEIGHT - (b - low) * scale:.1f}"
        for xs, ys in outline
        for a, b in zip(xs, ys, strict=True)
    ]
    return Chart(alt, low, high, "M" + "L".join(points), steps=steps, first=first, length=len(values))


def bars(values: Array, limit: float, alt: str, first: int = 0) -> Chart:
    """Signed numbers (L,) as bars; of many, what neighbours add up to, ups and downs apart."""
    values = values.astype(np.float64)
    steps = _steps(values)
    ups, downs = _folded(np.maximum(values, 0), steps), _folded(np.minimum(values, 0), steps)
    wide = WIDTH * steps / len(values)
    return Chart(
        alt,
        -limit,
        limit,
        up=_bars(ups * HEIGHT / limit, wide),
        down=_bars(downs * HEIGHT / limit, wide),
        steps=steps,
        first=first,
        length=len(values),
    )


def tallest(*sequences: Array) -> float:
    """What the longest bar of several drawings stands for; 1 where all are zero."""
    sizes = [
        np.abs(_folded(half(values.astype(np.float64), 0), _steps(values))).max(initial=0.0)
        for values in sequences
        for half in (np.maximum, np.minimum)
    ]
    return float(max(sizes, default=0.0)) or 1.0


def _steps(values: Array) -> int:
    return -(-len(values) // MOST)


def _folded(values: Array, steps: int) -> Array:
    return np.asarray(np.add.reduceat(values, np.arange(0, len(values), steps)))


def _bars(heights: Array, wide: float) -> str:
    gap = 0.15 * wide if len(heights) <= MOST // 4 else 0.0
    return "".join(
        f"M{place * wide + gap:.2f} {HEIGHT:g}v{-height:.2f}h{wide - 2 * gap:.2f}V{HEIGHT:g}z"
        for place, height in enumerate(heights)
        if abs(height) >= 0.005
    )
