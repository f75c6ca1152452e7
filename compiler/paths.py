"""Models with composite nodes: one flat graph for each way that points take through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..runtime.errors import ModelError
from ..runtime.primitives import Array
from ..runtime.rounding import Arithmetic
from ..runtime.session import NoKernelError, ReferenceSession, Runner, Session
from ..runtime.surgery import with_outputs
from .composite import composite_of
from .engine import Engine
from .expand import Answer, Decisions, Draft, Question, expand, with_shapes
from .finite import with_finite_constants
from .graph import Graph, descendants, graph_of
from .lower import Cache
from .observer import Observer
from .scope import Scope, scope_of
from .trace import Trace

MakeSession = Callable[[onnx.ModelProto, Sequence[str]], Runner]

_MOST_WAYS = 32  # kept of the ways from one fork on
_TRIPS = "ilin/trips/"  # put before an output of a Loop: the scan output that counts its iterations


def is_composite(scope: Scope) -> bool:
    """Whether some node on the way has to be expanded."""
    return any(composite_of(node) is not None for node in scope.nodes)


class OffPath(Exception):  # noqa: N818  (an answer rather than an error)
    """A point takes another way through the model's branches and loops than the one that was asked about."""


@dataclass(frozen=True, eq=False)
class Path:
    """One way through a model: its flat graph, and what is kept for it."""

    graph: Graph
    scope: Scope
    observer: Observer
    decisions: Decisions  # what held at x: conditions, lengths, positions
    depends_on_x: bool  # whether x can change them
    _engine: Engine  # its own: engines know what is the same at every point, which is so on one way only
    _cache: Cache = field(default_factory=dict)  # lowered nodes that do not depend on the point

    def require_taken(self, values: Mapping[str, Array]) -> None:
        """Check that a point takes this way.

        Raises:
            OffPath: it decides otherwise.
        """
        for name, decided in self.decisions:
            if not np.array_equal(values[name], decided):
                raise OffPath


@dataclass(frozen=True)
class PathTrace(Trace):
    """What was observed of a point in the flat graph of its way, with the model's own outputs."""

    path: Path
    answers: Mapping[str, Array]  # the outputs of the model as it is written, where it runs

    @property
    def decides(self) -> bool:
        """Whether x decides which nodes run, or how often."""
        return self.path.depends_on_x

    def answer(self, name: str) -> Array:
        """An output as the model itself gives it."""
        return self.answers[name] if name in self.answers else self.values[name]


