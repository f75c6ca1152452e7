"""The pipeline: load → expand → observe → lower → compose → verify."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops import Reading
from ..runtime.affine_map import AffineMap
from ..runtime.arrays import overflow_refused_later
from ..runtime.certificate import Certificate, Double, Level
from ..runtime.errors import InputError, ModelError, NonFiniteError, OptionError, UnsupportedError
from ..runtime.files import write_model
from ..runtime.html import facts
from ..runtime.memory import limit_of
from ..runtime.model_file import ModelSource
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram
from ..runtime.record import Record
from ..runtime.region import Region, region_of
from ..runtime.rounding import Arithmetic
from ..runtime.session import require_providers
from ..runtime.stack import NotStackable
from ..runtime.ties import Ties
from .answer import Asked, affine_map, jumps_of, kind_of, require_representable
from .bounds import last_rounding, rounding_bounds, running_bound
from .combined import combined_deviations, functional_of, rounding_by_norms
from .compose import Composed, Progress, compose, compose_stacked
from .engine import Engine
from .graph import Graph, load
from .in_blocks import InBlocks
from .lower import Cache, lower
from .many import answers, instances_of
from .neighbours import Neighbour, Point, find_neighbours
from .observer import Observer
from .paths import OffPath, Path, PathObserver, objection
from .plan import DIRECTIONS, ENGINES, Direction, EngineName, Plan, checks_of, machine_speed, plan_of
from .record import allowed, kept, record_of
from .rows import Rows, choose_rows, wording
from .runnable import runnable
from .scope import Scope, scope_of
from .slopes import check_slopes
from .sweep import Magnitudes
from .trace import Given, Trace, feeds_of, require_within, zeros_for
from .verify import Deviation, Evidence, certificate_of, deviations, rounding_at, says_nothing, visible

if TYPE_CHECKING:
    from .region import Survey

DTYPES = ("float32", "float64")
MODES = ("tangent", "frozen")
QUANTIZED = ("exact", "straight-through")
_FRESH, _DEEP = 1, 4  # fresh points that a certificate asks for, by default and on the deep level


@dataclass(frozen=True, repr=False, eq=False)
class CompiledModel:
    """A model, checked and prepared once, to be asked at many points. Made by `compile`."""

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
            rows: "all"; an integer k for the k largest outputs; or flat output indices.
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
        asked = self.asked(x, rows)
        if not materialize:
            return self._operator(asked)
        return self.answer(asked, self.compose(asked, progress))

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
        program = self._lower_double(trace)
        at_x = {name: trace.values[name] for name in self.scope.inputs}
        return region_of(kind_of(trace, program), at_x, partial(self._surveyed, trace, program), program)

    @overflow_refused_later()
    def asked(self, x: Given, rows: Rows) -> Asked:
        """Observe and lower at a point, and plan its rows. For the other stages, as `answer` is."""
        feeds, notes = feeds_of(self.graph, x)
        trace = self._observer.trace(feeds)
        for name in self.scope.inputs:
            require_within(name, trace.values[name], self.dtype)
        program = self._lower(trace)
        chosen = choose_rows(rows, trace.stacked(program.outputs))
        plan = self._plan(program, len(chosen))
        return Asked(trace, program, chosen, plan, (*self.notes, *notes, *jumps_of(program)), wording(rows))

    @overflow_refused_later()
    def compose(self, asked: Asked, progress: Progress | None = None) -> Composed:
        """W and b, by the plan.

        Raises:
            MemoryLimitError: W would not fit.
            NonFiniteError: entries outside the range of the type.
        """
        asked.plan.require_fit()
        engine = self.prepared(asked.trace)._engine
        composed = compose(asked.program, asked.rows, asked.plan, engine, self.dtype, progress)
        require_representable(W=composed.W, b=composed.b.astype(self.dtype))
        return composed

    @overflow_refused_later()
    def compose_together(self, asked: Sequence[Asked]) -> list[Composed]:
        """W and b of several points in one sweep.

        Raises:
            NotStackable: the network does more than treat a batch image by image.
            NonFiniteError: entries outside the range of the type.
        """
        programs, rows = [one.program for one in asked], [one.rows for one in asked]
        kept = self.prepared(asked[0].trace)
        if any(self.prepared(one.trace) is not kept for one in asked):
            raise NotStackable
        found = compose_stacked(programs, rows, kept._engine, self.dtype)
        for composed in found:
            require_representable(W=composed.W, b=composed.b.astype(self.dtype))
        return found

    def answer(self, asked: Asked, composed: Composed) -> AffineMap:
        """The map, with a certificate to be made when it is read."""
        certify = partial(self._certify, asked, composed)
        survey = partial(self.survey, asked.trace)
        given = (asked, composed.W, composed.b, composed.shares)
        affine = affine_map(self.graph, self.scope, *given, certify, survey, partial(self.ties, asked))
        return replace(affine, recorder=partial(self._record, asked, composed))

    def in_blocks(self, asked: Asked, budget: int) -> tuple[InBlocks, Evidence]:
        """W in blocks of rows for a caller that keeps them elsewhere, and what each is to be compared with.

        Args:
            asked: the question.
            budget: bytes that a sweep's blocks may take.
        """
        plan = self._plan(asked.program, len(asked.rows), budget)
        asked = replace(asked, plan=plan)
        evidence = self._evidence(asked)
        engine = self.prepared(asked.trace)._engine
        magnitudes = self._magnitudes(asked, evidence)
        given = (asked.program, asked.rows, plan, engine, self.dtype, magnitudes)
        return InBlocks(*given), evidence

    def judged(self, asked: Asked, evidence: Evidence, compared: Sequence[Deviation]) -> Certificate:
        """The default certificate of a map that was compared row by row. For the other stages."""
        found = certificate_of(asked.program, evidence, compared)
        if found.verified and evidence.fresh:
            return found
        return certificate_of(asked.program, self._audited(asked, evidence), compared)

    @overflow_refused_later()
    def _operator(self, asked: Asked) -> AffineMap:
        """The map with W as an operator."""
        from ..runtime.operator import bias_of

        W = self.prepared(asked.trace)._engine.operator(self.engine, asked.program, asked.rows, self.dtype)
        b = bias_of(asked.program, asked.rows, self.dtype)
        require_representable(b=b)
        certify = partial(self._certify_operator, asked, W, b)
        survey = partial(self.survey, asked.trace)
        given = (asked, W, b, None, certify, survey)
        return affine_map(self.graph, self.scope, *given, partial(self.ties, asked))

    def plan(self, x: Given = None, rows: Rows = "all") -> Plan:
        """What `at` would do and what it would cost: engine, passes, peak bytes, an estimate of the time.

        Args:
            x: as in `at`; None for zeros, with every free dimension set to 1. The model is run once, for
                its shapes.
            rows: as in `at`.

        Raises:
            As `at`.
        """
        trace, program = self._anywhere(x)
        plan = self._plan(program, len(choose_rows(rows, trace.stacked(program.outputs))))
        plan = replace(plan, speed=machine_speed())
        return replace(plan, checks=checks_of(plan, program, self.dtype))

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
        save_adjoint(self._on_the_only_way(x)[1], self.dtype, path, facts)

    def export_explainer(self, path: str | os.PathLike[str], rows: Rows = "all", x: Given = None) -> None:
        """Write one ONNX model x → (y, W, b, rows) that explains any x wherever onnxruntime runs.

        Slopes and winners are computed in the graph itself. Shapes are those of x.

        Args:
            path: file to write, whole or not at all.
            rows: as in `at`; for an integer k the largest outputs are found at each x.
            x: as in `plan`: for the shapes only.

        Raises:
            UnsupportedError: a node whose slopes cannot be computed in the graph.
            OptionError: onnxruntime cannot run it in this dtype.
            OutputError: the path cannot be written, or the model is over protobuf's 2 GB.
        """
        from .adjoint import require_runnable
        from .explainer import export_explainer

        trace, program = self._on_the_only_way(x)
        taken = self.prepared(trace)
        model = export_explainer(taken.graph, taken.scope, program, rows, self.dtype)
        require_runnable(model, self.dtype, surroundings=taken.graph.surroundings)
        write_model(path, model)

    def _anywhere(self, x: Given) -> tuple[Trace, LinearProgram]:
        """A program of the model, at x or at zeros, for what does not depend on the point."""
        if x is not None:
            asked = self._observer.trace(feeds_of(self.graph, x)[0])
            return asked, self._lower(asked)
        try:
            trace = self._observer.trace(feeds_of(self.graph, zeros_for(self.graph))[0])
            return trace, self._lower(trace)
        except (ModelError, NonFiniteError) as error:
            raise InputError(
                f"zeros, which stand in for an x, do not go through this model; give an x ({error})"
            ) from error

    def _on_the_only_way(self, x: Given) -> tuple[Trace, LinearProgram]:
        """The same, for a graph that is written for any point."""
        trace, program = self._anywhere(x)
        if trace.path is not None and trace.path.depends_on_x:
            raise UnsupportedError(
                f"which nodes of {self.graph.name!r} run depends on x, and this is one graph for any x"
            )
        return trace, program

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
        kept = self.prepared(trace)
        return lower(kept.scope, trace, self.dtype, kept._cache)

    def prepared(self, trace: Trace) -> Path | CompiledModel:
        """What is kept for the way of a point. For the other stages, as `answer` is."""
        return trace.path or self

    def _look(self, trace: Trace, z: Point) -> tuple[Trace, LinearProgram] | None:
        """The model at another value of the free tensors, or None where it is not finite or does not run."""
        try:
            there = self._observer.probe(trace, z)
        except (ModelError, NonFiniteError, OffPath):
            return None
        return there, self._lower(there)

    def survey(self, trace: Trace, *, tied: bool = False) -> Survey:
        """The geometry of the region at a point, of the network lowered in float64. For the other stages.

        Args:
            trace: the point.
            tied: leave out the choices that have no ties there.

        Raises:
            UnsupportedError: x decides which way it takes through the model, which has no half-spaces.
        """
        return self._surveyed(trace, self._lower_double(trace), tied=tied)

    def _surveyed(self, trace: Trace, program: LinearProgram, *, tied: bool = False) -> Survey:
        """The same of a program that is lowered already."""
        from .region import Survey

        if trace.path is not None and trace.path.depends_on_x:
            raise UnsupportedError(
                "x decides which branches or how many iterations the model runs, and nobody knows where that "
                "changes; ask for the region of a part of the model without such nodes"
            )

        def look(z: Point) -> LinearProgram:
            return self._lower_double(self._observer.probe(trace, z))

        engine = self.prepared(trace)._engine
        return Survey(program, trace, look, engine, limit_of(self.memory_limit), tied=tied)

    def _lower_double(self, trace: Trace) -> LinearProgram:
        kept = self.prepared(trace)
        return lower(kept.scope, trace, np.float64, self._double if kept is self else {})

    @overflow_refused_later()
    def ties(self, asked: Asked) -> Ties:
        """The ties at a point, examined in the network lowered in float64. For the other stages.

        Raises:
            UnsupportedError: as `survey`.
        """
        from .ties import examine

        kept = self.prepared(asked.trace)
        survey = self.survey(asked.trace, tied=True)
        return examine(survey, kept.scope, asked, kept._engine, limit_of(self.memory_limit))

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

    @overflow_refused_later()
    def _certify(self, asked: Asked, composed: Composed, level: Level) -> Certificate:
        """Verify a map against onnxruntime, on the default level or deeply.

        By default W z + b is checked as a whole, at x and at fresh points. Where that fails, or no fresh
        point speaks for W, every step is checked by itself too, so that the first that is wrong is named.
        """
        program, rows = asked.program, asked.rows
        if level == "default":
            evidence = self._evidence(asked)
            if evidence.fresh:
                found = certificate_of(program, evidence, self._combined(asked, composed, evidence))
                x, y = asked.trace.stacked(program.inputs), asked.trace.answered(program.outputs)[rows]
                if found.verified and not visible(found.at_x, x, y):
                    return found
            evidence = self._audited(asked, evidence)
        else:
            evidence = self._audited(asked, self._evidence(asked, _DEEP))
        magnitudes = self._magnitudes(asked, evidence)
        kept = self.prepared(asked.trace)._engine
        rounding = rounding_bounds(program, rows, composed, asked.plan, kept, self.dtype, magnitudes)
        compared = deviations(composed.W, composed.b, program, rows, evidence, rounding)
        x, y = asked.trace.stacked(program.inputs), asked.trace.answered(program.outputs)[rows]
        vacuous = says_nothing(composed.W, composed.shares, x, y, compared[0][0], rounding[0])
        double = None
        if level == "deep" and self.dtype != np.float64:
            double = self._in_double(asked, composed, evidence, rounding)
        return certificate_of(program, evidence, compared, level=level, vacuous=vacuous, double=double)

    def _combined(self, asked: Asked, composed: Composed, evidence: Evidence) -> list[Deviation]:
        """Deviations of W z + b, against bounds for one combination of the rows."""
        program, rows, plan = asked.program, asked.rows, asked.plan
        arithmetic = Arithmetic.of(self._observer.of(asked.trace).dtype) + Arithmetic.of(self.dtype)
        kept = self.prepared(asked.trace)._engine
        if len(plan.legs) == 1 and plan.legs[0].direction == "reverse":
            magnitudes = rounding_by_norms(program, evidence, self.dtype, arithmetic)
            functional = functional_of(program, rows)
            inside = float(kept.functional_bounds(program, functional, self.dtype, magnitudes)[0, 0])
            last = last_rounding(program, composed, magnitudes, self.dtype)[0]
            return combined_deviations(composed.W, composed.b, program, rows, evidence, inside, last)
        magnitudes = self._magnitudes(asked, evidence)
        rounding = rounding_bounds(program, rows, composed, plan, kept, self.dtype, magnitudes)
        return deviations(composed.W, composed.b, program, rows, evidence, rounding)

    def _in_double(self, asked: Asked, composed: Composed, evidence: Evidence, rounding: Array) -> Double:
        """The map against the same in float64.

        Raises:
            MemoryLimitError: W in float64 would not fit.
        """
        from .double import compared_in_double

        kept, wide = self.prepared(asked.trace), np.dtype(np.float64)
        program = lower(kept.scope, asked.trace, wide, self._double if kept is self else {})
        engines = kept._engine.candidates("auto", wide)
        limit = limit_of(self.memory_limit)
        plan = plan_of(program, len(asked.rows), wide, engines=engines, direction="auto", limit=limit)
        plan.require_fit()
        again = compose(program, asked.rows, plan, kept._engine, wide)
        points = np.stack([place.stacked(program.inputs) for place in evidence.places]).astype(wide)
        arithmetic = Arithmetic.of(self._observer.of(asked.trace).dtype)
        found = compared_in_double(composed, again, program, points, rounding, arithmetic)
        return self._inside(replace(asked, program=program, plan=plan), composed, again, found, rounding[0])

    def _inside(
        self, asked: Asked, composed: Composed, wide: Composed, found: Double, rounding: Array
    ) -> Double:
        """The same, with W against the model in float64 at points inside the region.

        Args:
            asked: the question, with the network lowered in float64 and its plan.
            composed: the map.
            wide: the same in float64.
            found: so far.
            rounding: (K,), what rounding may do to W x + b in the model's and the map's own types.
        """
        from .inside import LeftOutError, compared_inside, evaluated_inside, off_along

        kept, trace = self.prepared(asked.trace), asked.trace
        if asked.program.kind is Kind.SMOOTH:  # Jacobians at other values, those that each type computes
            return replace(found, left_out="smooth, so valid at x only")
        given = (asked, kept._engine)
        off = off_along(composed, wide, *given, Arithmetic.of(self.dtype))
        found = replace(found, W_over_bound=off)
        if found.otherwise:  # the model in float64 is of another piece there
            left_out = f"not comparable: units on the other side in float64: {found.otherwise}"
            return replace(found, left_out=left_out)
        try:
            seen = evaluated_inside(kept.graph, kept.scope, self.survey(trace), asked, rounding, _DEEP)
        except (LeftOutError, UnsupportedError) as error:
            return replace(found, left_out=str(error))
        return compared_inside(found, seen, wide, *given)

    @overflow_refused_later()
    def _record(self, asked: Asked, composed: Composed) -> Record:
        """Fresh points and bounds, to compare a map with the model again; made for maps that are saved."""
        program, rows = asked.program, asked.rows
        evidence = self._evidence(asked, _DEEP)
        engine, magnitudes = self.prepared(asked.trace)._engine, self._magnitudes(asked, evidence)
        rounding = rounding_bounds(program, rows, composed, asked.plan, engine, self.dtype, magnitudes)
        bounds = allowed(program, rows, evidence.places, rounding)
        fresh = kept(evidence.fresh)
        return record_of(program, asked.trace, fresh, bounds[: 1 + len(fresh)])

    @overflow_refused_later()
    def _certify_operator(self, asked: Asked, W: Any, b: Array, level: Level) -> Certificate:
        """The same where W is an operator: the bounds come from a forward sweep instead of W's rows."""
        evidence = self._evidence(asked, _DEEP if level == "deep" else _FRESH)
        rounding = running_bound(asked.program, asked.rows, self._magnitudes(asked, evidence))
        compared = deviations(W, b, asked.program, asked.rows, evidence, rounding)
        if level == "default":
            return self.judged(asked, evidence, compared)
        return certificate_of(asked.program, self._audited(asked, evidence), compared, level=level)

    @overflow_refused_later()
    def _evidence(self, asked: Asked, count: int = _FRESH) -> Evidence:
        """What a map at a point is compared with: the model at x and at so many fresh points."""
        program, trace = asked.program, asked.trace
        coarser = Arithmetic.of(self._observer.of(trace).dtype).coarser(Arithmetic.of(self.dtype))
        look = partial(self._look, trace)
        if program.kind is Kind.SMOOTH:  # such a map holds at x and nowhere else
            fresh, tried = list[Neighbour](), 0
        else:
            fresh, tried = find_neighbours(program, trace, look, self.dtype, coarser, count)
        objected = objection([trace, *(near.trace for near in fresh)], self.scope.outputs)
        return Evidence(trace, fresh, tried, coarser, objection=objected)

    def _audited(self, asked: Asked, evidence: Evidence) -> Evidence:
        """The same with every tensor at x, and the slopes of smooth steps."""
        trace, program = asked.trace, asked.program
        audited = {**trace.values, **self._observer.of(trace).audit(trace.feeds)}
        slopes = None
        if program.kind is Kind.SMOOTH:
            ours = Arithmetic.of(self.dtype)
            slopes = check_slopes(self.prepared(trace).scope, program, trace, audited, ours)
        return replace(evidence, audited=audited, slopes=slopes)

    def _magnitudes(self, asked: Asked, evidence: Evidence) -> Magnitudes:
        """What rounding may do at each step; values of the plan's joints are held besides."""
        arithmetic = Arithmetic.of(self._observer.of(asked.trace).dtype) + Arithmetic.of(self.dtype)
        return rounding_at(asked.program, evidence, self.dtype, arithmetic, asked.plan.joints)


