"""The ONNX backend node cases that ilin should be able to linearise, and the choices of active inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

import ilin
from ilin.compiler.graph import Node, load
from ilin.compiler.judge import judge
from ilin.compiler.verdict import Verdict
from ilin.expansions import EXPANSIONS
from ilin.expansions._function import function_of
from ilin.ops import REGISTRY, Entry, Reading
from ilin.runtime.program import Kind
from ilin.runtime.widen import FLOATS, is_floating


@dataclass(frozen=True, eq=False)
class Case:
    """One case of the suite, local functions inlined."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[object, ...]  # in the order of the graph's inputs
    suite: str = "node"

    @cached_property
    def feeds(self) -> dict[str, object]:
        """Input name to value; numpy scalars and tensors in protobuf become arrays.

        The cases of Cast hold NaN, infinities and values beyond the narrower type, where no linear map
        exists; tame values take their place. Those of Unique hold equal entries, of which a difference
        leaves other outputs; distinct ones in the same order take their place.
        """
        puts = zip(self.model.graph.input, self.inputs, strict=False)
        named = {put.name: _as_array(value) for put, value in puts}
        if any(node.op_type in ("Cast", "CastLike") for node in self.model.graph.node):
            named = {name: _tamed(value) for name, value in named.items()}
        if any(node.op_type == "Unique" for node in self.model.graph.node):
            named = {name: _distinct(value) for name, value in named.items()}
        return named

    @cached_property
    def floating_inputs(self) -> tuple[str, ...]:
        given = {tensor.name for tensor in self.model.graph.initializer}
        return tuple(put.name for put in self.model.graph.input if _floating(put) and put.name not in given)

    @cached_property
    def floating_outputs(self) -> tuple[str, ...]:
        return tuple(put.name for put in self.model.graph.output if _floating(put))

    @cached_property
    def holds_other_than_tensors(self) -> bool:
        """Whether an input or output is a sequence, an optional or a map."""
        puts = (*self.model.graph.input, *self.model.graph.output)
        return not all(put.type.HasField("tensor_type") for put in puts)

    @cached_property
    def without_rule(self) -> tuple[str, ...]:
        """Operators that depend on a floating input, and neither have a rule nor can be written out."""
        try:
            graph = load(self.model)
        except ilin.ModelError as error:
            return (f"a valid model ({error})",)
        groups = dict.fromkeys([self.floating_inputs, *((name,) for name in self.floating_inputs)])
        verdicts = [verdict for active in groups for verdict in judge(graph, active)]
        stuck = [verdict.without_rule or verdict.node for verdict in verdicts if _unknown(verdict)]
        return tuple(sorted({label(node) for node in stuck}))

    @cached_property
    def subject(self) -> str:
        """The operator to report the case under: the last one that ilin knows, if it knows any."""
        known = [label(node) for node in self.model.graph.node if is_known(self.model, node)]
        return known[-1] if known else label(self.model.graph.node[-1])