class PathObserver:
    """Looks at a model through the flat graph of each point.

    The model's answers come from the model as it is written, so that a flat graph that computes something
    else is found out.
    """

    def __init__(
        self,
        graph: Graph,
        scope: Scope,
        providers: Sequence[str] | None,
        *,
        by_reference: bool = False,
        written: onnx.ModelProto | None = None,
    ) -> None:
        """Prepare to look.

        Args:
            graph: the model as it is written, which gives the answers.
            scope: what is asked of it.
            providers: onnxruntime's execution providers.
            by_reference: whether onnx's reference evaluator gives the answers.
            written: the model converted to another operator set, from which flat graphs are made. What it
                gives is compared with the model as it is written, if that runs at all.
        """
        self._graph, self._scope, self._providers = graph, scope, providers
        self._by_reference = by_reference
        self._converted = written is not None
        self._written = with_finite_constants(written or graph.proto)
        self._starts: dict[Hashable, Path | _Fork] = {}  # by the shapes of the graph inputs

    def prepare(self) -> None:
        """Make the session that every point needs.

        Raises:
            ModelError: the model does not run here.
        """
        try:
            self._whole.prepare()
        except ModelError:
            if not self._converted:
                raise

    @property
    def dtype(self) -> np.dtype[Any]:
        """The coarsest floating type that the model declares or casts to."""
        return self._whole.dtype

    def trace(self, feeds: Mapping[str, Array]) -> PathTrace:
        """Observe what the rules need at a point.

        Raises:
            NonFiniteError: naming the first tensor that is not finite.
            UnsupportedError: a node on the point's way that cannot be lowered.
        """
        path = self._path(feeds)
        seen = path.observer.trace(feeds)
        path.require_taken(seen.values)
        return self._answered(seen, path, lambda: self._whole.trace(feeds))

    def probe(self, trace: Trace, z: Mapping[str, Array]) -> PathTrace:
        """Observe at another value z of the free tensors, all else as in a trace.

        Raises:
            OffPath: z takes another way.
        """
        assert isinstance(trace, PathTrace)
        path = trace.path
        try:
            seen = path.observer.probe(trace, z)
        except ModelError as error:  # such as a slice of the wrong size
            raise OffPath from error
        path.require_taken(seen.values)
        return self._answered(seen, path, lambda: self._whole.probe(trace, z))

    def _answered(self, seen: Trace, path: Path, look: Callable[[], Trace]) -> PathTrace:
        """What the flat graph shows of a point, with what the model itself answers."""
        try:
            return _answered(seen, path, look())
        except ModelError:
            if not self._converted:
                raise
            return PathTrace(seen.feeds, seen.values, path, {})  # nobody runs the model as it is written

    def of(self, trace: Trace) -> Observer:
        """What looks at the flat graph of a point."""
        assert isinstance(trace, PathTrace)
        return trace.path.observer

    @cached_property
    def _whole(self) -> Observer:
        """Looks at the outputs of the model as it is written."""
        outputs = tuple(name for name in self._scope.outputs if name not in self._scope.constants)
        scope = replace(self._scope, observed=outputs, active=frozenset(self._scope.inputs))
        return Observer(self._graph, scope, self._providers, by_reference=self._by_reference)

    def _path(self, feeds: Mapping[str, Array]) -> Path:
        """The way of a point."""
        shapes = {name: np.shape(value) for name, value in feeds.items()}
        start = tuple(sorted(shapes.items()))
        way = self._starts.get(start)
        if way is None:
            way = self._following(
                Draft(with_shapes(self._written, shapes), surroundings=self._graph.surroundings)
            )
            _keep(self._starts, start, way)
        while isinstance(way, _Fork):
            answers = way.answers(feeds)
            key = tuple(map(_hashable, answers.values()))
            following = way.ways.get(key)
            if following is None:
                following = self._following(way.draft.answered(answers))
                _keep(way.ways, key, following)
            way = following
        return way

    def _following(self, draft: Draft) -> Path | _Fork:
        """Expand as far as that can be without looking at a point."""
        draft, questions = expand(draft, self._scope)
        if questions:
            return _Fork(draft, questions, self._session)
        return self._finished(draft)

    def _finished(self, draft: Draft) -> Path:
        """The flat graph, without what nobody reads any more."""
        given = {put.name for put in draft.model.graph.input}
        inner = [name for name in self._scope.inputs if name not in given]
        decided = [name for name, _ in draft.decisions if name not in given]
        wanted = list(dict.fromkeys([*self._scope.outputs, *inner, *decided]))
        model = with_outputs(with_finite_constants(draft.model), wanted)
        graph = graph_of(model, self._graph.sha256, self._graph.name, self._graph.surroundings)
        scope = scope_of(graph, self._scope.inputs, self._scope.outputs, self._scope.reading)
        fixed = _fixed(graph)
        decisions = tuple((name, value) for name, value in draft.decisions if name not in fixed)
        observed = dict.fromkeys([*scope.observed, *(name for name, _ in decisions)])
        scope = replace(scope, observed=tuple(observed))
        reached = descendants(graph, scope.inputs)
        return Path(
            graph,
            scope,
            self._observer(graph, scope),
            decisions,
            any(name in reached for name, _ in decisions),
            Engine(self._providers),
        )

    def _observer(self, graph: Graph, scope: Scope) -> Observer:
        """What looks at a flat graph: where the model itself is too much for onnxruntime, it may not be."""
        observer = Observer(graph, scope, self._providers)
        if self._by_reference:
            try:
                observer.prepare()
            except NoKernelError:
                return Observer(graph, scope, self._providers, by_reference=True)
        return observer

    def _session(self, model: onnx.ModelProto, names: Sequence[str]) -> Runner:
        if self._by_reference:
            return ReferenceSession(model, names, self._graph.surroundings)
        return Session(model, names, self._providers, surroundings=self._graph.surroundings)


