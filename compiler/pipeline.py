"""The pipeline: load → observe → lower → compose → verify."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy

from .._version import __version__
from ..runtime import session as onnxruntime_session
from ..runtime.affine_map import AffineMap, Layer
from ..runtime.certificate import Certificate, Check
from ..runtime.errors import MemoryLimitError, NonFiniteError, OptionError, RowsError
from ..runtime.memory import limit_of, readable
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from ..runtime.rounding import step_rounding, unit_roundoff
from ..runtime.session import Session, with_inputs
from .compose import Composed, Magnitudes, Progress, compose
from .engine import ENGINES, Engine, EngineName
from .graph import Graph, ModelSource, floating_target, load
from .lower import Cache, lower
from .region import Neighbour, Point, draw_rays, neighbours, same_piece
from .scope import Scope, scope_of
from .trace import Given, Trace, feeds_of, observe, require_finite
from .verify import Observation, check_points, check_steps

Rows = str | int | Sequence[int]
DTYPES = ("float32", "float64")
FRESH_POINTS = 2


@dataclass
class CompiledModel:
    """A model, checked and prepared once, to be asked at many points. Made by `compile`."""

    graph: Graph
    scope: Scope
    engine: EngineName
    dtype: np.dtype[Any]
    memory_limit: int | str | None
    providers: tuple[str, ...] | None
    _cache: Cache = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._engine = Engine(self.engine)

    # -- the stages at one point ------------------------------------------------------------------

    def at(self, x: Given, rows: Rows = "all", *, progress: Progress | None = None) -> AffineMap:
        """Linearise at one point.

        Args:
            x: an array where the model has one input, else a mapping from graph input name to array.
                Inputs that are not differentiated are held at their values. A missing leading batch axis
                of 1 is added.
            rows: "all"; an integer k for the k largest outputs; or flat output indices.
            progress: called with the passes done and their number.

        Returns:
            The exact affine map at x and on the linear region around it, verified against onnxruntime.

        Raises:
            InputError: x does not fit the model, or holds NaN or infinity.
            RowsError: rows outside the output.
            MemoryLimitError: W would not fit.
            UnsupportedError: a use of an operator that cannot be lowered exactly.
        """
        feeds, notes = feeds_of(self.graph, x)
        trace = self._observe(feeds)
        program = self._lower(trace)
        chosen = self._rows(program, trace, rows)
        budget = self._plan(program, len(chosen))
        fresh, tried = self._fresh_points(program, trace)
        composed = compose(
            program,
            chosen,
            engine=self._engine,
            dtype=self.dtype,
            magnitudes=self._magnitudes(program, trace, fresh),
            budget=budget,
            progress=progress,
        )
        certificate = self._verify(program, composed, chosen, trace, fresh, tried)
        return self._answer(program, composed, chosen, trace, certificate, notes)

    def at_many(self, X: Given, rows: Rows = "all") -> Iterator[AffineMap]:
        """Linearise at several points, one after another.

        Args:
            X: instances along axis 0; a mapping from input name to such arrays where there are several
                inputs.
            rows: as in `at`.

        Yields:
            One map for each instance, in order.
        """
        if not isinstance(X, Mapping):
            for instance in np.asarray(X):
                yield self.at(instance, rows)
            return
        stacks = {name: np.asarray(values) for name, values in X.items()}
        for index in range(min(map(len, stacks.values()), default=0)):
            yield self.at({name: values[index] for name, values in stacks.items()}, rows)

    def _observe(self, feeds: Mapping[str, Array]) -> Trace:
        try:
            return observe(self._tracer, feeds, self.scope.active)
        except NonFiniteError:
            for name, value in self._auditor.run(feeds).items():  # in the graph's order: name the first one
                require_finite(name, value)
            raise

    def _lower(self, trace: Trace) -> LinearProgram:
        return lower(self.scope, trace, self.dtype, self._cache)

    def _rows(self, program: LinearProgram, trace: Trace, rows: Rows) -> Array:
        return choose_rows(rows, np.concatenate([trace.values[name].ravel() for name, _ in program.outputs]))

    def _plan(self, program: LinearProgram, K: int) -> int:
        """Refuse a W that does not fit; return the bytes left for the sweep's blocks."""
        limit = limit_of(self.memory_limit)
        size = K * program.in_size * self.dtype.itemsize
        if size > limit:
            raise MemoryLimitError(
                f"W would have {K:,} × {program.in_size:,} entries, {readable(size)}, over the limit of "
                f"{readable(limit)}; ask for fewer rows (rows=3 for the three largest outputs, or a list of "
                "indices), for other outputs, or raise memory_limit"
            )
        return min(limit - size, 1 << 30)

    def _fresh_points(self, program: LinearProgram, trace: Trace) -> tuple[list[Neighbour], int]:
        """Points of the same region with what onnxruntime computes there, and how many were tried."""
        x = self._free_values(trace)

        def visit(z: Point) -> Neighbour | None:
            try:
                there = observe(self._prober, {**trace.feeds, **z}, self.scope.active)
            except NonFiniteError:
                return None
            there = Trace(there.feeds, {**there.values, **z})
            allowance = same_piece(program, self._lower(there), z, self.dtype, self._roundoff)
            return None if allowance is None else Neighbour(z, there, allowance)

        rays = draw_rays(program, x, self.dtype, self._roundoff)
        return neighbours(x, rays, FRESH_POINTS, visit)

    def _magnitudes(self, program: LinearProgram, trace: Trace, fresh: Sequence[Neighbour]) -> Magnitudes:
        """What rounding may do at each step, on either side, at x and all fresh points at once."""
        points = [self._free_values(trace), *(neighbour.point for neighbour in fresh)]
        block = {
            name: np.stack([point[name] for point in points]).astype(self.dtype) for name, _ in program.inputs
        }
        u = self._model_roundoff + unit_roundoff(self.dtype)
        errors: dict[str, Array] = {}
        for step, values in program.walk(block, [1.0] * len(points)):
            error = step_rounding(step, values, u)
            for index, neighbour in enumerate(fresh, start=1):
                if step.output in neighbour.allowance:
                    error[index] += neighbour.allowance[step.output][0]
            errors[step.output] = error
        return Magnitudes(
            errors, np.stack([_flat(point, program.inputs) for point in points]).astype(self.dtype)
        )

    def _verify(
        self,
        program: LinearProgram,
        composed: Composed,
        rows: Array,
        trace: Trace,
        fresh: Sequence[Neighbour],
        tried: int,
    ) -> Certificate:
        audited = {**self._auditor.run(trace.feeds), **trace.values}
        for step in program.steps:
            require_finite(step.output, audited[step.output])
        steps = check_steps(program, audited, self._roundoff)
        places = [(self._free_values(trace), trace), *((n.point, n.trace) for n in fresh)]
        seen = [
            Observation(_flat(point, program.inputs), _flat(there.values, program.outputs)[rows])
            for point, there in places
        ]
        at_x, in_region = check_points(composed, seen[0], seen[1:])
        guards = [guard for step in program.steps for guard in step.guards]
        return Certificate(
            steps=steps,
            at_x=at_x[0],
            at_x_over_bound=at_x[1],
            in_region=in_region[0],
            in_region_over_bound=in_region[1],
            points_tried=tried,
            points_held=len(fresh),
            ties=sum(guard.ties for guard in guards),
            guards=sum(guard.choice.size for guard in guards),
            reason=_reason(steps, at_x[1], in_region[1]),
        )

    def _answer(
        self,
        program: LinearProgram,
        composed: Composed,
        rows: Array,
        trace: Trace,
        certificate: Certificate,
        notes: tuple[str, ...],
    ) -> AffineMap:
        layers = tuple(
            Layer(
                step.node,
                step.op_type,
                step.output,
                step.shape,
                step.kind,
                share,
                tuple(name for name, _ in step.terms),
                tuple(L for _, L in step.terms),
                step.offset_block(),
            )
            for step, share in zip(program.steps, composed.shares, strict=True)
        )
        return AffineMap(
            composed.W,
            composed.b.astype(self.dtype),
            rows,
            program.kind,
            self._free_values(trace),
            {name: trace.values[name] for name, _ in program.outputs},
            layers,
            certificate,
            self.graph.name,
            self.graph.sha256,
            {
                "ilin": __version__,
                "onnxruntime": onnxruntime_session.version(),
                "numpy": np.__version__,
                "scipy": scipy.__version__,
                "python": platform.python_version(),
                "engine": self.engine,
                "direction": composed.direction,
                "dtype": str(self.dtype),
                "opsets": {domain or "ai.onnx": version for domain, version in self.graph.opsets.items()},
                "producer": self.graph.producer,
            },
            notes,
        )

    # -- sessions, each made when first needed --------------------------------------------------------

    @cached_property
    def _tracer(self) -> Session:
        """Takes out what the rules need."""
        inner = [name for name in self.scope.inputs if name not in self._graph_inputs]
        wanted = dict.fromkeys([*self.scope.observed, *inner])
        return Session(self.graph.proto, [n for n in wanted if n not in self._graph_inputs], self.providers)

    @cached_property
    def _auditor(self) -> Session:
        """Takes out every tensor that depends on x, to check step by step."""
        names = [name for node in self.scope.nodes for name in node.outputs if name in self.scope.active]
        return Session(self.graph.proto, names, self.providers)

    @property
    def _prober(self) -> Session:
        """Runs from the free tensors: the tracer itself, unless intermediate tensors are inputs."""
        return self._tracer if set(self.scope.inputs) <= self._graph_inputs else self._cut

    @cached_property
    def _cut(self) -> Session:
        """The model with the chosen intermediate tensors as further inputs."""
        inner = [name for name in self.scope.inputs if name not in self._graph_inputs]
        cut = with_inputs(self.graph.proto, inner, self._model_dtype)
        return Session(cut, [name for name in self._tracer.outputs if name not in inner], self.providers)

    @cached_property
    def _graph_inputs(self) -> set[str]:
        return {put.name for put in self.graph.inputs}

    @cached_property
    def _model_dtype(self) -> np.dtype[Any]:
        """The coarsest floating type that the model declares or casts to."""
        puts = (*self.graph.inputs, *self.graph.outputs)
        declared = [put.dtype for put in puts if put.dtype is not None and put.floating]
        declared += [cast for node in self.scope.nodes if (cast := floating_target(node)) is not None]
        return max(declared, key=unit_roundoff, default=np.dtype(np.float32))

    @property
    def _roundoff(self) -> float:
        """Unit roundoff of the coarser of the model's arithmetic and the composition's."""
        return max(self._model_roundoff, unit_roundoff(self.dtype))

    @property
    def _model_roundoff(self) -> float:
        return unit_roundoff(self._model_dtype)

    def _free_values(self, trace: Trace) -> dict[str, Array]:
        return {name: trace.values[name] for name in self.scope.inputs}


