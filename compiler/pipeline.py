"""The pipeline: load → expand → observe → lower → compose → certify."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..ops import Reading
from ..runtime.affine_map import AffineMap
from ..runtime.arrays import overflow_refused_later
from ..runtime.errors import ModelError, NonFiniteError, OptionError, UnsupportedError
from ..runtime.files import write_model
from ..runtime.html import facts
from ..runtime.largest import entries_of
from ..runtime.memory import limit_of
from ..runtime.model_file import ModelSource
from ..runtime.program import LinearProgram
from ..runtime.region import Region, region_of
from ..runtime.stack import NotStackable
from ..runtime.ties import Ties
from .answer import Asked, affine_map, jumps_of, kind_of, require_representable, require_visible
from .anywhere import anywhere, on_the_only_way
from .certify import certificate_for, certificate_for_operator, record_for
from .compose import Composed, compose, compose_stacked
from .engine import Engine
from .evidence import Case
from .graph import Graph, load
from .lower import Cache, lower
from .many import answers, instances_of
from .neighbours import Point
from .observer import Observer
from .options import DType, Mode, Options, Quantized, dtype_named, require_options
from .paths import OffPath, Path, PathObserver, PathTrace
from .plan import Direction, EngineName, Plan, checks_of, machine_speed, plan_of
from .rows import Rows, choose_rows, fewer, wording
from .runnable import runnable
from .scope import Scope, scope_of
from .sweep import Progress
from .trace import Given, Trace, feeds_of, require_within

if TYPE_CHECKING:
    from .region import Survey


@dataclass(frozen=True, repr=False, eq=False)
class CompiledModel:
    """A model, checked and prepared once, to be asked at many points. Made by `compile`.

    Methods with an underscore are the stages by themselves, for the package's own modules.
    """

    graph: Graph
    scope: Scope
    dtype: np.dtype[Any]  # that W and b are composed in
    engine: EngineName
    direction: Direction
    memory_limit: int | str | None
    notes: tuple[str, ...]  # on how the model is run, where it is not simply by onnxruntime
    _observer: Observer | PathObserver
    _engine: Engine
    _cache: Cache = field(default_factory=dict)  # lowered nodes that do not depend on the point
    _double: Cache = field(default_factory=dict)  # the same in float64, for regions
    _plans: dict[Any, Plan] = field(default_factory=dict)  # by structure and number of rows

    def at(
        self, x: Given, rows: Rows = "all", *, materialize: bool = True, progress: Progress | None = None
    ) -> AffineMap:
        """Linearise at one point.

        Args:
            x: an array where the model has one input, else a mapping from graph input name to array.
                Inputs that are not differentiated are held at their values. A missing leading batch axis
                of 1 is added.
            rows: "all"; "top3" or 3 for the three largest outputs, all where there are fewer; or a list of
                flat output indices, so that [3] is output 3. (On the command line, where all is text,
                `--rows 3` is output 3.) With several outputs, the largest are entries of the first one that
                depends on x; name another one in `outputs` of `compile`. "all" is all entries of all.
            materialize: make W. Without it `W` is a scipy LinearOperator, which multiplies by one sweep
                through the network for each vector, and b is not split by layers.
            progress: called with the passes done and their number.

        Returns:
            The exact affine map at x and on the linear region around it. Its `certificate`, the verification
            against onnxruntime, is made when it is first read.

        Raises:
            InputError: x does not fit the model, or holds NaN or infinity.
            RowsError: rows outside the output.
            MemoryLimitError: W would not fit.
            NonFiniteError: a value at x, or an entry of W or b, outside the range of its type.
            UnsupportedError: a use of an operator that cannot be lowered exactly.
        """
        asked = self._asked(x, rows)
        if not materialize:
            return self._operator(asked)
        return self._answer(asked, self._compose(asked, progress))

    @overflow_refused_later()
    def region(self, x: Given) -> Region:
        """The linear region of a point by itself: one run of the model there, and no W.

        Args:
            x: as in `at`.

        Returns:
            The same as `at(x).region`.

        Raises:
            InputError: x does not fit the model, or holds NaN or infinity.
            NonFiniteError: a value at x outside the range of its type.
            UnsupportedError: a use of an operator that cannot be lowered exactly.
        """
        trace = self._observer.trace(feeds_of(self.graph, x)[0])
        program = self._lowering_in_double(trace)(trace)
        at_x = {name: trace.values[name] for name in self.scope.inputs}
        return region_of(kind_of(trace, program), at_x, partial(self._surveyed, trace, program), program)

    @overflow_refused_later()
    def _asked(self, x: Given, rows: Rows) -> Asked:
        """Observe and lower at a point, and plan its rows."""
        feeds, notes = feeds_of(self.graph, x)
        trace = self._observer.trace(feeds)
        for name in self.scope.inputs:
            require_within(f"tensor {name!r}", trace.values[name], self.dtype)
        program = self._lower(trace)
        leading = entries_of(program.leading, dict(program.outputs))
        chosen = choose_rows(rows, trace.stacked(program.outputs), leading)
        plan = self._plan(program, len(chosen))
        said = (*self.notes, *notes, *fewer(rows, chosen), *jumps_of(program))
        return Asked(trace, program, chosen, plan, said, wording(rows))

    @overflow_refused_later()
    def _compose(self, asked: Asked, progress: Progress | None = None) -> Composed:
        """W and b, by the plan.

        Raises:
            MemoryLimitError: W would not fit.
            NonFiniteError: entries outside the range of the type.
        """
        asked.plan.require_fit()
        engine = self._prepared(asked.trace)._engine
        composed = compose(asked.program, asked.rows, asked.plan, engine, self.dtype, progress)
        require_representable(W=composed.W, b=composed.b.astype(self.dtype))
        require_visible(asked, composed.W)
        return composed

    @overflow_refused_later()
    def _compose_together(self, asked: Sequence[Asked]) -> list[Composed]:
        """W and b of several points in one sweep.

        Raises:
            NotStackable: the network does more than treat a batch image by image.
            NonFiniteError: entries outside the range of the type.
        """
        programs, rows = [one.program for one in asked], [one.rows for one in asked]
        kept = self._prepared(asked[0].trace)
        if any(self._prepared(one.trace) is not kept for one in asked):
            raise NotStackable
        found = compose_stacked(programs, rows, kept._engine, self.dtype)
        for one, composed in zip(asked, found, strict=True):
            require_representable(W=composed.W, b=composed.b.astype(self.dtype))
            require_visible(one, composed.W)
        return found

    def _answer(self, asked: Asked, composed: Composed) -> AffineMap:
        """The map, with a certificate to be made when it is read."""
        case = self._case(asked)
        affine = affine_map(
            self.graph,
            self.scope,
            asked,
            composed.W,
            composed.b,
            composed.shares,
            partial(certificate_for, case, composed),
            case.survey,
            partial(self._ties, asked),
        )
        return replace(affine, _recorder=partial(record_for, case, composed))

    def _case(self, asked: Asked) -> Case:
        """What an answer is verified with."""
        trace, way = asked.trace, self._prepared(asked.trace)
        return Case(
            asked,
            way.graph,
            way.scope,
            self._observer.of(trace),
            way._engine,
            self.dtype,
            self.memory_limit,
            self.scope.outputs,
            partial(self._look, trace),
            lambda: self._lowering_in_double(trace)(trace),
            partial(self._survey, trace),
        )

    @overflow_refused_later()
    def _operator(self, asked: Asked) -> AffineMap:
        """The map with W as an operator."""
        from ..runtime.operator import bias_of

        W = self._prepared(asked.trace)._engine.operator(self.engine, asked.program, asked.rows, self.dtype)
        b = bias_of(asked.program, asked.rows, self.dtype)
        require_representable(b=b)
        case = self._case(asked)
        certify = partial(certificate_for_operator, case, W, b)
        given = (asked, W, b, None, certify, case.survey)
        return affine_map(self.graph, self.scope, *given, partial(self._ties, asked))

    def plan(self, x: Given = None, rows: Rows = "all") -> Plan:
        """What `at` would do and what it would cost: engine, passes, peak bytes, an estimate of the time.

        Args:
            x: as in `at`; None for zeros, with every free dimension set to 1. The model is run once, for
                its shapes.
            rows: as in `at`.

        Raises:
            As `at`.
        """
        asked = anywhere(self._asked, self.graph, x, rows)
        plan = replace(asked.plan, speed=machine_speed())
        return replace(plan, checks=checks_of(plan, asked.program, self.dtype))

    def save_adjoint(self, path: str | os.PathLike[str], x: Given = None) -> None:
        """Write the reverse sweep as an ONNX model that anybody can run without ilin.

        Its inputs are the wanted rows (unit vectors at the outputs, for any K) and what x decides: slopes,
        winners, offsets. They are documented in the file. Its outputs are rows of W and b's shares.

        Args:
            path: file to write, whole or not at all.
            x: as in `plan`: for the shapes only.

        Raises:
            OutputError: the path cannot be written, or the model is over protobuf's 2 GB.
        """
        from .adjoint import save_adjoint

        facts = {"ilin.model": self.graph.name, "ilin.model_sha256": self.graph.sha256}
        save_adjoint(on_the_only_way(self._asked, self.graph, x).program, self.dtype, path, facts)

    def export_explainer(self, path: str | os.PathLike[str], rows: Rows = "all", x: Given = None) -> None:
        """Write one ONNX model x → (y, W, b, rows) that explains any x wherever onnxruntime runs.

        Slopes and winners are computed in the graph itself. Shapes are those of x.

        Args:
            path: file to write, whole or not at all.
            rows: as in `at`; for "top3" the largest outputs are found at each x.
            x: as in `plan`: for the shapes only.

        Raises:
            UnsupportedError: a node whose slopes cannot be computed in the graph.
            OptionError: onnxruntime cannot run it in this dtype.
            OutputError: the path cannot be written, or the model is over protobuf's 2 GB.
        """
        from .adjoint import require_runnable
        from .explainer import export_explainer

        asked = on_the_only_way(self._asked, self.graph, x)
        taken = self._prepared(asked.trace)
        model = export_explainer(taken.graph, taken.scope, asked.program, rows, self.dtype)
        require_runnable(model, self.dtype, surroundings=taken.graph.surroundings)
        write_model(path, model)

    def at_many(self, X: Given, rows: Rows = "all", *, workers: int | None = None) -> Iterator[AffineMap]:
        """Linearise at several points, as many at a time as there are workers.

        Args:
            X: instances along axis 0; a mapping from input name to such arrays where there are several
                inputs; or an iterator of points as `at` takes them.
            rows: as in `at`.
            workers: points in work at once, each in a thread of its own. None for several points in one
                sweep where that can be, and else one worker for each four processors, as every point uses
                several by itself.

        Yields:
            One map for each instance, in order, the same as `at` gives. Only a few points are in work at a
            time, so memory does not grow with their number.

        Raises:
            As `at`, where the map of that instance would come.
        """
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise OptionError(f"workers must be a positive integer or None, not {workers!r}")
        return answers(self, instances_of(X), rows, workers)

    def _repr_html_(self) -> str:
        about = {
            "inputs": ", ".join(self.scope.inputs),
            "outputs": ", ".join(self.scope.outputs),
            "composed in": self.dtype,
            "engine": self.engine,
            "direction": self.direction,
        }
        return facts(f"CompiledModel of {self.graph.name}", about)

    def __repr__(self) -> str:
        names = f"{', '.join(self.scope.inputs)} → {', '.join(self.scope.outputs)}"
        return f"CompiledModel({self.graph.name!r}, {names}, {self.dtype}, engine {self.engine})"

    def __getstate__(self) -> None:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: always; it holds onnxruntime's sessions.
        """
        raise TypeError(
            "a compiled model holds onnxruntime's sessions and cannot be pickled: compile it again"
        )

    def _lower(self, trace: Trace) -> LinearProgram:
        kept = self._prepared(trace)
        return lower(kept.scope, trace, self.dtype, kept._cache)

    def _lowering_in_double(self, trace: Trace) -> Callable[[Trace], LinearProgram]:
        """The same in float64, for points on the way of one; for regions and the deep certificate."""
        kept = self._prepared(trace)
        cache = self._double if kept is self else {}
        return lambda there: lower(kept.scope, there, np.float64, cache)

    def _prepared(self, trace: Trace) -> Path | CompiledModel:
        """What is kept for the way of a point."""
        return trace.path if isinstance(trace, PathTrace) else self

    def _look(self, trace: Trace, z: Point) -> tuple[Trace, LinearProgram] | None:
        """The model at another value of the free tensors, or None where it is not finite or does not run."""
        try:
            there = self._observer.probe(trace, z)
        except (ModelError, NonFiniteError, OffPath):
            return None
        return there, self._lower(there)

    def _survey(self, trace: Trace, *, tied: bool = False) -> Survey:
        """The geometry of the region at a point, of the network lowered in float64.

        Args:
            trace: the point.
            tied: leave out the choices that have no ties there.

        Raises:
            UnsupportedError: x decides which way it takes through the model, which has no half-spaces.
        """
        return self._surveyed(trace, self._lowering_in_double(trace)(trace), tied=tied)

    def _surveyed(self, trace: Trace, program: LinearProgram, *, tied: bool = False) -> Survey:
        """The same of a program that is lowered already."""
        from .region import Survey

        if trace.decides:
            raise UnsupportedError(
                "x decides which branches or how many iterations the model runs, and nobody knows where that "
                "changes; ask for the region of a part of the model without such nodes"
            )

        double = self._lowering_in_double(trace)

        def look(z: Point) -> LinearProgram:
            return double(self._observer.probe(trace, z))

        engine = self._prepared(trace)._engine
        return Survey(program, trace, look, engine, limit_of(self.memory_limit), tied=tied)

    @overflow_refused_later()
    def _ties(self, asked: Asked) -> Ties:
        """The ties at a point, examined in the network lowered in float64.

        Raises:
            UnsupportedError: as `_survey`.
        """
        from .ties import examine

        kept = self._prepared(asked.trace)
        survey = self._survey(asked.trace, tied=True)
        return examine(survey, kept.scope, asked, kept._engine, limit_of(self.memory_limit))

    def _planned(self, asked: Asked, budget: int) -> Plan:
        """The plan whose blocks take so many bytes at most."""
        return self._plan(asked.program, len(asked.rows), budget)

    def _plan(self, program: LinearProgram, K: int, budget: int | None = None) -> Plan:
        key = (program.structure(), K, budget)
        if key not in self._plans:
            engines = self._engine.candidates(self.engine, self.dtype)
            self._plans[key] = plan_of(
                program,
                K,
                self.dtype,
                engines=engines,
                direction=self.direction,
                limit=limit_of(self.memory_limit),
                budget=budget,
            )
        return self._plans[key]


