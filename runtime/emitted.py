"""A sweep of a program without offsets as an ONNX model that onnxruntime runs: float32, large networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array
from .emit import Builder
from .operator import Carry, unstacked
from .primitives import flat
from .program import LinearProgram
from .session import Session

_DESCRIPTION = (
    """A linear map between tensors, for a block of B vectors: in_i (B, *shape) to out_i (B, *shape)."""
)


def emitted(program: LinearProgram, dtype: np.dtype[Any], providers: Sequence[str] | None = None) -> Carry:
    """Emit a program as an ONNX model, and return the sweep that runs it.

    Args:
        program: without offsets, as `tangent` and `transposed` make it.
        dtype: floating type of all values. onnxruntime has no float64 Conv on the CPU.
        providers: onnxruntime execution providers; the CPU's by default.

    Raises:
        ModelError: onnxruntime does not accept the model, or it is too large for one message (2 GB).
    """
    graph = Builder(dtype)
    values = {
        name: graph.input(f"in_{i}", dtype, ["B", *shape]) for i, (name, shape) in enumerate(program.inputs)
    }
    for step in program.steps:
        parts = [L.emit(graph, values[name]) for name, L in step.terms if name in values]
        if parts:
            values[step.output] = parts[0] if len(parts) == 1 else graph.node("Sum", *parts)
    outputs: dict[str, Sequence[int | str]] = {}
    for i, (name, shape) in enumerate(program.outputs):
        if name in values:  # the others depend on no input
            graph.named(f"out_{i}", values[name])
            outputs[f"out_{i}"] = ["B", *shape]
    model = graph.model(outputs, "sweep", _DESCRIPTION)
    session = Session(model, list(outputs), providers, rewrite=True)

    def carry(block: Array) -> Array:
        given = unstacked(program, block)
        found = session.run({f"in_{i}": given[name] for i, (name, _) in enumerate(program.inputs)})
        parts = [
            flat(found[f"out_{i}"])
            if f"out_{i}" in found
            else np.zeros((len(block), math.prod(shape)), dtype)
            for i, (_, shape) in enumerate(program.outputs)
        ]
        return np.concatenate(parts, axis=1)

    return carry