def compile(
    model: ModelSource,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    engine: EngineName = "auto",
    dtype: str = "float32",
    memory_limit: int | str | None = None,
    providers: Sequence[str] | None = None,
) -> CompiledModel:
    """Read a model and prepare it to be linearised at many points.

    Args:
        model: path of an ONNX file, its bytes, or an onnx.ModelProto.
        inputs: tensors to differentiate by, intermediate ones included; None for every floating-point
            graph input. The others are held at their values.
        outputs: tensors to explain, intermediate ones included; None for every floating-point graph output.
        engine: "sparse" multiplies explicit matrices over active units, "matrix-free" applies each step
            to dense blocks, "auto" chooses step by step.
        dtype: "float32" or "float64": the type that W and b are composed in.
        memory_limit: bytes, or a text such as "4GiB"; None for 80 % of what is available.
        providers: onnxruntime execution providers; the CPU's by default.

    Raises:
        ModelError: the model cannot be read, or onnxruntime does not accept it.
        UnsupportedError: it holds an operator, or a use of one, that cannot be linearised exactly.
        UnknownTensorError: a name that the graph does not have.
        OptionError: an option outside its range.
    """
    if engine not in ENGINES:
        raise OptionError(f"unknown engine {engine!r}; choose from {', '.join(ENGINES)}")
    if str(np.dtype(dtype)) not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    limit_of(memory_limit)
    graph = load(model)
    scope = scope_of(graph, inputs, outputs)
    return CompiledModel(
        graph, scope, engine, np.dtype(dtype), memory_limit, tuple(providers) if providers else None
    )


