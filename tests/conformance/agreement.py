"""How far the engines' maps are from each other, in units of the bound on their rounding errors.

The bound is the certificate's: what each step may round, weighted by how much each row depends on it,

    e[k] = Σ over steps |∂y[k]/∂step| · growth(n) (Σ |L| |x| + |c|)  +  growth(S) Σ |shares of b[k]|,

evaluated here in float64 by a sweep of its own. Maps are compared through points z and single columns; the
differences are taken in float64, so that nothing is allowed for the evaluation of W z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

import ilin
from ilin.compiler.plan import ENGINES
from ilin.runtime.primitives import flat
from ilin.runtime.program import LinearProgram
from ilin.runtime.rounding import Arithmetic, growth, step_rounding

Way = tuple[str, str]  # engine, dtype
Linearize = Callable[[str, str, Any], ilin.AffineMap]  # engine, dtype, rows

WAYS: tuple[Way, ...] = tuple(
    (engine, dtype) for dtype in ("float64", "float32") for engine in ENGINES if engine != "auto"
)
REFERENCE: Way = ("sparse", "float64")
# Multiply-adds of one row beyond which explicit matrices take gigabytes: matrix-free is the reference then.
_EXPLICIT = 50_000_000
_COLUMNS = 8  # compared one by one
_HELD = 4_000_000  # activations beyond which fewer are


@dataclass(frozen=True)
class Agreement:
    """What came of one model."""

    reference: Way
    deviations: Mapping[Way, float]  # from the reference, over the bound
    pairs: Mapping[tuple[Way, Way], float]  # between two ways, over the sum of their bounds
    refused: Mapping[Way, str]  # ways that do not run here, and why

    @property
    def worst(self) -> float:
        """The largest of all: at most 1 where the engines agree."""
        return max((*self.deviations.values(), *self.pairs.values()), default=0.0)


def agreement(linearize: Linearize, rows: Any) -> Agreement:
    """Compare all ways to compute one map.

    Args:
        linearize: the model at its x, for an engine, a dtype and rows.
        rows: which.
    """
    start = linearize("matrix-free", "float64", rows)
    work = sum(L.work for layer in start.layers for L in layer.terms or ())
    reference = REFERENCE if work <= _EXPLICIT else ("matrix-free", "float64")
    program = start.program
    assert program is not None
    probes = _probes(start, program)
    values = {("matrix-free", "float64"): _values(start, probes)}
    refused: dict[Way, str] = {}
    for way in WAYS:
        if way in values:
            continue
        if way[0] == "sparse" and reference != REFERENCE:
            refused[way] = "its matrices would take gigabytes"
            continue
        try:
            values[way] = _values(linearize(*way, list(start.rows) or "all"), probes)
        except ilin.OptionError as error:
            refused[way] = " ".join(str(error).split())
    bounds = {
        dtype: bound(program, probes, start, Arithmetic.of(dtype) + Arithmetic.of("float64"))
        for dtype in ("float64", "float32")
    }
    zero = values[reference]
    return Agreement(
        reference,
        {w: _over(values[w] - zero, bounds[w[1]]) for w in values if w != reference},
        {
            (v, w): _over(values[v] - values[w], bounds[v[1]] + bounds[w[1]])
            for v, w in combinations(values, 2)
        },
        refused,
    )


@dataclass(frozen=True)
class Probes:
    """Where maps are compared: P points and directions."""

    block: Mapping[str, np.ndarray]  # input name to (P, *shape)
    homogeneous: np.ndarray  # (P,): 1 for a point, 0 for a direction, which offsets do not add to

    @property
    def flat(self) -> np.ndarray:
        """(P, N)."""
        return np.concatenate([flat(values) for values in self.block.values()], axis=1)


def _probes(affine: ilin.AffineMap, program: LinearProgram) -> Probes:
    """X, two random points of its size, and some unit vectors."""
    random = np.random.default_rng(0)
    sizes = [value.size for value in affine.inputs.values()]
    held = sum(step.size for step in program.steps)
    columns = random.choice(sum(sizes), min(sum(sizes), _COLUMNS if held <= _HELD else 1), replace=False)
    x = np.concatenate([np.ravel(value).astype(np.float64) for value in affine.inputs.values()])
    others = random.uniform(-1, 1, (2 if held <= _HELD else 1, x.size)) * (np.abs(x).max(initial=0) or 1)
    rows = np.concatenate([x[None], others, np.zeros((len(columns), x.size))])
    rows[np.arange(1 + len(others), len(rows)), columns] = 1
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    block = {
        name: part.reshape(len(rows), *value.shape)
        for (name, value), part in zip(affine.inputs.items(), parts, strict=True)
    }
    return Probes(block, np.array([1.0] * (1 + len(others)) + [0.0] * len(columns)))


def bound(
    program: LinearProgram, probes: Probes, affine: ilin.AffineMap, arithmetic: Arithmetic
) -> np.ndarray:
    """How far two computations of W z + b may differ at each probe, (P, K)."""
    errors = {
        step.output: step_rounding(step, values, arithmetic).astype(np.float32)
        for step, values in program.walk(probes.block, probes.homogeneous)
    }
    total = np.zeros((len(probes.homogeneous), len(affine.rows)))
    size_of_b = np.zeros(len(affine.rows))
    adjoint: dict[str, np.ndarray] = {}
    for name, seed in _seeds(program, affine.rows):
        adjoint[name] = adjoint.get(name, 0) + seed
    for step in reversed(program.steps):
        block = adjoint.pop(step.output, None)
        if block is None:
            continue
        total += flat(errors.pop(step.output)) @ np.abs(flat(block)).T
        if step.offset is not None:
            size_of_b += np.abs(flat(block) @ np.broadcast_to(step.offset, step.shape).ravel())
        for name, L in step.terms:
            adjoint[name] = adjoint.get(name, 0) + L.T.apply(block)
    total += growth(len(program.steps) + 1, arithmetic.u) * size_of_b * probes.homogeneous[:, None]
    return np.asarray(total + np.finfo(np.float32).tiny)


def _seeds(program: LinearProgram, rows: np.ndarray) -> list[tuple[str, np.ndarray]]:
    unit = np.zeros((len(rows), program.out_size))
    unit[np.arange(len(rows)), rows] = 1
    sizes = [int(np.prod(shape, dtype=np.int64)) for _, shape in program.outputs]
    parts = np.split(unit, np.cumsum(sizes)[:-1], axis=1)
    return [
        (name, part.reshape(len(rows), *shape))
        for (name, shape), part in zip(program.outputs, parts, strict=True)
    ]


def _values(affine: ilin.AffineMap, probes: Probes) -> np.ndarray:
    """W z + b at the probes, (P, K), in float64."""
    W = affine.W if isinstance(affine.W, np.ndarray) else affine.W.toarray()
    linear = probes.flat @ W.T.astype(np.float64)
    return np.asarray(linear + probes.homogeneous[:, None] * affine.b.astype(np.float64))


def _over(deviation: np.ndarray, allowed: np.ndarray) -> float:
    ratio = np.abs(deviation) / allowed
    return float(ratio.max(initial=0)) if np.isfinite(ratio).all() else float("inf")
