"""Det: y = det A, for each matrix A of a stack.

Smooth: the slope in A is its matrix of cofactors, det(A) A⁻ᵀ where A is regular. Of A = U diag(s) Vᵀ these
are det(U) det(V) U diag(∏ₖ≠ᵢ sₖ) Vᵀ, which holds for singular matrices as well.
https://onnx.ai/onnx/operators/onnx__Det.html
"""

import numpy as np

from ..runtime.primitives import Array, Reshape, Scale, Sum, chain
from ..runtime.program import Kind
from ._rule import Local, Site, lowers
from ._smooth import tangent


@lowers("Det", kind=Kind.SMOOTH, observes=(0,))
def det(site: Site) -> Local:
    """The tangent at x."""
    *stack, rows, _ = shape = site.shape(0)
    matrices = site.value(0)
    kept = (*stack, 1, 1)
    add_up = (Sum(shape, kept), Reshape(kept, tuple(stack)))
    J = chain(Scale(shape, _cofactors(matrices)), *add_up)
    # Elimination gives det(A + E) with |E| ≤ n u |L||U|, and |L||U| is about n |A| where pivots do not grow.
    return tangent(site, np.linalg.det(matrices), [(0, J)], roundings=rows * rows)


def _cofactors(matrices: Array) -> Array:
    U, s, Vt = np.linalg.svd(matrices)  # (…, n, n), (…, n), (…, n, n)
    others = np.where(np.eye(s.shape[-1], dtype=bool), 1, s[..., None, :]).prod(axis=-1)
    sign = np.linalg.det(U) * np.linalg.det(Vt)  # ±1
    return np.asarray(np.sign(sign)[..., None, None] * (U * others[..., None, :]) @ Vt)
