"""The reverse sweep as an ONNX model: emitted once per model, run by onnxruntime for any point and any rows.

Nothing in it depends on the point: what a point decides (slopes, winners, offsets, error bounds) and the
rows that are wanted (seeds, along the batch axis) are its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..runtime.emit import Builder
from ..runtime.errors import ModelError, OptionError
from ..runtime.primitives import Array, Sum
from ..runtime.program import LinearProgram, Step
from ..runtime.session import Session
from .sweep import Magnitudes, Sweep, Swept, seeds

_DESCRIPTION = """Rows of W of a network's affine map F(z) = W z + b, by its reverse sweep.
seed_i: (K, *shape of output i), the linear functionals of the outputs that are wanted, such as unit vectors.
at_x_i: what the activation pattern at x decides, in the order of the sweep.
error_i: (size, P), bounds on the error of a step at P points.
W_i: (K, *shape of input i). shares: (K, S), what each offset adds to b. rounding: (K, P), bounds on
|W z + b - F(z)|."""


@dataclass(frozen=True)
class Adjoint:
    """The emitted model and its session, for one structure of the linear program."""

    model: onnx.ModelProto
    session: Session
    slots: tuple[int, ...]  # steps whose error is an input
    offsets: tuple[int, ...]  # steps that have an offset
    reached: tuple[int, ...]  # program inputs that any output depends on

    def sweep(self, program: LinearProgram, magnitudes: Magnitudes | None, dtype: np.dtype[Any]) -> Sweep:
        """Return the sweep over one point's program, with bounds where the model was emitted with them."""
        point = dict(_emitted(program, dtype, collect_only=True).arrays)
        for position in self.slots if magnitudes else ():
            assert magnitudes is not None
            step = program.steps[position]
            none = np.zeros((magnitudes.count, *step.shape))
            errors = magnitudes.errors.get(step.output, none)
            point[f"error_{position}"] = np.ascontiguousarray(errors.reshape(len(errors), -1).T.astype(dtype))

        def back(rows: Array) -> Swept:
            given = seeds(program, rows, dtype)
            feeds = {f"seed_{i}": given[i] for i in range(len(given))}
            found = self.session.run({**feeds, **point})
            W = np.concatenate(
                [
                    found[f"W_{i}"].reshape(len(rows), -1)
                    if i in self.reached
                    else np.zeros((len(rows), int(np.prod(shape, dtype=np.int64))), dtype)
                    for i, (_, shape) in enumerate(program.inputs)
                ],
                axis=1,
            )
            shares = np.zeros((len(program.steps), len(rows)))
            if self.offsets:
                shares[list(self.offsets)] = found["shares"].T
            return Swept(W, shares, found["rounding"].T if magnitudes else None)

        return back


def adjoint_of(
    program: LinearProgram,
    dtype: np.dtype[Any],
    providers: Sequence[str] | None = None,
    *,
    bounds: bool = False,
) -> Adjoint:
    """Emit the transposed program as an ONNX model and open a session over it."""
    built = _emitted(program, dtype, collect_only=False, bounds=bounds)
    outputs: dict[str, Sequence[int | str]] = {f"W_{i}": ["K", *program.inputs[i][1]] for i in built.reached}
    if built.offsets:
        outputs["shares"] = ["K", len(built.offsets)]
    if bounds:
        outputs["rounding"] = ["K", "P"]
    model = built.graph.model(outputs, "adjoint", _DESCRIPTION)
    try:
        session = Session(model, list(outputs), providers, rewrite=True)
    except ModelError as error:
        if dtype == np.float64:
            raise OptionError(
                "onnxruntime cannot run this adjoint in float64 (it has no float64 Conv on the CPU); use "
                'dtype="float32", or engine="sparse"'
            ) from error
        raise
    return Adjoint(model, session, tuple(built.slots), tuple(built.offsets), tuple(built.reached))


@dataclass
class _Emitted:
    graph: Builder
    slots: list[int]
    offsets: list[int]
    reached: list[int]

    @property
    def arrays(self) -> dict[str, Array]:
        return self.graph.arrays


def _emitted(
    program: LinearProgram, dtype: np.dtype[Any], *, collect_only: bool, bounds: bool = False
) -> _Emitted:
    """Emit the sweep, or only collect the arrays that the program's point decides."""
    done = _Emitted(Builder(dtype, collect_only=collect_only), [], [], [])
    graph = done.graph
    adjoint: dict[str, list[str]] = {}
    for i, (name, shape) in enumerate(program.outputs):
        adjoint.setdefault(name, []).append(graph.input(f"seed_{i}", dtype, ["K", *shape]))
    shares: list[str] = []
    sums: list[str] = []
    for position in range(len(program.steps) - 1, -1, -1):
        step = program.steps[position]
        parts = adjoint.pop(step.output, None)
        if parts is None:
            continue
        graph.fixed = step.fixed
        if collect_only and step.fixed:
            for name, _ in step.terms:
                adjoint.setdefault(name, []).append("")
            continue
        block = _added(graph, parts)
        if step.offset is not None:
            done.offsets.append(position)
            shares.append(_share(graph, step, block))
        if bounds and program.has_slot(step):
            done.slots.append(position)
            errors = graph.input(f"error_{position}", dtype, [step.size, "P"])
            sums.append(graph.node("MatMul", graph.node("Abs", graph.reshape(block, [step.size])), errors))
        for name, L in step.terms:
            adjoint.setdefault(name, []).append(L.T.emit(graph, block))
    if not collect_only:
        _finish(done, program, adjoint, shares, sums)
    return done


def _finish(
    done: _Emitted,
    program: LinearProgram,
    adjoint: dict[str, list[str]],
    shares: list[str],
    sums: list[str],
) -> None:
    """Name the outputs."""
    graph = done.graph
    for i, (name, shape) in enumerate(program.inputs):
        if name in adjoint:
            done.reached.append(i)
            graph.named(f"W_{i}", graph.reshape(_added(graph, adjoint[name]), shape))
    if shares:
        graph.named("shares", graph.node("Concat", *shares, axis=1))
    if sums:
        graph.named("rounding", graph.node("Sum", *sums))


def _added(graph: Builder, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else graph.node("Sum", *parts)


def _share(graph: Builder, step: Step, block: str) -> str:
    """⟨row, offset⟩, (K, 1): first summed over what the offset is broadcast along."""
    assert step.offset is not None
    offset = np.asarray(step.offset)
    summed = Sum(step.shape, offset.shape).emit(graph, block)
    return graph.node("MatMul", graph.reshape(summed, [offset.size]), graph.array(offset.reshape(-1, 1)))
