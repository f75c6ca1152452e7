"""Expand: composite nodes written out, until all that depends on x is nodes that have rules.

What decides how (which branch, how many iterations) is looked up where it is known before anything runs:
in the model's parameters, and in what shape inference finds for the shapes of x. The rest is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from ..expansions import Composite, Container, Expansion, Facts, Names, Tensor
from ..runtime.emit import OPSET
from ..runtime.errors import UnsupportedError
from ..runtime.primitives import Array, Shape
from ..runtime.surroundings import ALONE, Surroundings
from .composite import composite_of
from .graph import Graph, Node, ancestors, graph_of
from .judge import judge
from .scope import Scope, constant_tensors, constant_values


class Question(NamedTuple):
    """Something that has to be known before a node can be expanded."""

    about: str  # "value", "shape", or "trips" of a Loop
    tensor: str  # for "trips" an output of the Loop


Answer = Array | Shape | int
Decisions = tuple[tuple[str, Array], ...]  # tensors of the expanded model, and what they were decided by


@dataclass(frozen=True)
class Draft:
    """A model some of whose composite nodes are written out."""

    model: onnx.ModelProto
    answers: Mapping[Question, Answer] = field(default_factory=dict)
    sequences: Mapping[str, Container] = field(default_factory=dict)
    decisions: Decisions = ()
    surroundings: Surroundings = ALONE

    def answered(self, answers: Mapping[Question, Answer]) -> Draft:
        """The same with more known; values that were asked for are decisions."""
        decided = tuple(
            (question.tensor, value)
            for question, value in answers.items()
            if question.about == "value" and isinstance(value, np.ndarray)
        )
        return replace(self, answers={**self.answers, **answers}, decisions=(*self.decisions, *decided))


def with_shapes(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy of a model that declares the shapes of its inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for put in copy.graph.input:
        if put.name in shapes:
            shape = put.type.tensor_type.shape
            shape.ClearField("dim")
            for size in shapes[put.name]:
                shape.dim.add(dim_value=size)
    del copy.graph.value_info[:]
    return copy


def expand(draft: Draft, scope: Scope) -> tuple[Draft, tuple[Question, ...]]:
    """Write out all composite nodes on the way from inputs to outputs that can be.

    Args:
        draft: the model so far.
        scope: what is asked of it.

    Returns:
        The model with these nodes written out, and the questions that have to be answered before the
        others can be; without any, it is done.

    Raises:
        UnsupportedError: a node that cannot be expanded.
    """
    while True:
        graph = graph_of(draft.model, "", "", draft.surroundings)
        types, containers = graph.types
        chosen = _chosen(graph, scope, draft, containers)
        if not chosen:
            return draft, ()
        shaped = _with_known_shapes(draft, types)
        if shaped is not None:
            draft = shaped
            continue
        known = _known(graph, draft, types, chosen)
        questions = dict.fromkeys(
            question for each in chosen.values() for question in each if question not in known
        )
        following = _written(draft, graph, chosen, known, types, containers)
        if following is None:
            if not questions:
                node = graph.nodes[min(chosen)]
                raise UnsupportedError(f"{node}: which tensors its sequence holds is not known")
            return draft, tuple(questions)
        draft = following


Chosen = dict[int, tuple[Question, ...]]  # position of a node to what has to be known of it


def _chosen(graph: Graph, scope: Scope, draft: Draft, containers: set[str]) -> Chosen:
    """The composite nodes to be written out, and what has to be known of each."""
    needed = ancestors(graph, scope.outputs, stop=scope.inputs)
    moved = set()
    for verdict in judge(graph, scope.inputs, scope.reading):
        if verdict.node.position not in needed or not verdict.depends_on_x:
            continue
        if verdict.kind is None:
            raise UnsupportedError(f"{verdict.node}: {verdict.reason}")
        if verdict.moved or _takes_containers(verdict.node):
            moved.add(verdict.node.position)
    chosen: Chosen = {}
    wanted: set[str] = set()  # sequences and optionals whose tensors have to be known
    for node in reversed(graph.nodes):
        gives = wanted.intersection(node.outputs)
        if (node.position not in moved and not gives) or (gives and gives <= set(draft.sequences)):
            continue
        expansion = composite_of(node)
        if expansion is None and not (node.op_type == "Identity" and gives):
            continue
        wanted.update(containers.intersection((*node.inputs, *node.captured)) - set(draft.sequences))
        chosen[node.position] = () if expansion is None else _questions(node, expansion)
    return chosen


def _takes_containers(node: Node) -> bool:
    expansion = composite_of(node)
    return expansion is not None and expansion.container


def _questions(node: Node, expansion: Expansion) -> tuple[Question, ...]:
    count = len(node.inputs)
    asked = [Question("value", node.inputs[i]) for i in expansion.values if i < count and node.inputs[i]]
    asked += [Question("shape", node.inputs[i]) for i in expansion.shapes if i < count]
    if expansion.trips:
        asked.append(Question("trips", next(name for name in node.outputs if name)))
    return tuple(asked)


# -- what is known before anything runs ------------------------------------------------------------------


def _with_known_shapes(draft: Draft, types: Mapping[str, Tensor]) -> Draft | None:
    """The model with arrays for what Shape gives, where that is known; None where nothing is."""
    outputs = {put.name for put in draft.model.graph.output}
    found: dict[str, Array] = {}
    for node in draft.model.graph.node:
        known = types.get(node.input[0]) if node.op_type == "Shape" and not node.domain else None
        if known is None or known.shape is None or None in known.shape or node.output[0] in outputs:
            continue
        given = {attribute.name: attribute.i for attribute in node.attribute}
        part = known.shape[given.get("start", 0) : given.get("end", len(known.shape))]
        found[node.output[0]] = np.array(part, np.int64)
    if not found:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(draft.model)
    kept = [node for node in draft.model.graph.node if not found.keys() & set(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in found.items())
    return replace(draft, model=model)


def _known(graph: Graph, draft: Draft, types: Mapping[str, Tensor], chosen: Chosen) -> dict[Question, Answer]:
    """The answers that need no run."""
    known = dict(draft.answers)
    asked = {question for each in chosen.values() for question in each} - set(known)
    values = {question.tensor for question in asked if question.about == "value"}
    for name, value in constant_values(graph, values & constant_tensors(graph)).items():
        known[Question("value", name)] = value
    for question in asked:
        shape = types[question.tensor].shape if question.tensor in types else None
        if question.about == "shape" and shape is not None and None not in shape:
            known[question] = tuple(size for size in shape if size is not None)
    for position, questions in chosen.items():
        for question in questions:
            if question.about == "trips" and question not in known:
                trips = _trips(graph.nodes[position], known)
                if trips is not None:
                    known[question] = trips
    return known


def _trips(node: Node, known: Mapping[Question, Answer]) -> int | None:
    """How often a Loop runs its body where its condition does not change; None where it may."""
    count, condition = (known.get(Question("value", name)) if name else None for name in node.inputs[:2])
    goes_on = condition is None or bool(np.ravel(condition)[0])
    if node.inputs[1] and condition is None:
        return None
    if not goes_on:
        return 0
    if count is None or not _condition_stays(node.attributes["body"]):
        return None
    return max(0, int(np.ravel(count)[0]))


def _condition_stays(body: onnx.GraphProto) -> bool:
    """Whether the body of a Loop hands its condition on, or always sets it."""
    name = body.output[0].name
    producers = {output: node for node in body.node for output in node.output}
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    if name == body.input[1].name:
        return True
    literals = [numpy_helper.to_array(tensor) for tensor in body.initializer if tensor.name == name]
    if name in producers and producers[name].op_type == "Constant":
        literals = [
            numpy_helper.to_array(attribute.t)
            for attribute in producers[name].attribute
            if attribute.name == "value"
        ]
    return any(bool(np.ravel(literal)[0]) for literal in literals)


# -- writing out -------------------------------------------------------------------------------------------


def _written(
    draft: Draft,
    graph: Graph,
    chosen: Chosen,
    known: Mapping[Question, Answer],
    types: Mapping[str, Tensor],
    containers: set[str],
) -> Draft | None:
    """The model with the chosen nodes written out of which all is known; None where there is none."""
    names = Names(_all_names(draft.model.graph))
    sequences = dict(draft.sequences)
    decisions = list(draft.decisions)
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    changed = False
    for node, proto in zip(graph.nodes, draft.model.graph.node, strict=True):
        ready = node.position in chosen and _ready(node, chosen[node.position], known, sequences, containers)
        if not ready:
            nodes.append(proto)
            continue
        changed = True
        expansion = composite_of(node)
        if expansion is None:  # Identity of a sequence
            sequences[node.outputs[0]] = sequences[node.inputs[0]]
            nodes.append(proto)
            continue
        site = Composite(proto, node.opset, _facts(node, expansion, known), names, types, sequences)
        held = site.finish(expansion.expand(site))
        nodes += site.nodes
        initializers += site.initializers
        decisions += site.decisions
        if held:  # nodes that are still to be written out may read it, and onnxruntime runs them until then
            sequences.update(held)
            nodes.append(proto)
    if not changed:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(draft.model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)
    if "" not in graph.opsets:  # a model of operators of other domains alone
        model.opset_import.add(version=OPSET)
    return Draft(model, draft.answers, sequences, tuple(decisions))


def _ready(
    node: Node,
    questions: Sequence[Question],
    known: Mapping[Question, Answer],
    sequences: Mapping[str, Container],
    containers: set[str],
) -> bool:
    """Whether all is known of a node. Subgraphs may read sequences that are not known yet."""
    taken = (
        containers.intersection(node.inputs) if _takes_containers(node) or node.op_type == "Identity" else ()
    )
    return all(question in known for question in questions) and all(name in sequences for name in taken)


def _facts(node: Node, expansion: Expansion, known: Mapping[Question, Any]) -> Facts:
    def found(about: str, positions: Sequence[int]) -> dict[int, Any]:
        asked = {i: Question(about, node.inputs[i]) for i in positions if i < len(node.inputs)}
        return {i: known[question] for i, question in asked.items() if question in known}

    trips = known[_questions(node, expansion)[-1]] if expansion.trips else None
    return Facts(found("value", expansion.values), found("shape", expansion.shapes), trips)


def _all_names(graph: onnx.GraphProto) -> set[str]:
    """Of tensors and nodes, those of subgraphs included."""
    names = {put.name for put in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names.update([node.name, *node.output])
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= _all_names(inner)
    return names
