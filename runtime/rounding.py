"""How far floating-point sums may stray: the bounds that replace hand-picked tolerances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .primitives import Array
from .program import LinearProgram, Step

# Confidence of the probabilistic bound: a sum breaks it with probability below 2·exp(-λ²/2) ≈ 3e-14.
_LAMBDA = 8.0
_DERIVED = 4


@dataclass(frozen=True)
class Arithmetic:
    """How coarse a floating-point arithmetic is: fl(a ∘ b) = (a ∘ b)(1 + δ) + η, |δ| ≤ u, |η| ≤ eta."""

    u: float  # unit roundoff
    eta: float  # what underflow may do: the smallest subnormal number

    @classmethod
    def of(cls, dtype: DTypeLike) -> Arithmetic:
        """The arithmetic of float16, bfloat16, float32 or float64."""
        try:
            info: Any = np.finfo(dtype)
        except ValueError:  # numpy does not know bfloat16
            import ml_dtypes

            info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
        return cls(float(info.eps) / 2, float(info.smallest_subnormal))

    def __add__(self, other: Arithmetic) -> Arithmetic:
        """Errors of two computations, one in each arithmetic."""
        return Arithmetic(self.u + other.u, self.eta + other.eta)

    def coarser(self, other: Arithmetic) -> Arithmetic:
        """Bounds for either."""
        return Arithmetic(max(self.u, other.u), max(self.eta, other.eta))


def flushed(dtype: DTypeLike) -> float:
    """What a computation loses that takes numbers below its type's smallest normal one for zero."""
    return float(np.finfo(dtype).tiny)


def growth(terms: int, u: float) -> float:
    """Relative error of a sum of `terms` rounded products, measured against Σ|products|.

    min(n, λ√n)·u: the deterministic γₙ to first order (Higham, Accuracy and Stability, §3.1), or
    where it is smaller the probabilistic bound of Higham and Mary (SIAM J. Sci. Comput. 41, 2019).
    """
    n = max(terms, 1)
    return min(n, _LAMBDA * math.sqrt(n)) * u


def step_rounding(step: Step, values: Mapping[str, Array], arithmetic: Arithmetic) -> Array:
    """Bound on the error that evaluating one step at given inputs makes, entry by entry.

    Args:
        step: the step.
        values: tensor name to (B, *shape), the step's inputs among them.
        arithmetic: what it is evaluated in.

    Returns:
        growth(n)·(Σ |Lᵢ| |xᵢ| + |c|) + n·eta, (B, *shape). Zero where the step only moves values.
    """
    batch = len(next(iter(values.values())))
    if moves(step):
        return np.zeros((batch, *step.shape), values[step.terms[0][0]].dtype)
    size: Array | None = None
    for name, L in step.terms:
        part = L.magnitude().apply(np.abs(values[name]))
        size = part if size is None else size + part
    if size is None:
        size = np.zeros((batch, *step.shape), np.float32)
    return rounding_of(step, size, arithmetic)


def moves(step: Step) -> bool:
    """Whether a step only moves values, without rounding."""
    return bool(step.terms) and step.fan_in == 0 and not step.rounds


def rounding_of(step: Step, size: Array, arithmetic: Arithmetic) -> Array:
    """The same of a step that rounds, from Σ |Lᵢ| |xᵢ| or a bound on it, (B, *shape)."""
    if step.fan_in == 0 and step.terms:
        return size * arithmetic.u + arithmetic.eta
    # Constants that a rule derives (a reciprocal, a square root, a folded scale) carry a few roundings more.
    n = step.fan_in + _DERIVED
    if step.offset is None:
        error = size * growth(n, arithmetic.u)
    else:
        error = size + np.abs(step.offset if step.offset_size is None else step.offset_size)
        error *= growth(n, arithmetic.u)
    error += n * arithmetic.eta
    return np.asarray(error)


def running_errors(
    program: LinearProgram, inputs: Mapping[str, Array], arithmetic: Arithmetic
) -> Iterator[tuple[Step, Mapping[str, Array], Mapping[str, Array]]]:
    """Walk a program forward with a bound on each tensor's accumulated rounding error.

    e ← Σ |Lᵢ| eᵢ + the step's own error (running error analysis; Higham, Accuracy and Stability, §3.3).

    Yields:
        Each step, the tensors alive and the bounds on their errors, (B, *shape) each.
    """
    count = len(next(iter(inputs.values())))
    errors = {name: np.zeros_like(value) for name, value in inputs.items()}
    last = program.last_uses()
    for position, (step, values) in enumerate(program.walk(inputs, [1.0] * count)):
        error = step_rounding(step, values, arithmetic)
        if step.slack is not None:
            error = error + step.slack
        for name, L in step.terms:
            error = error + L.magnitude().apply(errors[name])
        errors[step.output] = error
        yield step, values, errors
        for name in last.get(position, ()):
            errors.pop(name, None)
