"""A question without a point: what is planned, or written as a graph, for any x."""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.errors import InputError, ModelError, NonFiniteError, UnsupportedError
from .answer import Asked
from .graph import Graph
from .rows import Rows
from .trace import Given, zeros_for

Ask = Callable[[Given, Rows], Asked]


def anywhere(ask: Ask, graph: Graph, x: Given, rows: Rows = "all") -> Asked:
    """The question at x; where that is None, at zeros, for what does not depend on the point.

    Args:
        ask: observes and lowers at a point.
        graph: the model.
        x: as `CompiledModel.at` takes it, or None.
        rows: the same.

    Raises:
        InputError: zeros do not go through the model.
    """
    if x is not None:
        return ask(x, rows)
    try:
        return ask(zeros_for(graph), rows)
    except (ModelError, NonFiniteError) as error:
        raise InputError(
            f"zeros, which stand in for an x, do not go through this model; give an x ({error})"
        ) from error


def on_the_only_way(ask: Ask, graph: Graph, x: Given) -> Asked:
    """The same, for a graph that is written for any point.

    Raises:
        UnsupportedError: x decides which way it takes through the model.
    """
    asked = anywhere(ask, graph, x)
    if asked.trace.decides:
        raise UnsupportedError(
            f"which nodes of {graph.name!r} run depends on x, and this is one graph for any x"
        )
    return asked
