"""Concat: the operands one behind the other along an axis.

Each active operand moves to its place; the others are the offset.
https://onnx.ai/onnx/operators/onnx__Concat.html
"""

import math

import numpy as np

from ..runtime.primitives import Array, Primitive, Scatter
from ._rule import Local, Site, lowers


@lowers("Concat")
def concat(site: Site) -> Local:
    """Place every operand."""
    axis = site.attribute("axis", 1)
    shapes = [site.shape(position) for position in range(len(site.inputs))]
    ends = np.cumsum([shape[axis] for shape in shapes])
    joined = list(shapes[0])
    joined[axis] = int(ends[-1])
    places = np.split(np.arange(math.prod(joined)).reshape(joined), ends[:-1], axis)
    terms: dict[int, Primitive] = {}
    offset: Array | None = None
    for position, place in enumerate(places):
        if site.active(position):
            terms[position] = Scatter(tuple(joined), place)
        else:
            offset = np.zeros(joined, site.value(position).dtype) if offset is None else offset
            offset.flat[place.ravel()] = site.value(position).ravel()
    return Local(terms, offset)
