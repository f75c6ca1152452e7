"""The last stage: everything that was found, as one value."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import scipy

from .._version import __version__
from ..runtime import session
from ..runtime.affine_map import AffineMap
from ..runtime.certificate import Certificate, Level
from ..runtime.errors import NonFiniteError
from ..runtime.layer import Layer
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram
from ..runtime.region import Geometry
from ..runtime.ties import Ties
from .graph import Graph
from .plan import Plan
from .scope import Scope
from .trace import Trace, all_finite


@dataclass(frozen=True)
class Asked:
    """One question: a point, the network there, and which rows are wanted in which way."""

    trace: Trace
    program: LinearProgram
    rows: Array  # (K,) flat output indices
    plan: Plan
    notes: tuple[str, ...]  # on what was changed to make x fit
    wanted: str  # how the rows were asked for

    @property
    def kind(self) -> Kind:
        """How far the answer holds."""
        return kind_of(self.trace, self.program)


def kind_of(trace: Trace, program: LinearProgram) -> Kind:
    """How far a program at a point holds: where x decides which nodes run, as far as it decides the same."""
    holds_everywhere = program.kind in (Kind.AFFINE, Kind.LOCALLY_CONSTANT)
    return Kind.PIECEWISE_LINEAR if trace.decides and holds_everywhere else program.kind


def require_representable(**arrays: Array) -> None:
    """Refuse a map with entries outside the range of the type that it was composed in.

    Raises:
        NonFiniteError: naming W or b, where it holds NaN or infinity.
    """
    for name, array in arrays.items():
        if not all_finite(array):
            raise NonFiniteError(
                f"entries of {name} leave the range of {array.dtype}, though the model's values at x do not; "
                "float64 has a wider one (dtype='float64', --dtype float64)"
            )


def require_visible(asked: Asked, W: Array) -> None:
    """Refuse a map that has vanished in the type that it was composed in, W and outputs alike.

    Args:
        asked: with the outputs at x, in the model's own type.
        W: (K, N).

    Raises:
        NonFiniteError: no output of the rows, and no entry of W, is as large as the type's smallest normal
            number, though some output is not zero.
    """
    largest = float(np.abs(asked.trace.answered(asked.program.outputs)[asked.rows]).max(initial=0.0))
    tiny = np.finfo(W.dtype).tiny
    if 0 < largest < tiny and W.dtype != np.float64 and not (np.abs(W) >= tiny).any():
        raise NonFiniteError(
            f"W vanishes in {W.dtype}, as do the model's outputs at x ({largest:.3g} at most); float64 has a "
            "wider range (dtype='float64', --dtype float64)"
        )


def affine_map(
    graph: Graph,
    scope: Scope,
    asked: Asked,
    W: Any,
    b: Array,
    shares: Array | None,
    certify: Callable[[Level], Certificate],
    survey: Callable[[], Geometry],
    examine: Callable[[], Ties],
) -> AffineMap:
    """Put an answer together. Its layers, certificate, region and ties are made when they are first read."""
    program, plan = asked.program, asked.plan
    b = b.astype(W.dtype)
    for array in (W, b):
        if isinstance(array, np.ndarray):
            array.setflags(write=False)  # the certificate is about what was composed
    provenance = {
        **_versions(),
        "engine": plan.engine,
        "direction": plan.direction,
        "dtype": str(W.dtype),
        **scope.reading.names,
        "rows": asked.wanted,
        "opsets": {domain or "ai.onnx": version for domain, version in graph.opsets.items()},
        "producer": graph.producer,
    }
    return AffineMap(
        W,
        b,
        asked.rows,
        asked.kind,
        asked.trace.free(program),
        {name: asked.trace.answer(name) for name, _ in program.outputs},
        partial(_layers, program, shares),
        certify,
        graph.name,
        graph.sha256,
        provenance,
        asked.notes,
        survey,
        program,
        held={name: value for name, value in asked.trace.feeds.items() if name not in scope.inputs},
        _examine=examine,
        leading=program.leading,
    )


def jumps_of(program: LinearProgram) -> tuple[str, ...]:
    """A note on the nodes that x moves only by jumps, of which W has nothing to say."""
    if not program.discrete:
        return ()
    first, *others = (f"{one.node!r} ({one.op_type})" for one in program.discrete)
    where = f"node {first}" + (f" and {len(others)} more" if others else "")
    if program.kind is Kind.LOCALLY_CONSTANT:
        return (f"a small change of the input changes no output: it moves them only by jumps, at {where}",)
    return (
        f"the input also acts by jumps, at {where}; a small change sets none of them off, so the weights (W) "
        "do not show them",
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
        **session.environment(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }
