"""Spectrum: the singular values of W, how many of its directions count, and how its rows lie to each other.

W = Σ σᵢ uᵢ vᵢᵀ, σ₁ ≥ σ₂ ≥ … ≥ 0: of all inputs' directions v₁ moves the outputs most, along u₁, by σ₁ for
a step of length 1. In float64 throughout, whatever W's type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import ArpackError, LinearOperator, aslinearoperator, svds

from .arrays import Array
from .errors import MemoryLimitError, OptionError
from .html import facts
from .memory import limit_of, readable
from .operator import ProgramOperator
from .region import norm_of

Matrix = Array | sparse.csr_array | LinearOperator
Shaped = Callable[[Array], Any]  # a flat (N,) vector to the inputs' shapes
Limit = int | str | None  # of memory, as in `limit_of`

_SMALL = 2**30  # min(K, N)² · max(K, N) up to which LAPACK finds all singular values within seconds
_ROOM = 2**22  # entries of W in float64 at a time
_LEADING = 6  # singular values where nobody says how many
_CONVERGED = 1e-7  # residual, over σ₁, that ARPACK's vectors must stay below: several times √ε
_SEED = 0


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Leading singular values and vectors of a map's W, (K, N), and what else its entries say as a whole.

    What goes beyond the leading values is worked out when it is first asked for. Where W was neither made nor
    small, row norms take min(K, N) sweeps through the network, and products of rows two for each row.
    """

    singular_values: Array  # (k,) largest first
    left: tuple[Array, ...]  # k vectors u of length 1, (K,)
    right: tuple[Any, ...]  # k vectors v of length 1 in the input's shape; name to array for several inputs
    residuals: Array  # (k,) the larger of ‖W v - σ u‖ and ‖Wᵀ u - σ v‖
    shape: tuple[int, int]  # (K, N)
    W: Matrix = field(repr=False)  # in float64 and dense where it is small
    every: Array | None = field(default=None, repr=False)  # all min(K, N) singular values, where W is small
    memory_limit: Limit = field(default=None, repr=False)

    @cached_property
    def effective_rank(self) -> float:
        """exp(-Σ pᵢ log pᵢ), pᵢ = σᵢ / Σ σⱼ: 1 for a single direction, min(K, N) for equal ones; 0 for W = 0.

        O. Roy and M. Vetterli, *The effective rank*, EUSIPCO 2007. It takes all singular values: where W is
        not small, they are the roots of the eigenvalues of W Wᵀ or WᵀW, whichever is smaller, so that those
        below some √ε σ₁ are lost in rounding; they hardly count here.

        Raises:
            MemoryLimitError: that matrix of min(K, N)² entries would not fit.
        """
        values = self.every
        if values is None:
            K, N = self.shape
            gram = self._gram if K <= N else _gram(_transposed(self.W), self.memory_limit)
            values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
        if not values.any():
            return 0.0
        p = values[values > 0] / values.sum()
        return float(np.exp(-(p * np.log(p)).sum()))

    @cached_property
    def stable_rank(self) -> float:
        """‖W‖_F² / ‖W‖₂² = Σ σᵢ² / σ₁², from the rows' norms and σ₁; at most the rank, 0 for W = 0."""
        if not self.singular_values.any():
            return 0.0
        return float((self.row_norms(2) ** 2).sum() / self.singular_values[0] ** 2)

    def row_norms(self, norm: Any = 2) -> Array:
        """‖W[k]‖ of every row, (K,): the most that it can gain from a step of length 1 in the dual norm.

        Args:
            norm: 1, 2 or math.inf (or their names, "1", "2", "inf").
        """
        return self._norms[norm_of(norm)]

    @cached_property
    def cosines(self) -> Array:
        """(K, K): cosines of the angles between rows, NaN at rows that are zero.

        Raises:
            MemoryLimitError: (K, K) would not fit.
        """
        gram = self._gram
        lengths = np.sqrt(np.diag(gram))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Array = np.clip(gram / lengths / lengths[:, None], -1, 1)
        return found

    @property
    def angles(self) -> Array:
        """(K, K): angles between rows in degrees, as `cosines`; 0 of a row with itself.

        Of two rows they come from products, so that those below 2·10⁻⁶ may be rounding.
        """
        found: Array = np.degrees(np.arccos(self.cosines))
        np.fill_diagonal(found, np.where(np.isnan(np.diag(found)), np.nan, 0.0))
        return found

    @cached_property
    def _norms(self) -> dict[float, Array]:
        """Each norm of every row, from whichever are fewer, rows or columns."""
        K, N = self.shape
        sums, squares, largest = np.zeros(K), np.zeros(K), np.zeros(K)
        for part, block in _row_blocks(self.W if K <= N else _transposed(self.W)):
            mine, axis = (part, 1) if K <= N else (slice(None), 0)
            sizes = np.abs(block)
            sums[mine] += sizes.sum(axis)
            squares[mine] += (sizes**2).sum(axis)
            largest[mine] = np.maximum(largest[mine], sizes.max(axis, initial=0.0))
        return {1: sums, 2: np.sqrt(squares), np.inf: largest}

    @cached_property
    def _gram(self) -> Array:
        return _gram(self.W, self.memory_limit)

    def _repr_html_(self) -> str:
        K, N = self.shape
        values = enumerate(self.singular_values, start=1)
        return facts(f"Spectrum of W, {K:,} × {N:,}", {f"σ{i}": f"{value:.6g}" for i, value in values})

    def __repr__(self) -> str:
        K, N = self.shape
        values = "  ".join(f"{value:.5g}" for value in self.singular_values[:6])
        more = "  …" if len(self.singular_values) > 6 else ""
        lines = [
            f"W {K} × {N}, the largest {len(self.singular_values)} of its {min(K, N)} singular values",
            f"  {values}{more}",
            f"  residuals up to {self.residuals.max(initial=0.0):.1e}",
        ]
        if self.every is not None:  # else it may take long
            lines.append(f"  effective rank {self.effective_rank:.4g}, stable rank {self.stable_rank:.4g}")
        return "\n".join(lines)


