"""How an expansion is registered (`expands`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..runtime.program import Kind
from ._composite import Composite, Facts, Result

Expand = Callable[[Composite], tuple[Result, ...]]  # one result for each output that the node has
F = TypeVar("F", bound=Expand)


def _no_alternatives(_: Composite) -> tuple[Facts, ...]:
    return (Facts(),)


@dataclass(frozen=True)
class Expansion:
    """A registered expansion, with what it has to know of a node."""

    expand: Expand
    values: tuple[int, ...] = ()  # positions of the inputs whose values it decides by
    shapes: tuple[int, ...] = ()  # positions of the inputs whose shapes it decides by; -1 is the last
    trips: bool = False  # whether it has to know how often the node runs its body
    kind: Kind | None = None  # what the operator is; None: as its nodes are
    typical: Callable[[Composite], tuple[Facts, ...]] = _no_alternatives
    container: bool = False  # whether it takes or gives sequences or optionals


EXPANSIONS: dict[tuple[str, str], Expansion] = {}


def expands(
    *op_types: str,
    domain: str = "",
    values: tuple[int, ...] = (),
    shapes: tuple[int, ...] = (),
    trips: bool = False,
    kind: Kind | None = None,
    typical: Callable[[Composite], tuple[Facts, ...]] = _no_alternatives,
    container: bool = False,
) -> Callable[[F], F]:
    """Register how one or more operators are written out in simpler nodes.

    Args:
        op_types: ONNX operator names.
        domain: their domain; "" is ai.onnx.
        values: positions of inputs whose values decide how: conditions, lengths, positions. The expansion
            is made for the values at x, and holds where they are the same.
        shapes: positions of inputs whose shapes decide how; -1 is the last input.
        trips: how often the node runs its body decides how.
        kind: what the operator is, where that does not depend on its nodes.
        typical: facts to expand it with where nothing has run yet and only the operators in it count; one
            for each alternative, such as the branches of an If.
        container: it takes or gives sequences or optionals, and can be expanded only where they are known.
    """

    def register(expand: F) -> F:
        for op_type in op_types:
            EXPANSIONS[(domain, op_type)] = Expansion(expand, values, shapes, trips, kind, typical, container)
        return expand

    return register