@cache
def all_cases() -> tuple[Case, ...]:
    """The cases that the onnx package builds in memory, and those that it holds as files."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        built = load_model_tests(kind="node")
    stored = [case for suite in STORED for case in load_model_tests(kind=suite)]
    return (
        *(Case(case.name, _inlined(case.model), tuple(case.data_sets[0][0])) for case in built),
        *(_stored(case.name, Path(case.model_dir), case.kind) for case in stored),
    )


STORED = ("simple", "pytorch-converted", "pytorch-operator")


def _stored(name: str, folder: Path, suite: str) -> Case:
    model = onnx.load(folder / "model.onnx")
    files = sorted(
        (folder / "test_data_set_0").glob("input_*.pb"),
        key=lambda file: int(file.stem.removeprefix("input_")),
    )
    inputs = [
        _read(file, put.type.WhichOneof("value")) for file, put in zip(files, model.graph.input, strict=False)
    ]
    return Case(name, _inlined(model), tuple(inputs), suite)


def _read(file: Path, kind: str | None) -> object:
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(file.read_bytes()))
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(file.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))


@cache
def relevant_cases() -> tuple[Case, ...]:
    """Cases with an operator that has a rule, and no operator without one that depends on an input."""
    return tuple(case for case in _with_rule() if not case.without_rule)


@cache
def blocked_cases() -> tuple[Case, ...]:
    """Cases with an operator that ilin knows, and with another that would need a rule."""
    return tuple(case for case in _with_rule() if case.without_rule)


def _with_rule() -> list[Case]:
    return [case for case in all_cases() if any(is_known(case.model, node) for node in case.model.graph.node)]


# -- which inputs are active -------------------------------------------------------------------------------


def choices(case: Case) -> Iterator[tuple[str, ...]]:
    """Sets of inputs to be active together: the largest that the operator allows, then each input alone."""
    groups = _allowed_groups(case) or ([case.floating_inputs] if case.floating_inputs else [])
    singles = [(name,) for group in groups for name in group]
    yield from dict.fromkeys(group for group in (*groups, *singles) if group)


def forbidden(case: Case) -> tuple[str, ...] | None:
    """All floating inputs together, where the operator multiplies two of them or takes one as a parameter."""
    groups = _allowed_groups(case)
    return None if groups is None or case.floating_inputs in groups else case.floating_inputs


def _allowed_groups(case: Case) -> list[tuple[str, ...]] | None:
    """What the one operator of the case allows; None where there are several, or it is locally constant."""
    entry = entry_of(case.model.graph.node[0])
    if len(case.model.graph.node) != 1 or entry is None or entry.kind is Kind.LOCALLY_CONSTANT:
        return None
    if entry.tangent:
        return [case.floating_inputs]
    places = {
        name: {i for i, put in enumerate(case.model.graph.node[0].input) if put == name}
        for name in case.floating_inputs
    }
    free = tuple(n for n in places if entry.linear_in is None or places[n] <= set(entry.linear_in))
    groups = [free] if free else []
    for left, right in entry.products:
        groups = [part for group in groups for part in _parted(group, places, left, right)]
    return groups


def _parted(
    group: tuple[str, ...], places: dict[str, set[int]], left: int, right: int
) -> list[tuple[str, ...]]:
    sides = [{name for name in group if at in places[name]} for at in (left, right)]
    if not all(sides):
        return [group]
    return [tuple(name for name in group if name not in side) for side in reversed(sides)]


# -- protobuf ------------------------------------------------------------------------------------------------


def entry_of(node: onnx.NodeProto) -> Entry | None:
    entry = REGISTRY.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return None if entry is None else entry.serving(given, Reading())


def is_known(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Whether an operator has a rule, or can be written out in others."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (domain, node.op_type) in EXPANSIONS or entry_of(node) is not None:
        return True
    opsets = {"" if put.domain == "ai.onnx" else put.domain: put.version for put in model.opset_import}
    return function_of(node.op_type, domain, opsets.get(domain, 1)) is not None


def _unknown(verdict: Verdict) -> bool:
    return verdict.without_rule is not None or (verdict.kind is None and verdict.node.random)


def label(node: onnx.NodeProto | Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _as_array(value: object) -> object:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _tamed(value: object) -> object:
    if not isinstance(value, np.ndarray) or not is_floating(value):
        return value
    return np.clip(np.nan_to_num(value, nan=0.5), -100, 100)


def _distinct(value: object) -> object:
    if not isinstance(value, np.ndarray) or not is_floating(value) or np.unique(value).size == value.size:
        return value
    return value + np.arange(value.size, dtype=value.dtype).reshape(value.shape) / (2 * value.size)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _floating(put: onnx.ValueInfoProto) -> bool:
    return put.type.HasField("tensor_type") and put.type.tensor_type.elem_type in FLOATS