def spectrum_of(W: Matrix, k: int | None, shaped: Shaped, memory_limit: Limit) -> Spectrum:
    """The spectrum of a map's W; `AffineMap.spectrum` documents it."""
    small, large = sorted(W.shape)
    if k is None:
        k = min(_LEADING, small)
    elif isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise OptionError(f"k is how many singular values to find: a positive integer, not {k!r}")
    elif k > small:
        raise OptionError(f"W {W.shape[0]} × {W.shape[1]} has {small} singular values, not {k}")
    k = int(k)
    W = W.in_dtype(np.float64) if isinstance(W, ProgramOperator) else W
    every: Array | None = None
    if k == small or small**2 * large <= _SMALL:
        W = _dense(W, limit_of(memory_limit))
        U, every, Vt = np.linalg.svd(W, full_matrices=False)
        U, values, Vt = U[:, :k], every[:k], Vt[:k]
    else:
        U, values, Vt = _by_products(_in_double(W), k)
    signs = np.sign(Vt[np.arange(k), np.abs(Vt).argmax(axis=1)]) if Vt.size else np.ones(k)
    U, V = U * signs, (Vt * signs[:, None]).T  # the largest entry of each v is positive
    operator = _in_double(W)
    ahead = np.linalg.norm(operator @ V - values * U, axis=0)
    back = np.linalg.norm(operator.T @ U - values * V, axis=0)
    residuals = np.maximum(ahead, back)
    if k and residuals.max() > _CONVERGED * values[0]:
        raise OptionError(
            f"{k} singular values of this W were not found to {_CONVERGED:.0e} of the largest (residual "
            f"{residuals.max() / values[0]:.1e}); ask for another number of them"
        )
    right = tuple(shaped(np.ascontiguousarray(V[:, i])) for i in range(k))
    left = tuple(np.ascontiguousarray(U[:, i]) for i in range(k))
    return Spectrum(values, left, right, residuals, W.shape, W, every, memory_limit)


