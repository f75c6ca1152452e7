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
from ..runtime.session import NoKernelError, Session
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
        if not providers:
            _require_exchangeable(graph, observer)
        observer.prepare()
    except ModelError as refused:
        if providers:
            raise
        found = _up_to_date(graph, scope) or _by_reference(graph, scope, refused)
        if found is None:
            raise
        return found
    return Runnable(graph, scope, observer)


def _up_to_date(graph: Graph, scope: Scope) -> Runnable | None:
    """The model at a newer operator set, if onnxruntime runs that.

    What comes out is compared with the reference evaluator on the model as it is written, where that runs it:
    conversions have been wrong, such as that of PRelu's slopes, which older operator sets count by channels.
    """
    opset = graph.opsets.get("", _TARGET)
    if opset >= _TARGET:
        return None
    try:
        newer = reread(graph, onnx.version_converter.convert_version(graph.proto, _TARGET))
        Session(newer.proto, scope.outputs, surroundings=newer.surroundings)
        observer = PathObserver(graph, scope, None, by_reference=True, written=newer.proto)
        observer.prepare()
    except (ModelError, RuntimeError, ValueError, onnx.checker.ValidationError):
        return None
    note = f"onnxruntime does not run it at opset {opset}: onnx's version converter made it opset {_TARGET}"
    return Runnable(graph, scope, observer, (note,))


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


# What onnxruntime takes from Python no arrays of.
_NARROW = {"int4", "uint4", "int2", "uint2", "float4_e2m1fn"}


def _require_exchangeable(graph: Graph, observer: Observer | PathObserver) -> None:
    """Refuse types that onnxruntime does not exchange with Python.

    Raises:
        NoKernelError: a model of bfloat16, or with an input of less than a byte.
    """
    narrow = [put for put in graph.inputs if put.dtype is not None and put.dtype.name in _NARROW]
    if narrow or observer.dtype.name == "bfloat16":
        name = narrow[0].dtype if narrow else "bfloat16"
        raise NoKernelError(f"onnxruntime exchanges no {name} tensors with Python")


def _observer(
    graph: Graph, scope: Scope, providers: Sequence[str] | None = None, *, by_reference: bool = False
) -> Observer | PathObserver:
    written_out = is_composite(scope) or holds_infinities(graph.proto)
    kind = PathObserver if written_out else Observer
    return kind(graph, scope, providers, by_reference=by_reference)
