"""Observe: the values at x that the rules need, from one onnxruntime run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.errors import InputError, NonFiniteError
from ..runtime.primitives import Array, Shape
from ..runtime.program import LinearProgram
from ..runtime.session import Runner
from .graph import Graph, TensorInfo, is_floating

Given = Any  # an array, or a mapping from graph input name to array


@dataclass(frozen=True)
class Trace:
    """One point and what was observed there."""

    feeds: Mapping[str, Array]  # every graph input
    values: Mapping[str, Array]  # the observed tensors, each in its own type

    @property
    def decides(self) -> bool:
        """Whether x decides which nodes run; see `PathTrace`."""
        return False

    def answer(self, name: str) -> Array:
        """An output as the model itself gives it."""
        return self.values[name]

    def answered(self, tensors: Sequence[tuple[str, Shape]]) -> Array:
        """The outputs of a program as the model itself gives them, one behind the other."""
        return np.concatenate([np.ravel(self.answer(name)) for name, _ in tensors])

    def free(self, program: LinearProgram) -> dict[str, Array]:
        """The values of the program's inputs."""
        return {name: self.values[name] for name, _ in program.inputs}

    def stacked(self, tensors: Sequence[tuple[str, Shape]]) -> Array:
        """Tensors of a program flattened, one behind the other."""
        return np.concatenate([np.ravel(self.values[name]) for name, _ in tensors])


def observe(session: Runner, feeds: Mapping[str, Array], active: frozenset[str]) -> Trace:
    """Run the model once at a point.

    Raises:
        NonFiniteError: a tensor that depends on x came out as NaN or infinite.
    """
    values = {name: np.asarray(value) for name, value in session.run(feeds).items()}
    for name, value in values.items():
        if name in active:
            require_finite(name, value)
    observed = {**values, **feeds}
    for value in observed.values():
        value.setflags(write=False)  # what is worked out later, such as margins, is worked out of these
    return Trace(feeds, observed)


def require_finite(name: str, value: Array) -> None:
    """Refuse NaN and infinities by name."""
    if all_finite(value):
        return
    bad = ~np.isfinite(value)
    found = "NaN" if bool(np.isnan(value).any()) else "an infinity"
    raise NonFiniteError(
        f"tensor {name!r} holds {found} at x ({int(bad.sum())} of {value.size} values, the first at flat "
        f"index {int(np.flatnonzero(bad)[0])}); a linear map exists only where all values are finite"
    )


def require_within(name: str, value: Array, dtype: np.dtype[Any]) -> None:
    """Refuse a tensor beyond the range of the map's floating type, by name.

    Args:
        name: of the tensor, as the message begins: "tensor 'x'".
        value: in its own type.
        dtype: that the map is composed in.

    Raises:
        NonFiniteError: doubles beyond float32's range.
    """
    if _narrower(value, dtype) and (largest := float(np.abs(value).max())) > np.finfo(dtype).max:
        raise NonFiniteError(f"{name} holds {largest:.3g}, beyond {dtype}; ask with dtype='float64'")


def require_kept(name: str, value: Array, dtype: np.dtype[Any]) -> None:
    """Refuse a constant that the map's floating type cannot hold, by name.

    Where the largest entry is a normal number of the type, the cast is off by the unit roundoff times that
    entry at most, in all entries; where even that one is below, it may be off by as much as there is.

    Args:
        name: of the tensor, as in `require_within`.
        value: in its own type.
        dtype: that the map is composed in.

    Raises:
        NonFiniteError: doubles beyond float32's range, or none in it but zero.
    """
    require_within(name, value, dtype)
    if _narrower(value, dtype) and 0 < (largest := float(np.abs(value).max())) < np.finfo(dtype).tiny:
        raise NonFiniteError(
            f"{name} holds {largest:.3g} at most, which vanishes in {dtype}; ask with dtype='float64' "
            "(--dtype float64)"
        )


def _narrower(value: Array, dtype: np.dtype[Any]) -> bool:
    """Whether casting a tensor to a type may lose range."""
    return is_floating(value.dtype) and value.dtype.itemsize > dtype.itemsize and value.size > 0


def all_finite(value: Array) -> bool:
    """Whether a tensor is free of NaN and infinities."""
    if not is_floating(value.dtype):
        return True
    # One pass without a temporary: a finite Σ v² has finite terms only. Where it overflows, look closer.
    if value.dtype.itemsize >= 4 and value.flags.c_contiguous and math.isfinite(np.vdot(value, value)):
        return True
    return bool(np.isfinite(value).all())


