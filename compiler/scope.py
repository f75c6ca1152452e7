"""Scope: what of a graph depends on x, decided before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from onnx import TensorProto

from ..ops import Reading
from ..runtime.errors import UnknownTensorError, UnsupportedError
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ..runtime.session import evaluate_constants
from .graph import Graph, Node, TensorInfo, ancestors, descendants
from .judge import judge
from .verdict import Verdict

_NAMED = 3  # tensors that an error suggests at most
_FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Scope:
    """The part of a graph between chosen inputs and outputs that has to be lowered."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    uses: tuple[Verdict, ...]  # the nodes that depend on x and that an output depends on, in order
    discrete: tuple[Verdict, ...]  # locally constant nodes that read what depends on x, for their guards
    active: frozenset[str]  # tensors that depend on x
    constants: Mapping[str, Array]  # tensors that depend on no input at all, where a rule needs them
    observed: tuple[str, ...]  # tensors that rules need at x, the outputs included
    reading: Reading
    notes: tuple[str, ...] = ()  # on what was chosen

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that depend on x and that an output depends on, in order."""
        return tuple(use.node for use in self.uses)


def scope_of(
    graph: Graph,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    reading: Reading = Reading(),  # noqa: B008 — frozen
) -> Scope:
    """Choose what is differentiated, and refuse what cannot be lowered.

    Args:
        graph: the model.
        inputs: tensors to differentiate by; None for every floating-point graph input.
        outputs: tensors to explain; None for every floating-point graph output, and in place of maps that
            ZipMap makes, the tensors that they are made of.
        reading: how operators are read that are not piecewise linear.

    Raises:
        UnknownTensorError: a name that the graph does not have.
        UnsupportedError: the first node on the way that no rule can lower.
    """
    wanted_inputs = _chosen(graph, inputs, graph.inputs, "inputs")
    wanted_outputs = _chosen(graph, outputs, graph.outputs, "outputs")
    needed = ancestors(graph, wanted_outputs, stop=set(wanted_inputs))
    verdicts = judge(graph, wanted_inputs, reading)
    on_the_way = [v for v in verdicts if v.node.position in needed]
    for verdict in on_the_way:
        if verdict.kind is None:
            raise UnsupportedError(f"{verdict.node}: {verdict.reason}")
    moved = [v for v in on_the_way if v.depends_on_x]
    discrete = tuple(v for v in moved if v.kind is Kind.LOCALLY_CONSTANT and v.entry and not v.entry.by_shape)
    ends = {*wanted_outputs, *(name for verdict in discrete for name in verdict.node.inputs)}
    uses = _leading_to(ends, [v for v in moved if v.kind is not Kind.LOCALLY_CONSTANT])
    active = frozenset(wanted_inputs).union(*(use.varying for use in uses)) - {""}
    constant = constant_tensors(graph)
    held = [use.node.inputs[position] for use in uses for position in use.held]
    read = [name for use in uses if use.entry for name in use.node.inputs if name and name not in active]
    fixed = [name for name in wanted_outputs if name not in active]
    constants = constant_values(graph, {*read, *fixed} & constant)
    observed = [name for name in (*read, *held, *wanted_outputs) if name not in constants]
    observed += [use.node.inputs[position] for use in uses for position in use.observed]
    watched = {name for verdict in discrete for name in verdict.watched if name}
    observed += sorted(watched - constant)
    constants |= constant_values(graph, watched & constant)
    names = tuple(dict.fromkeys(observed))
    notes = tuple(
        f"output {put.name!r} is a sequence of maps; explained is {put.columns!r}, which it is made of"
        for put in graph.outputs
        if outputs is None and put.columns
    )
    computed = descendants(graph, wanted_inputs)
    if not computed.intersection(wanted_outputs):
        apart = f"{', '.join(map(repr, wanted_outputs))} from {', '.join(map(repr, wanted_inputs))}"
        others = [repr(put.name) for put in graph.outputs if put.name in computed and not put.explained]
        instead = f"; what leads to {', '.join(others)} can be named in outputs" if others else ""
        notes += (f"W = 0, as the model does not compute {apart}{instead}",)
    return Scope(wanted_inputs, wanted_outputs, uses, discrete, active, constants, names, reading, notes)


def _leading_to(ends: set[str], uses: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The uses that some end depends on, other than through what is held."""
    wanted, kept = set(ends), []
    for use in reversed(uses):
        if wanted.intersection(use.node.outputs):
            kept.append(use)
            wanted.update(name for i, name in enumerate(use.node.inputs) if name and i not in use.held)
    return tuple(reversed(kept))


