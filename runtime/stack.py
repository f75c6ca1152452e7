"""Programs of several points as one: their tensors stacked along the batch axis, each point an image of it.

Where the model treats the images of a batch one by one, the stacked program is block-diagonal, and one sweep
over it is a sweep for every point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .primitives import (
    Array,
    Broadcast,
    Chain,
    Contract,
    Conv,
    ConvTranspose,
    Gather,
    Primitive,
    Reshape,
    Scale,
    Scatter,
    Shape,
    Sum,
    Transpose,
    chain,
)
from .program import LinearProgram, Step


class NotStackable(Exception):  # noqa: N818 — an outcome, not an error: the points are taken one by one
    """Some step does more than treat a batch image by image."""


Kept = dict[tuple[int, int], tuple[Step, Step]]  # by a fixed step's identity and the number of points


def stacked(programs: Sequence[LinearProgram], kept: Kept | None = None) -> LinearProgram:
    """One program for all points: every tensor (1, *shape) becomes (points, *shape).

    Args:
        programs: one for each point.
        kept: steps that are the same at every point, stacked before; engines know their structure by
            identity.

    Raises:
        NotStackable: tensors without a batch axis of 1, or a step that mixes images or has no such form.
    """
    first, B = programs[0], len(programs)
    if any(program.structure() != first.structure() for program in programs):
        raise NotStackable
    steps = zip(*(program.steps for program in programs), strict=True)
    return LinearProgram(
        tuple((name, _batch(shape, B)) for name, shape in first.inputs),
        tuple((name, _batch(shape, B)) for name, shape in first.outputs),
        tuple(_kept_step(alike, B, {} if kept is None else kept) for alike in steps),
    )


def _batch(shape: Shape, B: int) -> Shape:
    if len(shape) < 2 or shape[0] != 1:
        raise NotStackable
    return (B, *shape[1:])


def _kept_step(steps: Sequence[Step], B: int, kept: Kept) -> Step:
    one = steps[0]
    if not one.fixed or any(step is not one for step in steps):
        return _step(steps, B)
    if (id(one), B) not in kept:
        kept[id(one), B] = (one, _step(steps, B))  # the first keeps its identity from being given again
    return kept[id(one), B][1]


def _step(steps: Sequence[Step], B: int) -> Step:
    one = steps[0]
    parts = zip(*((L for _, L in step.terms) for step in steps), strict=True)
    terms = tuple((name, _primitive(Ls, B)) for (name, _), Ls in zip(one.terms, parts, strict=True))
    offset = one.offset
    if offset is not None and (not one.fixed or (offset.ndim == len(one.shape) and offset.shape[0] != 1)):
        offset = np.concatenate([np.broadcast_to(step.offset, one.shape) for step in steps])  # type: ignore[arg-type]
    return replace(one, shape=_batch(one.shape, B), terms=terms, offset=offset, guards=(), offset_size=None)


def _primitive(Ls: Sequence[Primitive], B: int) -> Primitive:
    """The block-diagonal of one primitive for each point, or of one that all of them share."""
    L = Ls[0]
    match L:
        case Reshape() | Broadcast() | Sum():
            return replace(L, in_shape=_batch(L.in_shape, B), out_shape=_batch(L.out_shape, B))
        case Transpose() if L.axes[0] == 0:
            return replace(L, in_shape=_batch(L.in_shape, B))
        case Scale():
            return Scale(_batch(L.in_shape, B), _factor([other.factor for other in Ls], L.in_shape))  # type: ignore[attr-defined]
        case Gather():
            return Gather(_batch(L.in_shape, B), _indices(Ls, L.out_shape, L.in_size, B))
        case Scatter():
            return Scatter(_batch(L.out_shape, B), _indices(Ls, L.in_shape, L.out_size, B))
        case Conv() | ConvTranspose() if L.batch == 1 and _shared([other.weight for other in Ls]):  # type: ignore[attr-defined]
            return replace(L, batch=B)
        case Contract() if _shared([other.weight for other in Ls]) and _leads(L.labels):  # type: ignore[attr-defined]
            return replace(L, in_shape=_batch(L.in_shape, B))
        case Chain():
            parts = zip(*(other.parts for other in Ls), strict=True)  # type: ignore[attr-defined]
            return chain(*(_primitive(alike, B) for alike in parts))
        case _:
            raise NotStackable


def _shared(arrays: Sequence[Array]) -> bool:
    return all(array is arrays[0] for array in arrays)


def _leads(labels: str) -> bool:
    """Whether the first axis of x is the first of y, and no axis of the weight."""
    operands, y = labels.split("->")
    x, w = operands.split(",")
    return x[:1] == y[:1] != "" and x[0] not in w


def _factor(factors: Sequence[Array], shape: Shape) -> Array:
    """Factors one behind the other, or the one that broadcasts to all images."""
    if _shared(factors) and (factors[0].ndim < len(shape) or factors[0].shape[0] == 1):
        return factors[0]
    return np.concatenate([np.broadcast_to(factor, shape) for factor in factors])


def _indices(Ls: Sequence[Primitive], shape: Shape, size: int, B: int) -> Array:
    """Positions, each point's in its own image; -1 stays."""
    _batch(shape, B)
    images = [
        L.index if not image else np.where(L.index < 0, -1, L.index + image * size)  # type: ignore[attr-defined]
        for image, L in enumerate(Ls)
    ]
    joined = np.concatenate(images)
    return joined if B * size > np.iinfo(np.int32).max else joined.astype(np.int32, copy=False)
