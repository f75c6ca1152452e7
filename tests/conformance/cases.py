"""The ONNX backend node cases that ilin should be able to linearise, and the choices of active inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto
from onnx.backend.test.loader import load_model_tests

import ilin.ops  # noqa: F401  (fills the registry)
from ilin.ops._rule import REGISTRY, Entry
from ilin.runtime.program import Kind

from .oracle import FLOATS


@dataclass(frozen=True, eq=False)
class Case:
    """One case of the suite with local functions inlined."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[object, ...]  # values in the order of the graph's inputs

    @cached_property
    def feeds(self) -> dict[str, object]:
        return {put.name: value for put, value in zip(self.model.graph.input, self.inputs, strict=False)}

    @cached_property
    def floating_inputs(self) -> tuple[str, ...]:
        return tuple(put.name for put in self.model.graph.input if _floating(put))

    @cached_property
    def floating_outputs(self) -> tuple[str, ...]:
        return tuple(put.name for put in self.model.graph.output if _floating(put))

    @cached_property
    def dependent(self) -> tuple[onnx.NodeProto, ...]:
        """Nodes that depend on a floating input."""
        moving = set(self.floating_inputs)
        found = []
        for node in self.model.graph.node:
            if moving.intersection((*node.input, *_captured(node))):
                found.append(node)
                moving.update(node.output)
        return tuple(found)

    @cached_property
    def operators(self) -> tuple[str, ...]:
        return tuple(sorted({_label(node) for node in self.model.graph.node}))

    @cached_property
    def without_rule(self) -> tuple[str, ...]:
        """Operators that depend on an input and that ilin does not know."""
        return tuple(sorted({_label(node) for node in self.dependent if entry_of(node) is None}))

    @cached_property
    def subject(self) -> str:
        """The operator that the case is about, as far as ilin sees it."""
        known = [_label(node) for node in self.model.graph.node if entry_of(node) is not None]
        return known[-1] if known else self.operators[-1]

    @property
    def relevant(self) -> bool:
        """Whether any operator of the graph has a rule."""
        return any(entry_of(node) is not None for node in self.model.graph.node)


def entry_of(node: onnx.NodeProto) -> Entry | None:
    return REGISTRY.get(
        (node.domain.removeprefix("ai.onnx") if node.domain == "ai.onnx" else node.domain, node.op_type)
    )


@cache
def all_cases() -> tuple[Case, ...]:
    """All node cases, built in memory by the onnx package, with local functions inlined."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    return tuple(Case(case.name, _inlined(case.model), tuple(case.data_sets[0][0])) for case in found)


@cache
def relevant_cases() -> tuple[Case, ...]:
    return tuple(case for case in all_cases() if case.relevant)


def choices(case: Case) -> Iterator[tuple[str, ...]]:
    """Sets of inputs to make active together, each once: the largest that are allowed, and each input alone."""
    names = case.floating_inputs
    if not names:
        return
    groups = [names]
    if len(case.model.graph.node) == 1 and (entry := entry_of(case.model.graph.node[0])):
        groups = _allowed(case.model.graph.node[0], entry, names)
    singles = [(name,) for group in groups for name in group]
    seen = set()
    for group in (*groups, *singles):
        if group and group not in seen:
            seen.add(group)
            yield group


def forbidden(case: Case) -> tuple[str, ...] | None:
    """All floating inputs together, where the operator multiplies two of them or holds one as a parameter."""
    names = case.floating_inputs
    if len(case.model.graph.node) != 1 or len(names) < 2:
        return None
    entry = entry_of(case.model.graph.node[0])
    if entry is None or entry.kind is Kind.LOCALLY_CONSTANT:
        return None
    return None if names in _allowed(case.model.graph.node[0], entry, names) else names


def _allowed(node: onnx.NodeProto, entry: Entry, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    places = {name: [i for i, put in enumerate(node.input) if put == name] for name in names}
    free = [n for n in names if entry.linear_in is None or set(places[n]) <= set(entry.linear_in)]
    groups = [tuple(free)]
    for left, right in entry.products:
        split = []
        for group in groups:
            on_left = {n for n in group if left in places[n]}
            on_right = {n for n in group if right in places[n]}
            if on_left and on_right:
                split += [tuple(n for n in group if n not in side) for side in (on_right, on_left)]
            else:
                split.append(group)
        groups = split
    return groups


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _label(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _floating(put: onnx.ValueInfoProto) -> bool:
    return put.type.HasField("tensor_type") and put.type.tensor_type.elem_type in FLOATS


def _captured(node: onnx.NodeProto) -> set[str]:
    graphs = [g for a in node.attribute for g in (a.g, *a.graphs)]
    return {name for g in graphs for inner in g.node for name in (*inner.input, *_captured(inner))}


def has_tensors_only(case: Case) -> bool:
    """Whether every input and output is a tensor (not a sequence, an optional or a map)."""
    puts = (*case.model.graph.input, *case.model.graph.output)
    return all(
        put.type.HasField("tensor_type") and put.type.tensor_type.elem_type != TensorProto.UNDEFINED
        for put in puts
    )
