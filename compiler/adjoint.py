"""The reverse sweep as an ONNX model: emitted once per model, run by onnxruntime for any point and any rows.

Nothing in it depends on the point: what a point decides (slopes, winners, offsets, error bounds) and the
rows that are wanted (seeds, along the batch axis) are its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from ..runtime.emit import Builder
from ..runtime.errors import ModelError, OptionError
from ..runtime.primitives import Array, Sum
from ..runtime.program import LinearProgram, Step
from ..runtime.session import Session
from .sweep import Magnitudes, Sweep, seeds


@dataclass(frozen=True)
class Adjoint:
    """The emitted model and its session, for one structure of the linear program."""

    model: onnx.ModelProto
    session: Session
    steps: tuple[
        int, ...
    ]  # those with an offset, a column of `shares` each; with bounds, those with an error
    reached: tuple[int, ...]  # program inputs that any output depends on
    providers: Sequence[str] | None = None
    _bounding: list[Adjoint] = field(default_factory=list)  # the one for bounds, once `sweep` needs it

    def rows(self, program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Rows of W, and what each step's offset adds to b.

        Args:
            program: one point's program, of the structure that the model was emitted for.
            rows: k flat output indices.
            dtype: as emitted.

        Returns:
            W, (k, N), and the shares, (steps, k) in float64.
        """
        found = self.session.run(_seeded(program, rows, dtype) | point_of(program, dtype))
        parts = [
            found[f"W/{name}"].reshape(len(rows), math.prod(shape))
            if i in self.reached
            else np.zeros((len(rows), math.prod(shape)), dtype)
            for i, (name, shape) in enumerate(program.inputs)
        ]
        shares = np.zeros((len(program.steps), len(rows)))
        if self.steps:
            shares[list(self.steps)] = found["shares"].T
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1), shares

    def bounds(
        self, program: LinearProgram, rows: Array, errors: Mapping[str, Array], dtype: np.dtype[Any]
    ) -> Array:
        """Bounds on what the steps' own errors add up to in the given rows. Emitted with `bounds`.

        Args:
            program: one point's program, of the structure that the model was emitted for.
            rows: k flat output indices.
            errors: step output to a bound on the error that evaluating the step makes, (P, *shape).
            dtype: as emitted.

        Returns:
            (P, k).
        """
        feeds = _seeded(program, rows, dtype) | point_of(program, dtype)
        for position in self.steps:
            step = program.steps[position]
            own = errors[step.output]
            feeds[f"error/{step.output}"] = np.ascontiguousarray(own.reshape(len(own), step.size).T, dtype)
        found: Array = self.session.run(feeds)["rounding"]
        return found.T

    def sweep(self, program: LinearProgram, magnitudes: Magnitudes, dtype: np.dtype[Any]) -> Sweep:
        """Return the sweep over one point's program, rounding bounds included."""

        def back(rows: Array) -> tuple[Array, Array, Array]:
            if not self._bounding:
                self._bounding.append(adjoint_of(program, dtype, self.providers, bounds=True))
            W, shares = self.rows(program, rows, dtype)
            return W, shares, self._bounding[0].bounds(program, rows, magnitudes.errors, dtype)

        return back


def adjoint_of(
    program: LinearProgram,
    dtype: np.dtype[Any],
    providers: Sequence[str] | None = None,
    bounds: bool = False,
) -> Adjoint:
    """Emit the transposed program as an ONNX model and open a session over it.

    Args:
        program: any point's program.
        dtype: floating type of the model.
        providers: onnxruntime execution providers, the CPU's by default.
        bounds: emit the sweep of error bounds, for `Adjoint.bounds`; else that of W, for `Adjoint.rows`.

    Raises:
        OptionError: in float64, a program with convolutions.
    """
    graph = Builder(dtype)
    swept = sweep_back(graph, program, bounds=bounds)
    model = graph.model(swept.outputs, "adjoint")
    try:
        session = Session(model, list(swept.outputs), providers, rewrite=True)
    except ModelError as error:
        if dtype == np.float64:
            raise OptionError(
                "onnxruntime cannot run this adjoint in float64 (it has no float64 Conv on the CPU); use "
                'dtype="float32", or engine="sparse"'
            ) from error
        raise
    return Adjoint(model, session, swept.steps, swept.reached, providers)


