"""How an input's axes are read: as an image, a sequence or plain entries."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..runtime.arrays import Array, Shape
from ..runtime.errors import OptionError
from ..runtime.text import one_line

Form = Literal["image", "sequence", "entries"]
AUTO, ENTRIES = "auto", "entries"
_SMALLEST_SIDE = 4  # of what is looked at as an image
_FEW = 4  # channels of a picture at most: grey, colours, colours with opacity
_NARROW = 16  # channels of a sequence at most where nobody says
_WORDS = {"C": "channel", "H": "row", "W": "column", "L": "step"}


@dataclass(frozen=True)
class Layout:
    """The axes of one input: a letter for each axis of `shape`.

    N is the batch (of one instance), C channels, H rows and W columns of an image, L steps of a sequence.
    """

    shape: Shape  # as it is read; of as many entries as the input
    letters: str = ""  # "" where the axes have no meaning that is known

    @property
    def form(self) -> Form:
        """What the axes make of the input."""
        return "image" if "H" in self.letters else "sequence" if "L" in self.letters else "entries"

    @property
    def channels(self) -> int:
        """How many images or sequences lie above one another."""
        return self.shape[self.letters.index("C")] if "C" in self.letters else 1

    def ordered(self, values: Array) -> Array:
        """The values as (C, H, W), (C, L), or flat.

        Args:
            values: in any shape, in the input's order.
        """
        if self.form == "entries":
            return np.ravel(values)
        wanted = [self.letters.index(c) for c in "CHWL" if c in self.letters]
        rest = [axis for axis in range(len(self.shape)) if axis not in wanted]
        array = np.reshape(values, self.shape).transpose(*rest, *wanted)
        array = array.reshape(array.shape[len(rest) :])  # the batch is 1
        return array if "C" in self.letters else array[None]

    def place(self, position: int) -> str:
        """Where a flat position lies, in words: "row 5, column 4"."""
        index = [int(i) for i in np.unravel_index(position, self.shape)]
        if self.form == "entries":
            return (
                f"[{', '.join(map(str, index))}]"
                if _long_axes(self.shape) > 1
                else f"entry {max(index, default=0)}"
            )
        told = {letter: i for letter, i in zip(self.letters, index, strict=True) if letter != "N"}
        if self.channels == 1:
            told.pop("C", None)
        return ", ".join(f"{_WORDS[letter]} {told[letter]}" for letter in "HWLC" if letter in told)


def layouts_of(shapes: Mapping[str, Shape], asked: str = AUTO) -> dict[str, Layout]:
    """A layout for each input.

    Args:
        shapes: of the inputs, by name.
        asked: "auto"; "entries"; a letter for each axis, such as "NHWC", for the inputs of that rank; or
            letters and the shape to read a flat input in, such as "HW=28x28", for the inputs of that size.

    Raises:
        OptionError: a text that is not understood, or that fits none of the inputs.
    """
    if asked == AUTO:
        return {name: recognised(shape) for name, shape in shapes.items()}
    if asked == ENTRIES:
        return {name: Layout(shape) for name, shape in shapes.items()}
    letters, reshaped = parsed(asked)
    found = {}
    for name, shape in shapes.items():
        read = shape if reshaped is None else reshaped
        fits = len(letters) == len(read) and math.prod(read) == math.prod(shape)
        if fits and ("N" not in letters or read[letters.index("N")] == 1):
            found[name] = Layout(read, letters)
    if not found:
        given = ", ".join(f"{one_line(name)} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
        raise OptionError(f"layout {asked!r} fits no input: {given}")
    return {name: found.get(name) or recognised(shape) for name, shape in shapes.items()}


def parsed(text: str) -> tuple[str, Shape | None]:
    """The letters of a layout, and the shape to read the input in.

    Raises:
        OptionError: a text that is not understood.
    """
    match = re.fullmatch(r"([NCHWL]+)(?:=(\d+(?:[x×]\d+)*))?", text.upper().replace("X", "x"))
    letters = match[1] if match else ""
    named = sorted(letters.replace("N", "").replace("C", ""))
    if match is None or len(set(letters)) != len(letters) or named not in (["H", "W"], ["L"]):
        raise OptionError(f"layout {text!r} is not understood; try nchw, nhwc, ncl, hw=28x28 or entries")
    shape = tuple(int(d) for d in re.split("[x×]", match[2])) if match[2] else None
    return letters, shape


def recognised(shape: Shape) -> Layout:
    """The likeliest layout of a shape. Channels are the axis with the fewest entries, the first if equal."""
    if _long_axes(shape) <= 1:
        return Layout(shape)
    letters = ""
    if len(shape) == 4 and shape[0] == 1:
        first = shape[1] <= _FEW or (shape[3] > _FEW and shape[1] <= shape[3])
        letters = "NCHW" if first else "NHWC"
    elif len(shape) == 3 and shape[0] in (3, _FEW) and min(shape[1:]) > _NARROW:
        letters = "CHW"
    elif len(shape) == 3 and shape[0] == 1:
        few, many = sorted(shape[1:])
        sequence = few <= _NARROW and many >= 2 * few
        letters = "NHW" if not sequence else "NCL" if shape[1] == few else "NLC"
    elif len(shape) == 2:
        letters = "HW"
    layout = Layout(shape, letters)
    sides = [size for letter, size in zip(letters, shape, strict=False) if letter in "HW"]
    return Layout(shape) if layout.form == "image" and min(sides) < _SMALLEST_SIDE else layout


def _long_axes(shape: Sequence[int]) -> int:
    return sum(size > 1 for size in shape)
