"""What the outputs and the entries of the inputs are called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.arrays import Shape
from ..runtime.errors import InputError, OptionError
from ..runtime.text import one_line, shortened
from .layouts import Layout


def read_names(path: Path) -> tuple[str, ...]:
    """Names from a text file in UTF-8, one a line; empty lines at the end do not count.

    Raises:
        InputError: no such file, or not a text in UTF-8.
    """
    try:
        return tuple(path.read_text("utf-8-sig").rstrip("\n").split("\n"))
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8, one name a line: {error.reason}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


@dataclass(frozen=True)
class Names:
    """Names for flat, stacked outputs and inputs: given ones, else where the entry lies."""

    outputs: Mapping[str, Shape]
    layouts: Mapping[str, Layout]
    classes: Sequence[str] | None = None  # one for each output entry, or for each place of the last axis
    features: Sequence[str] | None = None  # likewise for input entries

    @classmethod
    def of(
        cls,
        outputs: Mapping[str, Shape],
        inputs: Mapping[str, Shape],
        layouts: Mapping[str, Layout],
        classes: Sequence[str] | None = None,
        features: Sequence[str] | None = None,
    ) -> Names:
        """Names for the entries of one map.

        Args:
            outputs: shapes by name.
            inputs: likewise.
            layouts: of the inputs.
            classes: names of outputs, or None.
            features: names of input entries, or None.

        Raises:
            OptionError: names that are no texts, or as many as there are neither entries nor places of a
                last axis.
        """
        _require_count("class", "output", classes, outputs)
        _require_count("feature", "input", features, inputs)
        return cls(outputs, layouts, classes, features)

    @property
    def alike(self) -> bool:
        """Whether the inputs' values are likely to be in one unit: not where plain entries have names."""
        return self.features is None or all(each.form != "entries" for each in self.layouts.values())

    def output(self, row: int) -> str:
        """The output behind a flat index."""
        name, position = _tensor_of(row, self.outputs)
        shape = self.outputs[name]
        given = _given(self.classes, row, position, shape, _entries(self.outputs))
        repeated = self.classes is not None and len(self.classes) != _entries(self.outputs)
        if given is not None and not repeated:
            return given
        index = [int(i) for i in np.unravel_index(position, shape)]
        flat = sum(size > 1 for size in shape) <= 1
        text = str(max(index, default=0)) if flat else f"[{', '.join(map(str, index))}]"
        if given is not None:
            return f"{given} {text}"
        return f"{'output' if len(self.outputs) == 1 else one_line(name)} {text}"

    def entry(self, column: int) -> str:
        """The input entry behind a flat column."""
        shapes = {name: layout.shape for name, layout in self.layouts.items()}
        name, position = _tensor_of(column, shapes)
        place, entries = self.layouts[name].place(position), _entries(shapes)
        given = _given(self.features, column, position, shapes[name], entries)
        if given is not None:
            return (
                given if self.features is not None and len(self.features) == entries else f"{given}, {place}"
            )
        return place if len(shapes) == 1 else f"{one_line(name)}: {place}"


def _given(
    names: Sequence[str] | None, stacked: int, position: int, shape: Shape, entries: int
) -> str | None:
    """The given name of an entry, where there is one for each entry or for each place of the last axis."""
    if names is None:
        return None
    if len(names) == entries:
        return one_line(names[stacked])
    repeated = bool(shape) and len(names) == shape[-1]
    return one_line(names[position % shape[-1]]) if repeated else None


def _entries(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _require_count(what: str, side: str, names: Sequence[str] | None, shapes: Mapping[str, Shape]) -> None:
    if names is None:
        return
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise OptionError(f"{what}_names must be a list of texts, not {shortened(repr(names), 60)}")
    entries = _entries(shapes)
    last = {shape[-1] for shape in shapes.values() if shape}
    if len(names) not in {entries} | last:
        wanted = " or ".join(f"{count:,}" for count in sorted({entries} | last, reverse=True))
        raise OptionError(f"{len(names):,} {what} names are given, but the {side} takes {wanted}")


def _tensor_of(position: int, shapes: Mapping[str, Shape]) -> tuple[str, int]:
    """The tensor that a stacked, flat position lies in, and the flat position there."""
    for name, shape in shapes.items():
        size = math.prod(shape)
        if position < size:
            return name, position
        position -= size
    raise IndexError(position)
