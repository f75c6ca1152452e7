"""A map in float64, and what rounding may do to it: by rows where W was made, else by one combination of all.

An operator's rows are not known, and a bound for each of them would take as many sweeps. So they are read as
the default certificate reads rows: s·(W z) for random weights s (`combined`), which takes one sweep.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..runtime.memory import limit_of
from ..runtime.operator import bias_of
from ..runtime.primitives import Array
from .answer import Asked
from .bounds import rounding_bounds
from .combined import functional_of, weights_of
from .compose import Composed, compose
from .engine import Engine
from .evidence import Case
from .plan import plan_of
from .sweep import Magnitudes

_DOUBLE = np.dtype(np.float64)


@dataclass(frozen=True)
class Wide:
    """A map in float64."""

    asked: Asked  # the question, with the network lowered in float64 and its plan
    W: Any  # (K, N), or a linear operator of that shape
    b: Array  # (K,)
    shares: Array | None  # (steps, K); None where W is an operator
    engine: Engine

    def read(self, values: Array) -> Array:
        """What is compared of values of all rows, (P, K): each, or their combination, (P, 1)."""
        return values if self.shares is not None else values @ weights_of(values.shape[1])[:, None]

    def rounding(self, magnitudes: Magnitudes, *, along: bool = False) -> Array:
        """What rounding may do to what is `read` of W z + b at points, (P, K) or (P, 1).

        Args:
            magnitudes: of the points.
            along: of W d along directions d, to which the magnitudes belong.
        """
        program, rows, plan = self.asked.program, self.asked.rows, self.asked.plan
        if self.shares is None:
            functional = functional_of(program, rows)
            return self.engine.functional_bounds(program, functional, _DOUBLE, magnitudes)
        composed = Composed(self.W, self.b, np.zeros_like(self.shares) if along else self.shares)
        return rounding_bounds(program, rows, composed, plan, self.engine, _DOUBLE, magnitudes)


def wide_of(case: Case, W: Any, b: Array, shares: Array | None) -> Wide:
    """A map in float64: itself, or the same composed again."""
    if case.dtype == _DOUBLE:
        return Wide(case.asked, W, b, shares, case.engine)
    program, rows = case.lowered(), case.asked.rows
    engines, limit = case.engine.in_double(program, len(rows)), limit_of(case.memory_limit)
    plan = plan_of(program, len(rows), _DOUBLE, engines=engines, direction="auto", limit=limit)
    asked = replace(case.asked, program=program, plan=plan)
    if shares is None:
        operator = case.engine.operator("matrix-free", program, rows, _DOUBLE)
        return Wide(asked, operator, bias_of(program, rows, _DOUBLE), None, case.engine)
    plan.require_fit()
    again = compose(program, rows, plan, case.engine, _DOUBLE)
    return Wide(asked, again.W, again.b, again.shares, case.engine)