def point_of(program: LinearProgram, dtype: np.dtype[Any]) -> dict[str, Array]:
    """What one point decides, by the names of the adjoint model's inputs."""
    graph = Builder(dtype, collect_only=True)
    sweep_back(graph, program)
    return graph.arrays


@dataclass(frozen=True)
class Swept:
    """What a sweep left in a graph."""

    outputs: Mapping[str, Sequence[int | str]]  # to shapes
    steps: tuple[int, ...]
    reached: tuple[int, ...]


def sweep_back(
    graph: Builder, program: LinearProgram, given: Mapping[str, str] | None = None, *, bounds: bool = False
) -> Swept:
    """Emit the sweep from seeds at the outputs back to the inputs, or collect the arrays it is fed.

    Args:
        graph: where to; gets "W/{input}" and "shares" as outputs, or "rounding".
        program: one point's program.
        given: output name to the tensor that is its seed, (K, *shape); by default graph inputs
            "seed/{output}".
        bounds: bound the rounding errors, and leave W and the shares out.
    """
    adjoint: dict[str, list[str]] = {}
    for name, shape in program.outputs:
        seed = given[name] if given else graph.input(f"seed/{name}", graph.dtype, ["K", *shape])
        adjoint.setdefault(name, []).append(graph.shaped(seed, shape))
    collected: list[tuple[int, str]] = []
    for position in range(len(program.steps) - 1, -1, -1):
        step = program.steps[position]
        parts = adjoint.pop(step.output, None)
        if parts is None:
            continue
        graph.fixed, graph.subject = step.fixed, step.node
        if graph.collect_only and step.fixed:
            for name, _ in step.terms:
                adjoint.setdefault(name, []).append("")
            continue
        block = graph.added(parts, step.shape)
        if bounds and program.has_slot(step):
            collected.append((position, _bounded(graph, step, block)))
        if not bounds and step.offset is not None:
            collected.append((position, _share(graph, step, block)))
        for name, L in step.terms:
            adjoint.setdefault(name, []).append(L.T.emit(graph, block))
    made: dict[str, Sequence[int | str]] = {}
    totals = [total for _, total in collected]
    reached = tuple(i for i, (name, _) in enumerate(program.inputs) if name in adjoint)
    if bounds:
        graph.named("rounding", graph.node("Sum", *totals))
        made["rounding"] = ["K", "P"]
    for i in () if bounds else reached:
        name, shape = program.inputs[i]
        graph.named(f"W/{name}", graph.reshape(graph.added(adjoint[name], shape), shape))
        made[f"W/{name}"] = ["K", *shape]
    if totals and not bounds:
        graph.named("shares", graph.node("Concat", *totals, axis=1))
        made["shares"] = ["K", len(totals)]
    return Swept(made, tuple(position for position, _ in collected), reached)


def _seeded(program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> dict[str, Array]:
    given = seeds(program, rows, dtype)
    return {f"seed/{name}": seed for (name, _), seed in zip(program.outputs, given, strict=True)}


def _share(graph: Builder, step: Step, block: str) -> str:
    """⟨row, offset⟩, (K, 1): first summed over what the offset is broadcast along."""
    assert step.offset is not None
    offset = np.asarray(step.offset)
    summed = Sum(step.shape, offset.shape).emit(graph, block)
    column = graph.node("Reshape", graph.array(offset, "offset"), graph.constant([-1, 1]))
    return graph.node("MatMul", graph.reshape(summed, [offset.size]), column)


def _bounded(graph: Builder, step: Step, block: str) -> str:
    """⟨|row|, error⟩, (K, P)."""
    errors = graph.input(f"error/{step.output}", graph.dtype, [step.size, "P"])
    return graph.node("MatMul", graph.node("Abs", graph.reshape(block, [step.size])), errors)