def _answered(seen: Trace, path: Path, whole: Trace) -> PathTrace:
    """What the flat graph shows of a point, with what the model itself answers."""
    answers = {name: whole.values[name] for name in path.scope.outputs}
    for name, answer in answers.items():
        if answer.shape != seen.values[name].shape:
            raise ModelError(
                f"written out in simpler nodes, the model's output {name!r} has the shape "
                f"{seen.values[name].shape} instead of {answer.shape}; this is a fault of an expansion"
            )
    return PathTrace(seen.feeds, seen.values, path, answers)


def objection(places: Sequence[Trace], outputs: Sequence[str]) -> str:
    """Why the flat graph is not the model, if so: at one of the places an output is another one.

    Two right ways to compute an output differ by rounding, for which there is no bound here: parts of it may
    not depend on x, and are no steps of the program. A wrong one differs in the leading digits, so half of
    the digits of the coarser floating type have to be the same.
    """
    for place in places:
        for name in outputs:
            ours, theirs = place.values[name], place.answer(name)
            coarser = Arithmetic.of(ours.dtype).coarser(Arithmetic.of(theirs.dtype))
            tolerance = math.sqrt(coarser.u) * float(np.abs(theirs).max(initial=0))
            if (
                ours.shape != theirs.shape
                or not (np.abs(ours.astype(np.float64) - theirs) <= tolerance).all()
            ):
                return f"written out in simpler nodes, the model's output {name!r} is another one"
    return ""


def _fixed(graph: Graph) -> set[str]:
    """Tensors that no input of the graph can change."""
    reached = descendants(graph, [put.name for put in graph.inputs])
    return graph.tensors() - reached


class _Fork:
    """A model that can be expanded no further without looking at a point."""

    def __init__(self, draft: Draft, questions: tuple[Question, ...], session: MakeSession) -> None:
        self.draft, self._questions = draft, questions
        self.ways: dict[Hashable, Path | _Fork] = {}
        counted = [question.tensor for question in questions if question.about == "trips"]
        model = _counting(draft.model, counted) if counted else draft.model
        given = {put.name for put in model.graph.input}
        names = dict.fromkeys(name for question in questions if (name := _asked(question)) not in given)
        self._session = session(model, list(names))

    def answers(self, feeds: Mapping[str, Array]) -> dict[Question, Answer]:
        """Look at a point."""
        values = {**feeds, **self._session.run(feeds)}
        return {question: _answer(question, values[_asked(question)]) for question in self._questions}


def _keep(ways: dict[Hashable, Path | _Fork], key: Hashable, way: Path | _Fork) -> None:
    """Keep one way more, and let go of the oldest where there are many: each holds the model's parameters."""
    if len(ways) >= _MOST_WAYS:
        ways.pop(next(iter(ways)), None)
    ways[key] = way


def _asked(question: Question) -> str:
    """The tensor that tells the answer."""
    return _TRIPS + question.tensor if question.about == "trips" else question.tensor


def _answer(question: Question, value: Array) -> Answer:
    if question.about == "value":
        return np.array(value)
    return len(value) if question.about == "trips" else np.shape(value)


def _hashable(answer: Answer) -> Hashable:
    return (answer.shape, answer.tobytes()) if isinstance(answer, np.ndarray) else answer


def _counting(model: onnx.ModelProto, loops: Sequence[str]) -> onnx.ModelProto:
    """A copy in which the Loops with the given outputs have a scan output more: an entry per iteration."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        name = next((name for name in loops if name in node.output), None)
        if name is None:
            continue
        body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
        node.output.extend([""] * (len(body.output) - 1 - len(node.output)))
        node.output.append(_TRIPS + name)
        body.node.append(helper.make_node("Identity", [body.input[0].name], [_TRIPS + name]))
        body.output.append(helper.make_tensor_value_info(_TRIPS + name, onnx.TensorProto.INT64, []))
    return copy
