"""Composite nodes, which have no rule but can be written out in others: judged before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from ..expansions import EXPANSIONS, Composite, Container, Expansion, Facts, Names
from ..expansions._function import function_of
from ..ops import REGISTRY
from ..runtime.errors import UnsupportedError
from ..runtime.program import Kind
from .graph import Graph, Node, ancestors, graph_of
from .verdict import Verdict

Judge = Callable[[Graph, Sequence[str]], Sequence[Verdict]]  # of a graph's nodes, given the tensors that move

_ORDER = (Kind.LOCALLY_CONSTANT, Kind.AFFINE, Kind.PIECEWISE_LINEAR, Kind.SMOOTH)


@dataclass(frozen=True)
class Judged:
    """What can be said of a composite node from the operators in it."""

    kind: Kind | None  # None: unsupported, for the given reason
    reason: str = ""
    varying: tuple[str, ...] = ()  # outputs that vary with x
    without_rule: Node | None = None  # a node in it without a rule, which stands in the way of some points


def composite_of(node: Node) -> Expansion | None:
    """How a node is expanded; None for one that has a rule, or that nobody can expand."""
    if (node.domain, node.op_type) in REGISTRY:
        return None
    registered = EXPANSIONS.get((node.domain, node.op_type))
    return registered or function_of(node.op_type, node.domain, node.opset)


def judge_composite(graph: Graph, node: Node, active: set[str], judge: Judge) -> Judged:
    """Judge a composite node by the operators that it is written out in.

    Nothing is known of values and shapes here, so it is written out for facts that are typical of its
    operator. Where there are alternatives, such as the branches of an If, one that is supported is enough.

    Args:
        graph: that the node is in.
        node: a composite node that reads something that depends on x.
        active: tensors that depend on x.
        judge: gives a verdict on every node of a graph.
    """
    expansion = composite_of(node)
    assert expansion is not None
    outputs = tuple(name for name in node.outputs if name)
    if expansion.kind is not None:
        varying = () if expansion.kind is Kind.LOCALLY_CONSTANT else outputs
        return Judged(expansion.kind, "", varying)
    found = [
        _judged(graph, node, expansion, facts, active, judge)
        for facts in expansion.typical(_blank(graph, node, Facts()))
    ]
    supported = [each for each in found if each.kind is not None]
    if not supported:
        return found[0]
    kinds = [each.kind for each in supported if each.kind is not None]
    if (expansion.trips or len(found) > 1) and not _decided(graph, node, expansion):
        kinds.append(Kind.PIECEWISE_LINEAR)
    varying = tuple(name for name in outputs if any(name in each.varying for each in supported))
    kind = max(kinds, key=_ORDER.index) if varying else Kind.LOCALLY_CONSTANT
    stuck = next((each for each in found if each.without_rule or each.reason), Judged(kind))
    return Judged(kind, stuck.reason, varying, stuck.without_rule)


def _decided(graph: Graph, node: Node, expansion: Expansion) -> bool:
    """Whether what decides is a parameter of the model."""
    names = [node.inputs[position] for position in expansion.values if position < len(node.inputs)]
    return all(name in graph.initializers for name in names if name)


def _judged(
    graph: Graph, node: Node, expansion: Expansion, facts: Facts, active: set[str], judge: Judge
) -> Judged:
    """The verdict for some facts."""
    site = _blank(graph, node, facts)
    try:
        results = expansion.expand(site)
    except UnsupportedError as error:
        return Judged(None, str(error).removeprefix(f"{node}: "))
    names = [[result] if isinstance(result, str) else list(_tensors(result)) for result in results]
    inner = _written(site, graph)
    needed = ancestors(inner, [name for each in names for name in each])
    verdicts = [verdict for verdict in judge(inner, list(active)) if verdict.node.position in needed]
    moved = set(active)
    stuck = next((verdict.without_rule for verdict in verdicts if verdict.without_rule), None)
    kinds = [Kind.AFFINE]
    for verdict in verdicts:
        if verdict.kind is None:
            reason = f"written out in simpler nodes it holds {verdict.node}: {verdict.reason}"
            return Judged(None, reason, without_rule=verdict.without_rule)
        if verdict.depends_on_x and verdict.kind is not Kind.LOCALLY_CONSTANT:
            kinds.append(verdict.kind)
            moved.update(verdict.varying)
    varying = [
        output
        for output, tensors in zip(node.outputs, names, strict=False)
        if output and moved.intersection(tensors)
    ]
    return Judged(max(kinds, key=_ORDER.index), "", tuple(varying), stuck)


def _blank(graph: Graph, node: Node, facts: Facts) -> Composite:
    """A node of which only the operators count; an input that should be a sequence holds one tensor."""
    proto = graph.proto.graph.node[node.position]
    sequences: Mapping[str, Container] = {name: [name] for name in proto.input[:1]}
    types = graph.types[0] if (node.domain, node.op_type) not in EXPANSIONS else {}
    return Composite(proto, node.opset, facts, Names(set()), types, sequences)


def _tensors(result: Container) -> Iterable[str]:
    return result if isinstance(result, list) else ()


def _written(site: Composite, graph: Graph) -> Graph:
    """What a node is written out in, as a graph that reads tensors of another."""
    proto = onnx.ModelProto()
    proto.graph.node.extend(site.nodes)
    proto.graph.initializer.extend(site.initializers)
    for domain, version in graph.opsets.items():
        proto.opset_import.add(domain=domain, version=version)
    if any((node.domain, node.op_type) not in REGISTRY for node in site.nodes):
        types = graph.types[0]
        read = dict.fromkeys(name for node in site.nodes for name in node.input if name in types)
        for name in read:
            put = helper.make_tensor_value_info(name, types[name].element, types[name].shape)
            proto.graph.input.append(put)
    return graph_of(proto, "", "")
