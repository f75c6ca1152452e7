"""The pipeline: load → observe → lower → compose → verify."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..runtime.affine_map import AffineMap
from ..runtime.errors import InputError, MemoryLimitError, NonFiniteError, OptionError
from ..runtime.memory import limit_of, readable
from ..runtime.program import LinearProgram
from ..runtime.rounding import Arithmetic
from .answer import affine_map
from .compose import Progress, compose
from .engine import ENGINES, Engine, EngineName
from .graph import Graph, ModelSource, load
from .lower import Cache, lower
from .observer import Observer
from .region import Point, find_neighbours
from .rows import Rows, choose_rows
from .scope import Scope, scope_of
from .trace import Given, Trace, feeds_of
from .verify import certify, rounding_at

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class CompiledModel:
    """A model, checked and prepared once, to be asked at many points. Made by `compile`."""

    graph: Graph
    scope: Scope
    dtype: np.dtype[Any]  # that W and b are composed in
    memory_limit: int | str | None
    _observer: Observer
    _engine: Engine
    _cache: Cache  # lowered nodes that do not depend on the point

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
        trace = self._observer.trace(feeds)
        program = self._lower(trace)
        chosen = choose_rows(rows, trace.stacked(program.outputs))
        budget = self._plan(program, len(chosen))
        theirs, ours = Arithmetic.of(self._observer.dtype), Arithmetic.of(self.dtype)
        fresh, tried = find_neighbours(
            program, trace, partial(self._look, trace), self.dtype, theirs.coarser(ours)
        )
        composed = compose(
            program,
            chosen,
            engine=self._engine,
            dtype=self.dtype,
            magnitudes=rounding_at(program, trace, fresh, self.dtype, theirs + ours),
            budget=budget,
            progress=progress,
        )
        audited = {**self._observer.audit(trace.feeds), **trace.values}
        certificate = certify(program, composed, chosen, trace, audited, fresh, tried, theirs.coarser(ours))
        return affine_map(self.graph, program, composed, chosen, trace, certificate, self._engine.name, notes)

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
        counts = {name: len(values) if values.ndim else None for name, values in stacks.items()}
        if len(set(counts.values())) > 1 or None in counts.values():
            raise InputError(f"every input needs as many instances along axis 0 as the others, not {counts}")
        for index in range(next(iter(counts.values()), 0) or 0):
            yield self.at({name: values[index] for name, values in stacks.items()}, rows)

    def _lower(self, trace: Trace) -> LinearProgram:
        return lower(self.scope, trace, self.dtype, self._cache)

    def _look(self, trace: Trace, z: Point) -> tuple[Trace, LinearProgram] | None:
        """The model at another value of the free tensors, or None where it is not finite there."""
        try:
            there = self._observer.probe(trace, z)
        except NonFiniteError:
            return None
        return there, self._lower(there)

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
        engine: "sparse" multiplies explicit matrices over live units; "matrix-free" applies each step to
            dense blocks; "adjoint" runs the reverse sweep in onnxruntime as an emitted model; "auto" takes
            the last for large networks in float32 and "matrix-free" otherwise.
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
    if dtype not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    limit_of(memory_limit)
    graph = load(model)
    scope = scope_of(graph, inputs, outputs)
    observer = Observer(graph, scope, providers)
    return CompiledModel(graph, scope, np.dtype(dtype), memory_limit, observer, Engine(engine, providers), {})


def linearize(model: ModelSource, x: Given, *, rows: Rows = "all", **options: Any) -> AffineMap:
    """`compile(model, **options).at(x, rows)` in one call."""
    return compile(model, **options).at(x, rows)
