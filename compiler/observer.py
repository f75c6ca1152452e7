"""The onnxruntime sessions over one model, each made when first needed and then kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from ..runtime.errors import NonFiniteError
from ..runtime.primitives import Array
from ..runtime.rounding import Arithmetic
from ..runtime.session import ReferenceSession, Runner, Session
from ..runtime.surgery import with_inputs
from .graph import Graph, floating_target
from .scope import Scope
from .trace import Trace, observe, require_finite


class Observer:
    """Looks at a model through onnxruntime: what rules need, all that depends on x, or a run from inside."""

    def __init__(
        self, graph: Graph, scope: Scope, providers: Sequence[str] | None, *, by_reference: bool = False
    ) -> None:
        self._graph, self._scope, self._providers = graph, scope, providers
        self._by_reference = by_reference
        self._graph_inputs = {put.name for put in graph.inputs}
        self._inner = [name for name in scope.inputs if name not in self._graph_inputs]
        self._cuts: dict[tuple[np.dtype[Any], ...], Runner] = {}  # by the inner tensors' types

    def prepare(self) -> None:
        """Make the session that every point needs.

        Raises:
            ModelError: the model does not run here.
        """
        _ = self._tracer

    def _session(self, proto: onnx.ModelProto, names: Sequence[str]) -> Runner:
        if self._by_reference:
            return ReferenceSession(proto, names, self._graph.surroundings)
        return Session(proto, names, self._providers, surroundings=self._graph.surroundings)

    def trace(self, feeds: Mapping[str, Array]) -> Trace:
        """Observe what the rules need at a point, in one run.

        Raises:
            NonFiniteError: naming the first tensor that is not finite.
        """
        try:
            return self._complete(observe(self._tracer, feeds, self._scope.active))
        except NonFiniteError:
            self.audit(feeds)
            raise

    def of(self, _: Trace) -> Observer:
        """What looks at a point again: this one, where the model has but one way through it."""
        return self

    def audit(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every tensor that depends on x, to check step by step.

        Raises:
            NonFiniteError: naming the first tensor that is not finite, in the graph's order.
        """
        values = (self._tracer if self._half else self._auditor).run(feeds)
        for name in self._varying:
            require_finite(name, values[name])
        return values

    def probe(self, trace: Trace, z: Mapping[str, Array]) -> Trace:
        """Observe at another value z of the free tensors, all else as in a trace."""
        there = observe(self._prober(z), {**trace.feeds, **z}, self._scope.active)
        return self._complete(Trace(there.feeds, {**there.values, **z}))

    def _complete(self, trace: Trace) -> Trace:
        """With the outputs that are constants of the model, which no run has to take out."""
        constants = self._constant_outputs
        return Trace(trace.feeds, {**trace.values, **constants}) if constants else trace

    @cached_property
    def _constant_outputs(self) -> dict[str, Array]:
        constants = self._scope.constants
        return {name: constants[name] for name in self._scope.outputs if name in constants}

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The coarsest floating type that the model declares or casts to."""
        puts = (*self._graph.inputs, *self._graph.outputs)
        declared = [put.dtype for put in puts if put.dtype is not None and put.floating]
        declared += [np.dtype(np.float32) for put in puts if put.columns]  # which ZipMap asks for
        declared += [cast for node in self._scope.nodes if (cast := floating_target(node)) is not None]
        return max(declared, key=lambda dtype: Arithmetic.of(dtype).u, default=np.dtype(np.float32))

    @cached_property
    def _tracer(self) -> Runner:
        wanted = dict.fromkeys([*self._scope.observed, *self._inner, *(self._varying if self._half else ())])
        names = [name for name in wanted if name not in self._graph_inputs]
        return self._session(self._graph.proto, names)

    @cached_property
    def _auditor(self) -> Runner:
        return self._session(self._graph.proto, self._varying)

    @cached_property
    def _half(self) -> bool:
        """Whether all tensors have to come from one session.

        onnxruntime has few half-precision kernels on the CPU and casts around the others, so that which
        values are rounded to half depends on the tensors that are asked for.
        """
        return self.dtype.itemsize < 4

    @cached_property
    def _varying(self) -> list[str]:
        """Tensors that depend on x, in the graph's order."""
        active = self._scope.active
        return [name for node in self._scope.nodes for name in node.outputs if name in active]

    def _prober(self, z: Mapping[str, Array]) -> Runner:
        """Runs from the free tensors: the tracer itself, unless some of them are intermediate."""
        if not self._inner:
            return self._tracer
        types = tuple(z[name].dtype for name in self._inner)
        if types not in self._cuts:
            cut = with_inputs(self._graph.proto, dict(zip(self._inner, types, strict=True)))
            names = [name for name in self._tracer.outputs if name not in self._inner]
            self._cuts[types] = self._session(cut, names)
        return self._cuts[types]
