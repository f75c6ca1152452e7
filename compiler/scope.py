"""Scope: what of a graph depends on x, decided before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from ..ops import REGISTRY, Entry
from ..runtime.errors import UnknownTensorError, UnsupportedError
from ..runtime.primitives import Array
from ..runtime.program import Kind
from ..runtime.session import evaluate_constants
from .composite import composite_of, judge_composite
from .graph import Graph, Node, TensorInfo, ancestors


@dataclass(frozen=True)
class Verdict:
    """What ilin can do with one node."""

    node: Node
    kind: Kind | None  # None: unsupported, for the given reason
    depends_on_x: bool
    reason: str = ""
    moved: tuple[str, ...] = ()  # outputs of a composite node that vary with x
    without_rule: Node | None = None  # what is in the way: this node, or one that it is written out in

    @property
    def varying(self) -> tuple[str, ...]:
        """Outputs that vary with x."""
        return self.moved or tuple(filter(None, varying_outputs(self.node)))


@dataclass(frozen=True)
class Scope:
    """The part of a graph between chosen inputs and outputs that has to be lowered."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]  # those that depend on x and that an output depends on, in order
    active: frozenset[str]  # tensors that depend on x
    constants: Mapping[str, Array]  # tensors that depend on no input at all, where a rule needs them
    observed: tuple[str, ...]  # tensors that rules need at x, the outputs included


def scope_of(graph: Graph, inputs: Sequence[str] | None, outputs: Sequence[str] | None) -> Scope:
    """Choose what is differentiated, and refuse what cannot be lowered.

    Args:
        graph: the model.
        inputs: tensors to differentiate by; None for every floating-point graph input.
        outputs: tensors to explain; None for every floating-point graph output.

    Raises:
        UnknownTensorError: a name that the graph does not have.
        UnsupportedError: the first node on the way that no rule can lower.
    """
    wanted_inputs = _chosen(graph, inputs, graph.inputs, "inputs")
    wanted_outputs = _chosen(graph, outputs, graph.outputs, "outputs")
    needed = ancestors(graph, wanted_outputs, stop=set(wanted_inputs))
    verdicts = judge(graph, wanted_inputs)
    on_the_way = [v for v in verdicts if v.node.position in needed]
    for verdict in on_the_way:
        if verdict.kind is None:
            raise UnsupportedError(f"{verdict.node}: {verdict.reason}")
    lowered = tuple(v.node for v in on_the_way if v.depends_on_x and v.kind is not Kind.LOCALLY_CONSTANT)
    active = _active_tensors(lowered, wanted_inputs)
    constant = constant_tensors(graph)
    read = [name for node in lowered if entry_of(node) for name in node.inputs if name and name not in active]
    held = [name for name in wanted_outputs if name not in active]
    constants = constant_values(graph, {*read, *held} & constant)
    observed = [name for name in (*read, *wanted_outputs) if name not in constants]
    observed += [name for node in lowered for name in observed_inputs(node) if name in active]
    return Scope(wanted_inputs, wanted_outputs, lowered, active, constants, tuple(dict.fromkeys(observed)))


def judge(graph: Graph, inputs: Sequence[str]) -> tuple[Verdict, ...]:
    """Give a verdict on every node, without running anything."""
    active = set(inputs)
    verdicts = []
    for node in graph.nodes:
        touched = any(name in active for name in (*node.inputs, *node.captured))
        if node.random:
            verdicts.append(
                Verdict(node, None, touched, "draws random numbers, so the model is no function of x")
            )
            active.update(name for name in node.outputs if name and touched)
            continue
        if not touched:
            verdicts.append(Verdict(node, Kind.AFFINE, False))
            continue
        verdict = _judge_active(graph, node, active)
        verdicts.append(verdict)
        if verdict.kind is not Kind.LOCALLY_CONSTANT:
            active.update(verdict.varying)
    return tuple(verdicts)


def entry_of(node: Node) -> Entry | None:
    """The registered rule of a node."""
    return REGISTRY.get((node.domain, node.op_type))