def _chosen(
    graph: Graph, asked: Sequence[str] | None, declared: Sequence[TensorInfo], role: str
) -> tuple[str, ...]:
    if asked is None:
        names = tuple(dict.fromkeys(put.explained for put in declared if put.explained))
        if not names:
            kinds = ", ".join(str(put) for put in declared) or "none"
            raise UnsupportedError(
                f"the model has no floating-point {role} to linearise (it declares {kinds}"
                f"{_computed(graph, role)}); name a tensor "
                f"{'behind them, such as an embedding,' if role == 'inputs' else 'before them'} in {role}"
            )
        return names
    if isinstance(asked, str):
        asked = [asked]
    known = graph.tensors()
    for name in asked:
        if not isinstance(name, str):
            raise UnknownTensorError(f"{role} takes tensor names, not {name!r}")
        if name not in known:
            raise UnknownTensorError(f"unknown name in {role}: {name!r}; {_suggest(name, known, declared)}")
        if role == "inputs" and name in graph.initializers:
            raise UnknownTensorError(
                f"{name!r} in inputs is a parameter of the model, not something it computes from x"
            )
        for put in declared:
            if put.name == name and not put.floating:
                instead = f"; name {put.columns!r}, which its maps are made of" if put.columns else ""
                raise UnsupportedError(
                    f"{name!r} in {role} is {put.dtype or 'no tensor'}, not floating point{instead}"
                )
    if not asked:
        raise UnknownTensorError(f"no name given in {role}")
    return tuple(dict.fromkeys(asked))


def _computed(graph: Graph, role: str) -> str:
    """Floating-point tensors on the way to the outputs: the first, or where outputs lack, the last."""
    types, left_out = graph.types[0], constant_tensors(graph) | {put.name for put in graph.outputs}
    found = [
        name
        for node in graph.nodes
        for name in node.outputs
        if name in types and name not in left_out and types[name].element in _FLOATING
    ]
    end, some = ("first", found[:_NAMED]) if role == "inputs" else ("last", found[-_NAMED:])
    return f"; the {end} that it computes: {', '.join(map(repr, some))}" if some else ""


def _suggest(name: str, known: set[str], declared: Sequence[TensorInfo]) -> str:
    close = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(map(repr, close)) + "?"
    return "the model declares " + ", ".join(put.name for put in declared)


def constant_tensors(graph: Graph) -> set[str]:
    """Tensors that depend on no input at all."""
    constant = set(graph.initializers)
    for node in graph.nodes:
        if not node.random and all(name in constant for name in (*node.inputs, *node.captured) if name):
            constant.update(name for name in node.outputs if name)
    return constant


def constant_values(graph: Graph, needed: set[str]) -> dict[str, Array]:
    """Values of the needed constants; subgraphs without input are run once, here."""
    values = {name: graph.initializers[name] for name in needed if name in graph.initializers}
    computed = sorted(needed - set(values))
    literal = {
        node.outputs[0]: node for node in graph.nodes if node.op_type == "Constant" and not node.domain
    }
    for name in computed:
        if name in literal and "value" in literal[name].attributes:
            values[name] = literal[name].attributes["value"]
    computed = [name for name in computed if name not in values]
    if computed:
        positions = sorted(ancestors(graph, computed))
        values.update(evaluate_constants(graph.proto, positions, computed, graph.surroundings))
    for name, value in values.items():
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(f"constant {name!r} is no dense tensor; store it densely")
    return values