def compile(
    model: ModelSource,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    engine: EngineName = "auto",
    direction: Direction = "auto",
    dtype: DType = "float32",
    mode: Mode = "tangent",
    quantized: Quantized = "exact",
    memory_limit: int | str | None = None,
    providers: Sequence[str] | None = None,
    custom_ops: Sequence[str | os.PathLike[str]] = (),
) -> CompiledModel:
    """Read a model and prepare it to be linearised at many points.

    Args:
        model: path of an ONNX file, its bytes, or an onnx.ModelProto.
        inputs: tensors to differentiate by, intermediate ones included; None for every floating-point
            graph input. The others are held at their values.
        outputs: tensors to explain, intermediate ones included; None for every floating-point graph output.
        engine: "sparse" multiplies explicit matrices over live units; "matrix-free" applies each step to
            dense blocks; "adjoint" runs the reverse sweep in onnxruntime as an emitted model; "fused" skips
            dead units in compiled kernels, and needs the extra `ilin[fast]`; "auto" takes
            what a model of the cost finds cheapest (`CompiledModel.plan` tells).
        direction: "reverse" carries rows back from the outputs, "forward" columns on from the inputs,
            "cut" joins two or more sweeps at narrow layers; "auto" takes the cheapest.
        dtype: "float32" or "float64", or numpy's types: what W and b are composed in.
        mode: how smooth operators are read. "tangent": by their Jacobian at x, so that W is the network's
            Jacobian and b = F(x) - W x. "frozen": gates, attention weights and normalisation denominators are
            held at their values, so that gated and attention networks become W x + b at x with b from
            the parameters alone. Either holds at x only; without smooth operators they are the same.
        quantized: how quantisation is read. "exact": as locally constant, which it is. "straight-through":
            as linear inside its range, with each rounding bounded by half a step of the grid.
        memory_limit: bytes, or a text such as "4GiB"; None for 80 % of what is available.
        providers: onnxruntime execution providers; the CPU's by default.
        custom_ops: paths of shared libraries that implement operators of other domains for onnxruntime.

    Raises:
        ModelError: the model cannot be read, or onnxruntime does not accept it.
        UnsupportedError: it holds an operator, or a use of one, that cannot be linearised exactly.
        UnknownTensorError: a name that the graph does not have.
        OptionError: an option outside its range, or a library that cannot be loaded.
    """
    require_options(
        engine=engine,
        direction=direction,
        dtype=dtype_named(dtype),
        mode=mode,
        quantized=quantized,
        memory_limit=memory_limit,
        providers=providers,
        custom_ops=custom_ops,
    )
    graph = load(model, custom_ops)
    kept = Engine(providers, graph.weights)
    kept.candidates(engine, np.dtype(dtype))
    reading = Reading.of(mode, quantized)
    found = runnable(graph, lambda one: scope_of(one, inputs, outputs, reading), providers)
    options = (np.dtype(dtype), engine, direction, memory_limit)
    return CompiledModel(
        found.graph, found.scope, *options, (*found.scope.notes, *found.notes), found.observer, kept
    )


def linearize(
    model: ModelSource,
    x: Given,
    *,
    rows: Rows = "all",
    materialize: bool = True,
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> AffineMap:
    """`compile(model, **options).at(x, rows, materialize=materialize, progress=progress)` in one call."""
    return compile(model, **options).at(x, rows, materialize=materialize, progress=progress)
