"""A question without a point: what is planned, or written as a graph, for any x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.errors import InputError, ModelError, NonFiniteError, UnsupportedError
from .answer import Asked
from .rows import Rows
from .trace import Given, zeros_for

if TYPE_CHECKING:
    from .pipeline import CompiledModel


def anywhere(compiled: CompiledModel, x: Given, rows: Rows = "all") -> Asked:
    """The question at x; where that is None, at zeros, for what does not depend on the point.

    Raises:
        InputError: zeros do not go through the model.
    """
    if x is not None:
        return compiled.asked(x, rows)
    try:
        return compiled.asked(zeros_for(compiled.graph), rows)
    except (ModelError, NonFiniteError) as error:
        raise InputError(
            f"zeros, which stand in for an x, do not go through this model; give an x ({error})"
        ) from error


def on_the_only_way(compiled: CompiledModel, x: Given) -> Asked:
    """The same, for a graph that is written for any point.

    Raises:
        UnsupportedError: x decides which way it takes through the model.
    """
    asked = anywhere(compiled, x)
    if asked.trace.path is not None and asked.trace.path.depends_on_x:
        raise UnsupportedError(
            f"which nodes of {compiled.graph.name!r} run depends on x, and this is one graph for any x"
        )
    return asked
