"""Unique: y = the distinct entries of x, or its distinct slices along an axis, sorted or as they first occur.

At x: each output selects the entry, or slice, that occurs first. Slices are sorted by their first entry, then
by the next; guard: each against its neighbours in that order by their first entries. Equal ones tie: what
sets them apart changes the shape of y. The other outputs are indices, which do not change around x.
https://onnx.ai/onnx/operators/onnx__Unique.html
"""

import math

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array
from ..runtime.program import Guard, HalfSpaces, Kind
from ._moves import gathered, positions
from ._pooled import ahead
from ._rule import Local, Site, explains, lowers


@lowers("Unique", kind=Kind.PIECEWISE_LINEAR, observes=(0,), constant_outputs=(1, 2, 3))
def unique(site: Site) -> Local:
    """Select the first of each."""
    axis = site.attribute("axis")
    own = positions(site) if axis is not None else positions(site).ravel()
    slices = np.moveaxis(own, axis or 0, 0)
    slices = slices.reshape(len(slices), math.prod(slices.shape[1:]))  # (n, entries of each)
    values = site.value().ravel()[slices]
    _, picked, rank = np.unique(values, return_index=True, return_inverse=True, axis=0)
    rank = rank.ravel()  # (n,)
    if not site.attribute("sorted", 1):
        picked = np.sort(picked)
    order = np.argsort(rank, kind="stable")

    def margins() -> Array:
        gaps = np.diff(values[order, 0])
        nearest = np.minimum(np.append(np.inf, gaps), np.append(gaps, np.inf))
        margin = np.empty(len(order))
        margin[order] = nearest
        return margin

    def half_spaces() -> HalfSpaces:
        leading = slices[order, 0]
        return ahead(site, leading[1:], leading[:-1], order[1:])

    guards = (Guard(rank, margins, half_spaces),) if slices.size else ()
    return Local(gathered(site, np.take(own, picked, axis or 0)), guards=guards)


@explains("Unique")
def unique_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The flat positions of what occurs first."""
    axis, in_order = site.attribute("axis"), int(site.attribute("sorted", 1))
    if axis is None:
        return (graph.second("Unique", site.tensor(0), sorted=in_order),)
    first = graph.second("Unique", site.tensor(0), axis=axis, sorted=in_order)
    return (graph.node("Gather", graph.constant(positions(site)), first, axis=axis),)
