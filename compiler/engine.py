"""Engine: how a block of rows is swept; structure that does not depend on the point is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.errors import OptionError
from ..runtime.primitives import Array
from ..runtime.program import LinearProgram
from ..runtime.stack import Kept
from .adjoint import Adjoint, adjoint_of, emitted
from .fused import fused_available, fused_rows
from .fused_store import FusedStore
from .multiplier import MatrixStore, Multiplier, explicit, matrix_free
from .plan import EngineName, Leg
from .sweep import Magnitudes, Sweep, Swept, bounds_back, rows_back

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

_EMITTED = 20_000_000  # multiply-adds of one vector from which products with W are worth a session
_FEW = 1 << 20  # multiply-adds whose sweep is over before onnxruntime's threads take over from numpy's
_COMPILED = 1 << 30  # multiply-adds that are worth kernels in float64, which take half a minute to compile
_MESSAGE = 2**31  # bytes of one protobuf message


def _work(program: LinearProgram) -> int:
    """Multiply-adds of sweeping one row."""
    return sum(L.work for step in program.steps for _, L in step.terms)


@dataclass
class Engine:
    """Sweeps programs in any of the ways, and keeps matrices and emitted models from point to point."""

    providers: Sequence[str] | None = None
    weights: int = 0  # of the model
    _matrices: MatrixStore = field(default_factory=MatrixStore)
    _adjoints: dict[Any, Adjoint] = field(default_factory=dict)
    _store: FusedStore = field(default_factory=FusedStore)
    stacks: Kept = field(default_factory=dict)

    def candidates(self, name: EngineName, dtype: np.dtype[Any]) -> tuple[EngineName, ...]:
        """The engines that a plan may choose from. onnxruntime has no Conv in float64.

        Raises:
            OptionError: the engine asked for is not there, or cannot hold the model.
        """
        if name == "fused" and not fused_available():
            raise OptionError("engine 'fused' needs numba: python -m pip install 'ilin[fast]'")
        emittable = self._emittable(dtype)
        if name in ("adjoint", "fused") and not emittable:
            raise OptionError(
                f"engine {name!r} emits the model's weights in one ONNX message, which {self.weights:,} of "
                "them are too many for; use 'matrix-free', or leave the choice to 'auto'"
            )
        if name != "auto":
            return (name,)
        if not emittable:
            return ("matrix-free",)
        compiled: tuple[EngineName, ...] = ("fused",) if fused_available() else ()
        emitted: tuple[EngineName, ...] = ("adjoint",) if dtype == np.float32 else ()
        return ("matrix-free", *emitted, *compiled)

    def in_double(self, program: LinearProgram, rows: int) -> tuple[EngineName, ...]:
        """The engines for what is swept in float64 beside an answer: kernels where they save much alone."""
        multiplied = rows * _work(program)
        found = self.candidates("auto", np.dtype(np.float64))
        return tuple(name for name in found if name != "fused" or multiplied >= _COMPILED)

    def rows(self, leg: Leg, program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> Sweep:
        """The reverse sweep over a leg's program, for blocks of the given rows."""
        if leg.engine == "fused":
            return lambda block: Swept(*fused_rows(program, block, dtype, self._store))
        if leg.engine == "adjoint":
            emitted = self._adjoint(program, dtype, bounds=False)
            return lambda block: Swept(*emitted.rows(program, block, dtype))
        return rows_back(program, self._multiplier(leg, program, rows, dtype), dtype)

    def stacked(self, program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> Swept:
        """Rows of several points, (k, points), over a program that stacks them; shares (steps, points, k)."""
        return Swept(*fused_rows(program, rows, dtype, self._store))

    def bounds(
        self, leg: Leg, program: LinearProgram, rows: Array, dtype: np.dtype[Any], magnitudes: Magnitudes
    ) -> Callable[[Array], Array]:
        """What rounding may do to blocks of the given rows: from (k,) to (P, k), by another sweep."""
        if leg.engine in ("adjoint", "fused") and dtype == np.float32:
            emitted = self._adjoint(program, dtype, bounds=True)
            return _in_range(
                lambda block: emitted.bounds(program, block, magnitudes, dtype), program, magnitudes
            )
        multiplier = self._multiplier(leg, program, rows, dtype)
        return _in_range(bounds_back(program, multiplier, dtype, magnitudes), program, magnitudes)

    def functional_bounds(
        self, program: LinearProgram, functionals: Array, dtype: np.dtype[Any], magnitudes: Magnitudes
    ) -> Array:
        """What rounding may do to functionals of the outputs, (k, all outputs) to (P, k)."""
        if dtype == np.float32 and self._emittable(dtype) and _work(program) >= _FEW:
            emitted = self._adjoint(program, dtype, bounds=True)
            return _in_range(
                lambda block: emitted.bounds(program, block, magnitudes, dtype), program, magnitudes
            )(functionals)
        back = bounds_back(program, matrix_free(program), dtype, magnitudes)
        return _in_range(back, program, magnitudes)(functionals)

    def _adjoint(self, program: LinearProgram, dtype: np.dtype[Any], *, bounds: bool) -> Adjoint:
        key = (program.structure(), dtype, bounds)
        if key not in self._adjoints:
            self._adjoints[key] = adjoint_of(program, dtype, self.providers, bounds=bounds)
        return self._adjoints[key]

    def operator(
        self, name: EngineName, program: LinearProgram, rows: Array, dtype: np.dtype[Any]
    ) -> LinearOperator:
        """W of a program as a linear operator."""
        from ..runtime.operator import operator_of

        in_onnxruntime = name == "adjoint" or (
            name == "auto" and dtype == np.float32 and _work(program) > _EMITTED and self._emittable(dtype)
        )
        carrier = partial(emitted, dtype=dtype, providers=self.providers) if in_onnxruntime else None
        return operator_of(program, rows, dtype, carrier=carrier)

    def _emittable(self, dtype: np.dtype[Any]) -> bool:
        """Whether a model that holds all weights twice, as W and |W| of a bound, is one message."""
        return 2 * self.weights * dtype.itemsize < _MESSAGE

    def _multiplier(self, leg: Leg, program: LinearProgram, rows: Array, dtype: np.dtype[Any]) -> Multiplier:
        if leg.engine == "sparse":
            return explicit(program, rows, dtype, self._matrices)
        return matrix_free(program)


def _in_range(
    sweep: Callable[[Array], Array], program: LinearProgram, magnitudes: Magnitudes
) -> Callable[[Array], Array]:
    """A sweep of bounds, and the same in float64 for blocks whose bounds leave the range of its type."""

    def back(block: Array) -> Array:
        found = sweep(block)
        if np.isfinite(found).all():
            return found
        return bounds_back(program, matrix_free(program), np.dtype(np.float64), magnitudes)(block)

    return back