def compile(
    model: ModelSource,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    engine: EngineName = "auto",
    direction: Direction = "auto",
    dtype: str = "float32",
    mode: str = "tangent",
    quantized: str = "exact",
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
        dtype: "float32" or "float64": the type that W and b are composed in.
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
    if engine not in ENGINES:
        raise OptionError(f"unknown engine {engine!r}; choose from {', '.join(ENGINES)}")
    if direction not in DIRECTIONS:
        raise OptionError(f"unknown direction {direction!r}; choose from {', '.join(DIRECTIONS)}")
    if dtype not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    if mode not in MODES:
        raise OptionError(f"unknown mode {mode!r}; choose from {', '.join(MODES)}")
    if quantized not in QUANTIZED:
        raise OptionError(f"unknown value {quantized!r} of quantized; choose from {', '.join(QUANTIZED)}")
    limit_of(memory_limit)
    require_providers(providers)
    if isinstance(custom_ops, str | bytes | os.PathLike):
        raise OptionError(f"custom_ops must be a list of paths, not {custom_ops!r}")
    graph = load(model, custom_ops)
    kept = Engine(providers, graph.weights)
    kept.candidates(engine, np.dtype(dtype))
    reading = Reading.of(mode, quantized)
    found = runnable(graph, lambda one: scope_of(one, inputs, outputs, reading), providers)
    options = (np.dtype(dtype), engine, direction, memory_limit)
    return CompiledModel(
        found.graph, found.scope, *options, (*found.scope.notes, *found.notes), found.observer, kept
    )


def linearize(model: ModelSource, x: Given, *, rows: Rows = "all", **options: Any) -> AffineMap:
    """`compile(model, **options).at(x, rows)` in one call."""
    return compile(model, **options).at(x, rows)
