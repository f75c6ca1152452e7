"""The reverse sweep as an ONNX model: emitted once per model, run by onnxruntime for any point and any rows.

Nothing in it depends on the point: what a point decides (slopes, winners, offsets, error bounds) and the
rows that are wanted (seeds, along the batch axis) are its inputs.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..runtime.emit import Builder
from ..runtime.errors import ModelError, OptionError
from ..runtime.files import write_model
from ..runtime.operator import Carry, unstacked
from ..runtime.primitives import Array, Sum
from ..runtime.program import LinearProgram, Step
from ..runtime.session import Session
from ..runtime.surroundings import ALONE, Surroundings
from ..runtime.transpose import transposed
from .sweep import Magnitudes, seeds

_SEED = "the wanted rows as linear functionals of this output, one for each k: unit vectors for rows of W"
_DESCRIPTION = """Rows of W, and their b, of a network's affine map F(z) = W z + b around x, in reverse.
Inputs: "seed/{output}", (K, *shape of the output), for any K, the functionals of the outputs that are
wanted; row k of W is that of output entry o where seed k is 1 at o and 0 elsewhere, in all outputs. All other
inputs are what x decides at each node; they are the same for all K rows.
Outputs: "W/{input}", (K, *shape of the input). "shares", (K, nodes with an offset): their sum is b."""


@dataclass(frozen=True)
class Adjoint:
    """The emitted model and its session, for one structure of the linear program."""

    model: onnx.ModelProto
    session: Session
    steps: tuple[int, ...]  # with an offset, a column of `shares` each; with bounds, those with an error

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
        shares = np.zeros((len(program.steps), len(rows)))
        if self.steps:
            shares[list(self.steps)] = found["shares"].T
        return _reached(program, found, len(rows), dtype), shares

    def bounds(
        self, program: LinearProgram, rows: Array, magnitudes: Magnitudes, dtype: np.dtype[Any]
    ) -> Array:
        """Bounds on what the steps' own errors add up to in the given rows. Emitted with `bounds`.

        Args:
            program: one point's program, of the structure that the model was emitted for.
            rows: k flat output indices; or k functionals of the outputs, (k, all outputs).
            magnitudes: the errors that evaluating the steps may make; none is zero.
            dtype: as emitted.

        Returns:
            (P, k).
        """
        if not self.steps:  # nothing on the way from the inputs to the outputs rounds
            return np.zeros((magnitudes.count, len(rows)))
        feeds = _seeded(program, rows, dtype) | point_of(program, dtype)
        for position in self.steps:
            step = program.steps[position]
            own = magnitudes.errors.get(step.output)
            own = np.zeros((magnitudes.count, *step.shape)) if own is None else own
            feeds[f"error/{step.output}"] = np.ascontiguousarray(own.reshape(len(own), step.size).T, dtype)
        found: Array = self.session.run(feeds)["rounding"]
        return found.T


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
    model, steps = _emitted(program, dtype, bounds=bounds)
    return Adjoint(model, require_runnable(model, dtype, providers), steps)


def require_runnable(
    model: onnx.ModelProto,
    dtype: np.dtype[Any],
    providers: Sequence[str] | None = None,
    surroundings: Surroundings = ALONE,
) -> Session:
    """Open a session over an emitted model.

    Raises:
        OptionError: in float64, a model with convolutions or other operators that onnxruntime lacks there.
    """
    try:
        names = [put.name for put in model.graph.output]
        return Session(model, names, providers, rewrite=True, surroundings=surroundings)
    except ModelError as error:
        if dtype == np.float64:
            raise OptionError(
                "onnxruntime cannot run this model in float64 (it has no float64 Conv on the CPU); use "
                'dtype="float32", or for W another engine'
            ) from error
        raise


def _emitted(
    program: LinearProgram, dtype: np.dtype[Any], *, bounds: bool
) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """The model, and the steps behind its shares or bounds."""
    graph = Builder(dtype)
    swept = sweep_back(graph, program, bounds=bounds)
    outputs: dict[str, Sequence[int | str]] = {}
    if not bounds:
        shapes = dict(program.inputs)
        for name, tensor in swept.W.items():
            outputs[graph.named(f"W/{name}", tensor)] = ["K", *shapes[name]]
    if swept.totals:
        total = graph.named("rounding" if bounds else "shares", swept.totals)
        outputs[total] = ["K", "P" if bounds else len(swept.steps)]
    return graph.model(outputs, "adjoint"), swept.steps


def save_adjoint(
    program: LinearProgram, dtype: np.dtype[Any], path: str | os.PathLike[str], facts: Mapping[str, str]
) -> None:
    """Write the adjoint, without bounds, as an ONNX file that runs wherever onnxruntime does.

    Its inputs are documented in the file: "seed/{output}", and what x decides, such as "slope/{node}". What
    to feed at a point is `point_of`; or any values computed elsewhere, by the descriptions of the inputs.

    Args:
        program: any point's program.
        dtype: floating type of the model.
        path: file to write, whole or not at all.
        facts: what else is recorded in its metadata_props, such as the model's name and sha256.

    Raises:
        OptionError: onnxruntime cannot run it in this dtype.
        OutputError: the path cannot be written, or the model is too large for one file of protobuf.
    """
    model, steps = _emitted(program, dtype, bounds=False)
    require_runnable(model, dtype)
    model.graph.doc_string = _DESCRIPTION
    nodes = [program.steps[position].node for position in steps]
    for put in model.graph.output:
        put.doc_string = (
            f"what each node's offset adds to b, one column for each of: {', '.join(map(repr, nodes))}"
            if put.name == "shares"
            else f"the rows of W, as functionals of input {put.name.removeprefix('W/')!r}"
        )
    recorded = {
        **facts,
        "ilin.inputs": json.dumps({name: list(shape) for name, shape in program.inputs}),
        "ilin.outputs": json.dumps({name: list(shape) for name, shape in program.outputs}),
        "ilin.shares": json.dumps(nodes),
    }
    onnx.helper.set_model_props(model, recorded)
    write_model(path, model)


def point_of(program: LinearProgram, dtype: np.dtype[Any]) -> dict[str, Array]:
    """What one point decides, by the names of the adjoint model's inputs."""
    graph = Builder(dtype, collect_only=True)
    sweep_back(graph, program)
    return graph.arrays