def feeds_of(graph: Graph, x: Given) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Fit the given x to the graph's inputs.

    Args:
        graph: the model.
        x: an array where the model has one input, else a mapping from input name to array.

    Returns:
        A value for every graph input, and notes on what was changed (a cast, an added batch axis).

    Raises:
        InputError: wrong names, shape, rank or dtype.
        NonFiniteError: NaN or infinity in x.
    """
    given = x if isinstance(x, Mapping) else _single(graph, x)
    unknown = sorted(set(given) - {put.name for put in graph.inputs})
    if unknown:
        raise InputError(f"x names {unknown[0]!r}, but the model's inputs are {_listed(graph.inputs)}")
    missing = [put for put in graph.inputs if put.name not in given]
    if missing:
        raise InputError(
            f"x gives no value for input {missing[0]}; the model's inputs are {_listed(graph.inputs)}"
        )
    feeds, notes = {}, []
    for put in graph.inputs:
        feeds[put.name], found = _fitted(put, np.array(given[put.name], order="C"))
        notes += found
    return feeds, tuple(notes)


def zeros_for(graph: Graph) -> dict[str, Array]:
    """Zeros for every graph input, free dimensions set to 1: a point to learn shapes from.

    Raises:
        InputError: an input that is no tensor of numbers.
    """
    point = {}
    for put in graph.inputs:
        if put.shape is None or put.dtype is None or put.dtype.kind not in "fiubV":
            raise InputError(f"input {put} is no tensor of numbers; give an x")
        point[put.name] = np.zeros([d if isinstance(d, int) else 1 for d in put.shape], put.dtype)
    return point


def _single(graph: Graph, x: Any) -> dict[str, Any]:
    if len(graph.inputs) != 1:
        raise InputError(
            f"the model has {len(graph.inputs)} inputs ({_listed(graph.inputs)}); give a mapping from name "
            "to array (an .npz file on the command line)"
        )
    return {graph.inputs[0].name: x}


def _listed(puts: Sequence[TensorInfo]) -> str:
    return ", ".join(str(put) for put in puts) or "none"


def _fitted(put: TensorInfo, value: Array) -> tuple[Array, list[str]]:
    notes: list[str] = []
    if put.dtype is None:
        raise InputError(f"input {put.name!r} is no tensor; ilin takes tensors only")
    if value.dtype != put.dtype:
        value = _cast(put, value, notes)
    if put.shape is not None:
        value = _reshaped(put, value, notes)
    if is_floating(value.dtype):
        require_finite(put.name, value)
    return value, notes


def _cast(put: TensorInfo, value: Array, notes: list[str]) -> Array:
    assert put.dtype is not None
    numeric = is_floating(value.dtype) or value.dtype.kind in "iub"
    if not numeric or (not put.floating and is_floating(value.dtype)) or (put.dtype.kind not in "fiubV"):
        raise InputError(f"input {put.name!r} takes {put.dtype}, but x holds {value.dtype}")
    notes.append(f"input {put.name!r} cast from {value.dtype} to {put.dtype}")
    with np.errstate(over="ignore"):
        cast = value.astype(put.dtype)
    if put.floating and all_finite(value) and not all_finite(cast):
        raise InputError(
            f"input {put.name!r} takes {put.dtype}, and x holds {np.abs(value).max():.3g}, beyond its range"
        )
    return cast


def _reshaped(put: TensorInfo, value: Array, notes: list[str]) -> Array:
    assert put.shape is not None
    if _matches(put.shape, value.shape):
        return value
    first = put.shape[0] if put.shape else None
    if put.shape and not (isinstance(first, int) and first != 1) and _matches(put.shape, (1, *value.shape)):
        notes.append(f"input {put.name!r}: a leading batch axis of 1 was added to shape {list(value.shape)}")
        return value[None]
    expected = "[" + ", ".join("?" if d is None else str(d) for d in put.shape) + "]"
    raise InputError(f"input {put.name!r} takes shape {expected}, but x has shape {list(value.shape)}")


def _matches(declared: tuple[int | str | None, ...], shape: tuple[int, ...]) -> bool:
    return len(declared) == len(shape) and all(
        not isinstance(d, int) or d == size for d, size in zip(declared, shape, strict=True)
    )
