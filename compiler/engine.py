"""Engine: which way a program is swept; structure that does not depend on the point is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from .adjoint import Adjoint, adjoint_of
from .multiplier import MatrixStore, Multiplier, explicit, matrix_free
from .sweep import Magnitudes, Sweep, numpy_sweep

EngineName = Literal["auto", "sparse", "matrix-free", "adjoint"]
ENGINES: tuple[EngineName, ...] = ("auto", "sparse", "matrix-free", "adjoint")

# Multiply-adds of one answer from which an emitted model pays for its session, some tens of milliseconds.
_ADJOINT_FROM = 200_000_000


@dataclass
class Engine:
    """Chooses a sweep, and keeps matrices and emitted models from point to point."""

    name: EngineName = "auto"
    providers: Sequence[str] | None = None
    _matrices: MatrixStore = field(default_factory=MatrixStore)
    _adjoints: dict[Any, Adjoint] = field(default_factory=dict)

    def sweep(
        self, program: LinearProgram, rows: Array, magnitudes: Magnitudes, dtype: np.dtype[Any]
    ) -> Sweep:
        """The reverse sweep over one program."""
        if self.name == "adjoint" or (self.name == "auto" and _emission_pays(program, len(rows), dtype)):
            key = (program.structure(), str(dtype))
            if key not in self._adjoints:
                self._adjoints[key] = adjoint_of(program, dtype, self.providers)
            return self._adjoints[key].sweep(program, magnitudes, dtype)
        return numpy_sweep(program, self.multiplier(program, rows, dtype), magnitudes, dtype)

    def multiplier(self, program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> Multiplier:
        """The terms of one program, for a sweep with numpy and scipy."""
        if self.name == "sparse":
            return explicit(program, rows, dtype, self._matrices)
        return matrix_free(program)


def _emission_pays(program: LinearProgram, K: int, dtype: np.dtype[Any]) -> bool:
    """Whether an emitted model is worth its session. Never in float64: onnxruntime has no such Conv."""
    return dtype == np.float32 and K * sum(L.work for s in program.steps for _, L in s.terms) > _ADJOINT_FROM