def varying_outputs(node: Node) -> tuple[str, ...]:
    """Outputs of a node that vary with its inputs ("" where left out); indices and masks do not."""
    entry = entry_of(node)
    constant = entry.constant_outputs if entry else ()
    return tuple(name for i, name in enumerate(node.outputs) if i not in constant)


def observed_inputs(node: Node) -> tuple[str, ...]:
    """Inputs of a node whose values at x its rule reads."""
    entry = entry_of(node)
    if entry is None or entry.observes == ():
        return ()
    if entry.observes is None:
        return tuple(name for name in node.inputs if name)
    return tuple(node.inputs[i] for i in entry.observes if i < len(node.inputs) and node.inputs[i])


def _judge_active(graph: Graph, node: Node, active: set[str]) -> Verdict:
    entry = entry_of(node)
    if entry is None:
        if composite_of(node) is None:
            return Verdict(node, None, True, _no_rule(node, active), without_rule=node)
        found = judge_composite(graph, node, active, judge)
        stuck = found.without_rule
        reason = _no_rule(node, active, stuck) if stuck and found.kind is None else found.reason
        return Verdict(node, found.kind, True, reason, moved=found.varying, without_rule=stuck)
    if entry.kind is Kind.LOCALLY_CONSTANT:
        return Verdict(node, entry.kind, True)
    moving = {i for i, name in enumerate(node.inputs) if name in active}
    for left, right in entry.products:
        if left in moving and right in moving:
            reason = (
                f"multiplies two values that both depend on x ({node.inputs[left]!r} and "
                f"{node.inputs[right]!r}), which is not affine; name one of them in inputs, or a tensor "
                "before this node in outputs"
            )
            return Verdict(node, None, True, reason)
    if entry.linear_in is not None and not moving <= set(entry.linear_in):
        name = node.inputs[min(moving - set(entry.linear_in))]
        reason = (
            f"its parameter {name!r} depends on x, so the result is not affine in x; "
            "hold it fixed by choosing other inputs, or name a tensor before this node in outputs"
        )
        return Verdict(node, None, True, reason)
    return Verdict(node, entry.kind, True)


def _no_rule(node: Node, active: set[str], inner: Node | None = None) -> str:
    family = sorted(op for domain, op in REGISTRY if domain == node.domain)
    missing = (inner or node).op_type
    file = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", missing).lower()
    written = f", and written out in simpler nodes it holds {inner}, which has none either" if inner else ""
    supported = (
        f"{len(family)} operators of this domain are supported (`ilin inspect --operators` lists them)"
        if family
        else "no operator of this domain is supported"
    )
    before = [name for name in (*node.inputs, *node.captured) if name in active]
    return (
        f"no rule for this operator{written}; {supported}; name a tensor before it in outputs (it reads "
        f"{before[0]!r}), or write {f'the rule of {missing}' if inner else 'its rule'} in ops/{file}.py "
        "(CONTRIBUTING.md)"
    )


def _chosen(
    graph: Graph, asked: Sequence[str] | None, declared: Sequence[TensorInfo], role: str
) -> tuple[str, ...]:
    if asked is None:
        names = tuple(put.name for put in declared if put.floating)
        if not names:
            kinds = ", ".join(str(put) for put in declared) or "none"
            raise UnsupportedError(
                f"the model has no floating-point {role} to linearise (it declares {kinds})"
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
                raise UnsupportedError(
                    f"{name!r} in {role} is {put.dtype or 'no tensor'}, not floating point"
                )
    if not asked:
        raise UnknownTensorError(f"no name given in {role}")
    return tuple(dict.fromkeys(asked))


def _suggest(name: str, known: set[str], declared: Sequence[TensorInfo]) -> str:
    close = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(map(repr, close)) + "?"
    return "the model declares " + ", ".join(put.name for put in declared)


def _active_tensors(nodes: Sequence[Node], inputs: Sequence[str]) -> frozenset[str]:
    """The inputs, and what lowered nodes compute from them."""
    return frozenset(inputs).union(*(varying_outputs(node) for node in nodes)) - {""}


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
        values.update(evaluate_constants(graph.proto, positions, computed))
    for name, value in values.items():
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(f"constant {name!r} is no dense tensor; store it densely")
    return values
