"""Sequences of tensors: which tensors they hold is known once loops are unrolled, so they need no nodes.

https://onnx.ai/onnx/operators/onnx__SequenceConstruct.html and its neighbours.
"""

from __future__ import annotations

import numpy as np

from ..runtime.program import Kind
from ._composite import Composite
from ._registry import expands


@expands("SequenceEmpty", kind=Kind.AFFINE, container=True)
def sequence_empty(_: Composite) -> tuple[list[str]]:
    """No tensor."""
    return ([],)


@expands("SequenceConstruct", kind=Kind.AFFINE, container=True)
def sequence_construct(site: Composite) -> tuple[list[str]]:
    """The inputs."""
    return (list(site.inputs),)


@expands("SequenceInsert", values=(2,), kind=Kind.AFFINE, container=True)
def sequence_insert(site: Composite) -> tuple[list[str]]:
    """One more tensor; the last, where no position is given."""
    tensors = site.elements(0)
    at = site.integer(2, len(tensors))
    at += len(tensors) if at < 0 else 0
    return ([*tensors[:at], site.inputs[1], *tensors[at:]],)


@expands("SequenceErase", values=(1,), kind=Kind.AFFINE, container=True)
def sequence_erase(site: Composite) -> tuple[list[str]]:
    """One tensor less; the last, where no position is given."""
    tensors = list(site.elements(0))
    del tensors[site.integer(1, -1)]
    return (tensors,)


@expands("SequenceAt", values=(1,), kind=Kind.AFFINE, container=True)
def sequence_at(site: Composite) -> tuple[str]:
    """One of its tensors."""
    return (site.elements(0)[site.integer(1, 0)],)


@expands("SequenceLength", kind=Kind.LOCALLY_CONSTANT, container=True)
def sequence_length(site: Composite) -> tuple[str]:
    """How many tensors there are."""
    return (site.constant(np.array(len(site.elements(0)), np.int64)),)


@expands("ConcatFromSequence", kind=Kind.AFFINE, container=True)
def concat_from_sequence(site: Composite) -> tuple[str]:
    """Its tensors side by side, or stacked along a new axis."""
    tensors, axis = site.elements(0), site.attribute("axis")
    if site.attribute("new_axis", 0):
        return (site.stack(tensors, axis),)
    return (site.node("Concat", *tensors, axis=axis),)


@expands("SplitToSequence", shapes=(0,), values=(1,), kind=Kind.AFFINE, container=True)
def split_to_sequence(site: Composite) -> tuple[list[str]]:
    """Parts of a tensor along an axis: of given sizes, of one size, or of one entry each."""
    axis, split = site.attribute("axis", 0), site.value(1)
    length = site.shape(0)[axis]
    if split is not None and split.ndim:
        return (site.split(site.inputs[0], [int(size) for size in split], axis),)
    size = 1 if split is None else int(split)
    sizes = [min(size, length - start) for start in range(0, length, size)]
    parts = site.split(site.inputs[0], sizes, axis)
    if split is None and not site.attribute("keepdims", 1):
        parts = [site.squeeze(part, axis) for part in parts]
    return (parts,)


@expands("SequenceMap", container=True)
def sequence_map(site: Composite) -> tuple[list[str], ...]:
    """Its body, once for each position of its sequences."""
    body, count = site.attribute("body"), len(site.elements(0))
    site.require_room(count * len(body.node), f"its {count:,} positions")
    columns = [
        site.elements(i) if name in site.sequences else [name] * count for i, name in enumerate(site.inputs)
    ]
    rows = [site.inline_graph(body, row, f"{i}/") for i, row in enumerate(zip(*columns, strict=True))]
    return tuple([row[i] for row in rows] for i in range(len(body.output)))
