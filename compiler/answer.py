"""The last stage: everything that was found, as one value."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import scipy

from .._version import __version__
from ..runtime import session
from ..runtime.affine_map import AffineMap, Layer
from ..runtime.certificate import Certificate
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from .graph import Graph
from .plan import Plan
from .trace import Trace


def affine_map(
    graph: Graph,
    program: LinearProgram,
    W: Any,
    b: Array,
    shares: Array | None,
    rows: Array,
    trace: Trace,
    plan: Plan,
    certify: Callable[[], Certificate],
    notes: tuple[str, ...],
) -> AffineMap:
    """Put an answer together. Its layers and its certificate are made when they are first read."""
    provenance = {
        **_versions(),
        "engine": plan.engine,
        "direction": plan.direction,
        "dtype": str(W.dtype),
        "opsets": {domain or "ai.onnx": version for domain, version in graph.opsets.items()},
        "producer": graph.producer,
    }
    return AffineMap(
        W,
        b.astype(W.dtype),
        rows,
        program.kind,
        {name: trace.values[name] for name, _ in program.inputs},
        {name: trace.values[name] for name, _ in program.outputs},
        partial(_layers, program, shares),
        certify,
        graph.name,
        graph.sha256,
        provenance,
        notes,
    )


def _layers(program: LinearProgram, shares: Array | None) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            step.node,
            step.op_type,
            step.output,
            step.shape,
            step.kind,
            None if shares is None else shares[position],
            tuple(name for name, _ in step.terms),
            tuple(L for _, L in step.terms),
            step.offset_block(),
        )
        for position, step in enumerate(program.steps)
    )


@cache
def _versions() -> dict[str, str]:
    return {
        "ilin": __version__,
        "onnxruntime": session.version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }
