"""What runs a model: onnxruntime as it is written, or brought up to date, or onnx's reference evaluator.

onnxruntime no longer has all operators in their oldest versions, nor every operator in every type. Where it
refuses a model, onnx's version converter may bring it to an operator set that it runs; where it lacks an
implementation, onnx's reference evaluator, which is slow, observes the model instead. Either is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx
import onnx.version_converter

from ..runtime.errors import ModelError
from ..runtime.session import NoKernelError
from .finite import holds_infinities
from .graph import Graph, reread
from .observer import Observer
from .paths import PathObserver, is_composite
from .scope import Scope

_TARGET = 17  # an operator set that onnxruntime runs everywhere


@dataclass(frozen=True)
class Runnable:
    """A graph that can be observed."""

    graph: Graph
    scope: Scope
    observer: Observer | PathObserver
    notes: tuple[str, ...] = ()


def runnable(graph: Graph, scoped: Callable[[Graph], Scope], providers: Sequence[str] | None) -> Runnable:
    """Find what runs a model.

    Args:
        graph: the model.
        scoped: chooses the part to explain.
        providers: onnxruntime's execution providers; with any given, nothing else is tried.

    Raises:
        ModelError: nothing runs it; the error is onnxruntime's.
    """
    scope = scoped(graph)
    observer = _observer(graph, scope, providers)
    try:
        if observer.dtype.name == "bfloat16" and not providers:
            raise NoKernelError("onnxruntime hands out no bfloat16 tensors")
        observer.prepare()
    except ModelError as refused:
        if providers:
            raise
        found = _up_to_date(graph, scoped) or _by_reference(graph, scope, refused)
        if found is None:
            raise
        return found
    return Runnable(graph, scope, observer)


def _up_to_date(graph: Graph, scoped: Callable[[Graph], Scope]) -> Runnable | None:
    """The model at a newer operator set, if onnxruntime runs that."""
    opset = graph.opsets.get("", _TARGET)
    if opset >= _TARGET:
        return None
    try:
        newer = reread(graph, onnx.version_converter.convert_version(graph.proto, _TARGET))
        scope = scoped(newer)
        observer = _observer(newer, scope)
        observer.prepare()
    except (ModelError, RuntimeError, ValueError, onnx.checker.ValidationError):
        return None
    note = f"onnxruntime does not run it at opset {opset}: onnx's version converter made it opset {_TARGET}"
    return Runnable(newer, scope, observer, (note,))


def _by_reference(graph: Graph, scope: Scope, refused: ModelError) -> Runnable | None:
    """The model in onnx's reference evaluator, if onnxruntime only lacks an implementation."""
    if not isinstance(refused, NoKernelError):
        return None
    observer = _observer(graph, scope, by_reference=True)
    try:
        observer.prepare()
    except ModelError:
        return None
    note = f"observed with onnx's reference evaluator instead of onnxruntime, which is slow ({refused})"
    return Runnable(graph, scope, observer, (note,))


def _observer(
    graph: Graph, scope: Scope, providers: Sequence[str] | None = None, *, by_reference: bool = False
) -> Observer | PathObserver:
    written_out = is_composite(scope) or holds_infinities(graph.proto)
    kind = PathObserver if written_out else Observer
    return kind(graph, scope, providers, by_reference=by_reference)