@dataclass(frozen=True)
class SweptGraph:
    """What a sweep left in a graph."""

    W: Mapping[str, str]  # program input to the tensor of its part of W, (K, *shape); unreached ones left out
    totals: str  # the tensor of shares, (K, steps), or of bounds, (K, P); "" without any
    steps: tuple[int, ...]  # that `totals` is made of


def sweep_back(
    graph: Builder,
    program: LinearProgram,
    *,
    bounds: bool = False,
    given: Mapping[str, str] | None = None,
    supply: Callable[[Step], Iterable[str]] | None = None,
) -> SweptGraph:
    """Emit the sweep from seeds at the outputs back to the inputs, or collect the arrays it is fed.

    Args:
        graph: where to.
        program: one point's program.
        bounds: bound the rounding errors, and leave W and the shares out.
        given: output name to the tensor that is its seed, (K, *shape); by default graph inputs
            "seed/{output}".
        supply: adds the nodes that compute what a point decides for a step, and names their results; by
            default they are graph inputs.
    """
    adjoint: dict[str, list[str]] = {}
    for name, shape in program.outputs:
        seed = given[name] if given else graph.input(f"seed/{name}", graph.dtype, ["K", *shape], _SEED)
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
        if supply and not step.fixed:
            graph.supplied = iter(supply(step))
        if bounds and program.has_slot(step):
            collected.append((position, _bounded(graph, step, block)))
        if not bounds and step.offset is not None:
            collected.append((position, _share(graph, step, block)))
        for name, L in step.terms:
            adjoint.setdefault(name, []).append(L.T.emit(graph, block))
    totals = [total for _, total in collected]
    joined = ""
    if totals:
        joined = graph.node("Sum", *totals) if bounds else graph.node("Concat", *totals, axis=1)
    W = {
        name: graph.reshape(graph.added(adjoint[name], shape), shape)
        for name, shape in program.inputs
        if name in adjoint
    }
    return SweptGraph(W, joined, tuple(position for position, _ in collected))


def _reached(program: LinearProgram, found: Mapping[str, Array], k: int, dtype: np.dtype[Any]) -> Array:
    """What arrived at the inputs, (k, N); zeros at one that no output depends on."""
    parts = [
        found[f"W/{name}"].reshape(k, math.prod(shape))
        if f"W/{name}" in found
        else np.zeros((k, math.prod(shape)), dtype)
        for name, shape in program.inputs
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def emitted(program: LinearProgram, dtype: np.dtype[Any], providers: Sequence[str] | None = None) -> Carry:
    """A program without offsets as a sweep that onnxruntime runs: the reverse sweep of its transpose.

    Args:
        program: as `tangent` and `transposed` make it.
        dtype: floating type of all values.
        providers: onnxruntime execution providers; the CPU's by default.

    Raises:
        OptionError: in float64, a program with convolutions.
    """
    across = transposed(program)
    adjoint, point = adjoint_of(across, dtype, providers), point_of(across, dtype)

    def carry(block: Array) -> Array:
        given = unstacked(program, block)
        seeds = {f"seed/{name}": given[name] for name, _ in across.outputs}
        return _reached(across, adjoint.session.run(seeds | point), len(block), dtype)

    return carry


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