def linearize(model: ModelSource, x: Given, *, rows: Rows = "all", **options: Any) -> AffineMap:
    """`compile(model, **options).at(x, rows)` in one call."""
    return compile(model, **options).at(x, rows)


def choose_rows(rows: Rows, y: Array) -> Array:
    """Flat output indices for "all", the k largest outputs, or given indices.

    Raises:
        RowsError: indices outside the output, or rows that are none of these.
    """
    if isinstance(rows, str):
        if rows != "all":
            raise RowsError(
                f'rows {rows!r} is not understood; write "all", an integer k, or a list of indices'
            )
        return np.arange(len(y))
    if isinstance(rows, (int, np.integer)) and not isinstance(rows, bool):
        if not 1 <= rows <= len(y):
            raise RowsError(f"rows = {rows} asks for that many outputs, but the model has {len(y)}")
        return np.argsort(-y.astype(np.float64), kind="stable")[: int(rows)]
    chosen = np.asarray(rows).ravel()
    if chosen.dtype.kind not in "iu":  # an empty list too, which numpy takes for floating point
        raise RowsError(f'rows {rows!r} is not understood; write "all", an integer k, or a list of indices')
    outside = [int(row) for row in chosen if not -len(y) <= row < len(y)]
    if outside:
        raise RowsError(f"row {outside[0]} is outside the output's {len(y)} elements (0 to {len(y) - 1})")
    return np.where(chosen < 0, chosen + len(y), chosen)


def _flat(values: Mapping[str, Array], tensors: Sequence[tuple[str, tuple[int, ...]]]) -> Array:
    return np.concatenate([np.ravel(values[name]) for name, _ in tensors])


def _reason(steps: Check, at_x: float, in_region: float) -> str:
    """Why an answer is not verified, or nothing."""
    if not steps.passed:
        return f"node {steps.first_bad_node!r} is the first that differs from onnxruntime at x"
    if not at_x <= 1:
        return "W x + b differs from onnxruntime's output at x, though every step agrees"
    if not in_region <= 1:
        return "W z + b differs from onnxruntime's output at a fresh point of the region"
    return ""