def _by_products(operator: LinearOperator, k: int) -> tuple[Array, Array, Array]:
    """U (K, k), σ (k,) largest first, and Vᵀ (k, N), by Lanczos iterations from one start vector."""
    K, N = operator.shape
    draw = np.random.default_rng(_SEED)
    if not (operator @ draw.standard_normal(N)).any():  # orthogonal to every row: with certainty W = 0
        return np.eye(K, k), np.zeros(k), np.eye(k, N)
    try:
        U, values, Vt = svds(operator, k, v0=draw.standard_normal(min(K, N)))
    except ArpackError as error:
        raise OptionError(
            f"{k} singular values of this W were not found ({error}); ask for another number of them"
        ) from error
    order = np.argsort(-values, kind="stable")
    return U[:, order], values[order], Vt[order]


def _in_double(W: Matrix) -> LinearOperator:
    """W for products in float64, a block of rows at a time where it is stored in another type."""
    if isinstance(W, LinearOperator):
        return W
    if isinstance(W, sparse.csr_array) or W.dtype == np.float64:
        return aslinearoperator(W.astype(np.float64, copy=False))

    def ahead(V: Array) -> Array:
        return np.concatenate([rows @ V for _, rows in _row_blocks(W)])

    def back(U: Array) -> Array:
        total: Array = sum(rows.T @ U[part] for part, rows in _row_blocks(W))  # type: ignore[assignment]
        return total

    return LinearOperator(W.shape, ahead, back, ahead, np.float64, back)


def _transposed(W: Matrix) -> Matrix:
    return W.T.tocsr() if isinstance(W, sparse.csr_array) else W.T


def _row_blocks(W: Matrix) -> Iterator[tuple[slice, Array]]:
    """Consecutive rows of W, dense and in float64, (B, N); by sweeps where W was not made."""
    K, N = W.shape
    step = max(1, _ROOM // max(1, N))
    for first in range(0, K, step):
        part = slice(first, min(first + step, K))
        if isinstance(W, LinearOperator):
            yield part, W.rmatmat(np.eye(K, part.stop - first, -first)).T
        elif isinstance(W, np.ndarray):
            yield part, np.asarray(W[part], np.float64)
        else:
            yield part, W[part].toarray().astype(np.float64)


def _dense(W: Matrix, limit: int) -> Array:
    """W in float64, with room for LAPACK to work in."""
    K, N = W.shape
    _require(3 * 8 * K * N, limit, f"all of W in float64 ({K} × {N}) and its decomposition take")
    if isinstance(W, LinearOperator) and N < K:
        return np.asarray(W @ np.eye(N))
    return np.concatenate([rows for _, rows in _row_blocks(W)]) if K else np.zeros((K, N))


def _gram(W: Matrix, memory_limit: Limit) -> Array:
    """W Wᵀ, (K, K), in float64."""
    K, N = W.shape
    _require(2 * 8 * K * K, limit_of(memory_limit), f"the products of {K} rows with each other take")
    gram = np.zeros((K, K))
    if isinstance(W, np.ndarray):
        step = max(1, _ROOM // max(1, K))
        for first in range(0, N, step):
            columns = W[:, first : first + step].astype(np.float64)
            gram += columns @ columns.T
    else:
        operator = _in_double(W)
        for part, rows in _row_blocks(W):
            gram[:, part] = operator @ rows.T
    return (gram + gram.T) / 2


def _require(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise MemoryLimitError(
            f"{what} {readable(size)}, more than the {readable(limit)} there may be; ask for fewer rows, or "
            "admit more by memory_limit="
        )
