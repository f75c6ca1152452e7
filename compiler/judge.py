"""Judge: what ilin can do with each node of a graph, before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import numpy as np

from ..ops import REGISTRY, Entry, Reading
from ..runtime.primitives import Array
from ..runtime.program import Kind
from .composite import composite_of, judge_composite
from .graph import Graph, Node
from .verdict import Verdict


def judge(
    graph: Graph,
    inputs: Sequence[str],
    reading: Reading = Reading(),  # noqa: B008 — frozen
) -> tuple[Verdict, ...]:
    """Give a verdict on every node, without running anything."""
    active = set(inputs)
    weighing: set[str] = set()  # of these, what x moves through sigmoids, softmaxes and their like alone
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
        verdict = _judge_active(graph, node, active, weighing, reading)
        verdicts.append(verdict)
        if verdict.kind is Kind.LOCALLY_CONSTANT:
            continue
        if _weighs(graph, verdict, active, weighing):
            weighing.update(filter(None, verdict.varying))
        active.update(filter(None, verdict.varying))
    return tuple(verdicts)


def _judge_active(
    graph: Graph, node: Node, active: set[str], weighing: set[str], reading: Reading
) -> Verdict:
    entry = entry_of(node, reading)
    if entry is None:
        if composite_of(node) is None:
            return Verdict(node, None, True, _no_rule(node, active), without_rule=node)
        found = judge_composite(graph, node, active, partial(judge, reading=reading))
        stuck = found.without_rule
        reason = _no_rule(node, active, stuck) if stuck and found.kind is None else found.reason
        return Verdict(node, found.kind, True, reason, moved=found.varying, without_rule=stuck)
    if entry.kind is Kind.LOCALLY_CONSTANT:
        return Verdict(node, entry.kind, True, "", entry)
    moving = frozenset(i for i, name in enumerate(node.inputs) if name in active)
    if not entry.bends(moving):
        wanted = moving if entry.observes is None else moving & set(entry.observes)
        return Verdict(node, entry.kind, True, "", entry, wanted)
    if not entry.tangent:
        return Verdict(node, None, True, _not_linear(node, entry, moving), entry)
    held = _held(node, entry, moving, weighing) if reading.frozen else frozenset[int]()
    return Verdict(node, Kind.SMOOTH, True, "", entry, moving - held, held)


def entry_of(node: Node, reading: Reading) -> Entry | None:
    """The registered rule that serves a node."""
    entry = REGISTRY.get((node.domain, node.op_type))
    return None if entry is None else entry.serving(node.attributes, reading)


def _weighs(graph: Graph, verdict: Verdict, active: set[str], weighing: set[str]) -> bool:
    """Whether x moves a node's outputs through gates alone."""
    node, entry = verdict.node, verdict.entry
    moving = [i for i, name in enumerate(node.inputs) if name in active]
    if entry is not None and entry.gates(moving, lambda i: _stored(graph, node.inputs[i])):
        return True
    names = (*node.inputs, *node.captured)
    return all(name in weighing for name in names if name in active)


def _stored(graph: Graph, name: str) -> Array | None:
    """A constant that the model holds as it is; None for one that is computed."""
    if name in graph.initializers:
        return graph.initializers[name]
    literal = (node for node in graph.nodes if node.op_type == "Constant" and name in node.outputs)
    return next((np.asarray(value) for node in literal for value in node.attributes.values()), None)


def _not_linear(node: Node, entry: Entry, moving: Collection[int]) -> str:
    """Why a use of an operator that is linear in some inputs only is refused."""
    for left, right in entry.products:
        if left in moving and right in moving:
            return (
                f"multiplies two values that both depend on x ({node.inputs[left]!r} and "
                f"{node.inputs[right]!r}), which is not affine; name one of them in inputs, or a tensor "
                "before this node in outputs"
            )
    name = node.inputs[min(set(moving) - set(entry.linear_in or ()))]
    return (
        f"its parameter {name!r} depends on x, so the result is not affine in x; "
        "hold it fixed by choosing other inputs, or name a tensor before this node in outputs"
    )


def _held(node: Node, entry: Entry, moving: frozenset[int], weighing: set[str]) -> frozenset[int]:
    """What frozen mode holds of a node: its parameters, then of each product the gate, if one side is one.

    Where both sides are gates, or neither is, none is held: such a product is shared out by its rule.
    """
    linear = moving if entry.linear_in is None else moving & set(entry.linear_in)
    if not linear:
        return frozenset()
    held = set(moving - linear)
    for left, right in entry.products:
        if {left, right} <= linear - held:
            weighs = [node.inputs[position] in weighing for position in (left, right)]
            if weighs[0] != weighs[1]:
                held.add(left if weighs[0] else right)
    return frozenset(held)


def _no_rule(node: Node, active: set[str], inner: Node | None = None) -> str:
    family = sorted(op for domain, op in REGISTRY if domain == node.domain)
    missing = (inner or node).op_type
    written = f", and written out in simpler nodes it holds {inner}, which has none either" if inner else ""
    supported = (
        f"{len(family)} operators of this domain are supported (`ilin inspect --operators` lists them)"
        if family
        else "no operator of this domain is supported"
    )
    before = [name for name in (*node.inputs, *node.captured) if name in active]
    return (
        f"no rule for this operator{written}; {supported}; name a tensor before it in outputs (it reads "
        f"{before[0]!r}), or write {f'the rule of {missing}' if inner else 'its rule'} "
        "(docs/custom-operators.md)"
    )
