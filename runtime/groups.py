"""Groups of input entries, as a user names them: superpixels, channels, words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array, Shape
from .errors import InputError, OptionError

OTHERS = "others"  # the group of what is in no other
CHANNELS = "channels"


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which group each input entry belongs to; every entry belongs to exactly one."""

    names: tuple[str, ...]
    codes: Array  # (N,) position in `names`

    def sums(self, values: Array) -> dict[str, float]:
        """Group to the correctly rounded sum of its entries; values (N,)."""
        order = np.argsort(self.codes, kind="stable")
        ends = np.cumsum(np.bincount(self.codes, minlength=len(self.names)))[:-1]
        parts = np.split(values[order], ends)
        return {name: math.fsum(part) for name, part in zip(self.names, parts, strict=True)}


def has_channels(shape: Shape) -> bool:
    """Whether a tensor has a channel axis: axis 1, behind a batch axis of 1."""
    return len(shape) > 1 and shape[0] == 1


def grouping(groups: Any, shapes: Mapping[str, Shape]) -> Grouping:
    """Read groups.

    Args:
        groups: "channels"; an array of labels (integers or names) in the input's shape; a mapping from the
            group's name to its entries: a mask in the input's shape, a list of flat positions, or what may
            stand in x[...]: a slice or a tuple; or a mapping from input name to one of these, as is needed
            where there are several inputs. A missing leading axis of 1 is added to labels and masks.
        shapes: input name to shape.

    Raises:
        InputError: labels, masks or positions that do not fit the input, or groups that overlap.
        OptionError: groups written in a way that is not understood.
    """
    by_input = _by_input(groups, shapes)
    names: list[str] = []
    parts: list[Array] = []
    for input, shape in shapes.items():
        codes = np.full(math.prod(shape), -1)
        if input in by_input:
            own, codes = _grouped(by_input[input], input, shape)
            codes = np.where(codes < 0, -1, codes + len(names))
            names += [f"{input}: {name}" for name in own] if len(shapes) > 1 else own
        parts.append(codes)
    joined = np.concatenate(parts) if parts else np.zeros(0, int)
    if OTHERS in names:
        raise OptionError(f"no group may be called {OTHERS!r}: that is what entries of no group go to")
    if (joined < 0).any():
        joined[joined < 0] = len(names)
        names.append(OTHERS)
    return Grouping(tuple(names), joined)


def shaped(value: Any, shape: Shape, what: str) -> Array:
    """An array in a tensor's shape; a missing leading axis of 1 is added.

    Raises:
        InputError: another shape; the message begins with `what`.
    """
    array = np.asarray(value)
    if array.shape not in (shape, shape[1:]) or array.size != math.prod(shape):
        raise InputError(f"{what} has shape {list(array.shape)}, but the input has shape {list(shape)}")
    return array.reshape(shape)


def _by_input(groups: Any, shapes: Mapping[str, Shape]) -> Mapping[str, Any]:
    if isinstance(groups, Mapping) and groups and set(groups) <= set(shapes):
        return groups
    if len(shapes) == 1 or isinstance(groups, str):
        return dict.fromkeys(shapes, groups)
    raise OptionError(
        f"the map has the inputs {', '.join(shapes)}: give groups as a mapping from input name to its groups"
    )


def _grouped(groups: Any, input: str, shape: Shape) -> tuple[list[str], Array]:
    """Names of an input's groups, and each entry's position among them, (size,); -1 for none."""
    if isinstance(groups, str):
        return _channels(groups, input, shape)
    if isinstance(groups, Mapping):
        return _selected(groups, input, shape)
    labels = shaped(groups, shape, f"the label array of input {input!r}")
    if labels.dtype.kind not in "biuUS":
        raise InputError(f"labels of input {input!r} must be integers or names, not {labels.dtype}")
    found, codes = np.unique(labels.ravel(), return_inverse=True)
    return [str(label) for label in found.tolist()], codes.reshape(-1)


def _channels(word: str, input: str, shape: Shape) -> tuple[list[str], Array]:
    if word != CHANNELS:
        raise OptionError(f"groups {word!r} are not known; write {CHANNELS!r}, labels or a mapping")
    if not has_channels(shape):
        raise InputError(
            f"input {input!r} of shape {list(shape)} has no channels, which are axis 1 behind a batch axis "
            "of 1; give labels"
        )
    positions = np.arange(shape[1]).reshape(1, -1, *(1,) * (len(shape) - 2))
    return [f"channel {i}" for i in range(shape[1])], np.broadcast_to(positions, shape).ravel()


def _selected(groups: Mapping[Any, Any], input: str, shape: Shape) -> tuple[list[str], Array]:
    codes = np.full(math.prod(shape), -1)
    names = [str(name) for name in groups]
    for code, selection in enumerate(groups.values()):
        mask = _mask(selection, shape, f"group {names[code]!r}, of input {input!r},")
        shared = codes[mask]
        if (shared >= 0).any():
            other = names[int(shared.max())]
            raise InputError(
                f"groups {other!r} and {names[code]!r} overlap in {np.count_nonzero(shared >= 0)} entries of "
                f"input {input!r}, which would count twice; take them out of one of the two"
            )
        codes[mask] = code
    return names, codes


def _mask(selection: Any, shape: Shape, what: str) -> Array:
    """(size,) bool."""
    mask = np.zeros(shape, bool)
    try:
        if isinstance(selection, slice | tuple) or selection is Ellipsis:
            mask[selection] = True
            return mask.ravel()
        array = np.asarray(selection)
        if array.dtype == bool:
            return shaped(array, shape, what).ravel()
        if array.size and array.dtype.kind not in "iu":
            raise OptionError(f"{what} is no mask, list of flat positions, slice or tuple: {array.dtype}")
        mask.reshape(-1)[array.astype(int).ravel()] = True
    except IndexError as error:
        raise InputError(f"{what} does not fit its shape {list(shape)}: {error}") from error
    return mask.ravel()
