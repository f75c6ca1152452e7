"""Concat: the operands one behind the other along an axis.

Each active operand moves to its place; the others are the offset.
https://onnx.ai/onnx/operators/onnx__Concat.html
"""

import numpy as np

from ..runtime.primitives import Array
from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("Concat")
def concat(site: Site) -> Local:
    """Place every operand."""
    axis = site.attribute("axis", 1)
    shapes = [site.shape(position) for position in range(len(site.inputs))]
    gaps = [np.full(shape, -1) for shape in shapes]
    terms, offset = {}, None
    for position in range(len(shapes)):
        if site.active(position):
            placed = [*gaps[:position], positions(site, position), *gaps[position + 1 :]]
            terms[position] = gathered(site, np.concatenate(placed, axis), position)
    if len(terms) < len(shapes):
        held: list[Array] = [
            np.zeros(shape) if site.active(position) else site.value(position)
            for position, shape in enumerate(shapes)
        ]
        offset = np.concatenate(held, axis)
    return Local(terms, offset)
