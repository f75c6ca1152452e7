"""Normalizer: y = x / d for each row x of features, with d = Σ |x| (L1), √Σ x² (L2) or max x (MAX).

Smooth: at u the Jacobian of a row is (I - y ∇dᵀ) / d. Guards: the signs for L1, where the slope of |x| at 0
counts as 0, in the middle of both; the winner for MAX. Frozen mode holds d. By the specification MAX divides
by the largest entry, which onnxruntime does, and onnx's reference evaluator by the largest absolute value.
https://onnx.ai/onnx/operators/onnx_aionnxml_Normalizer.html
"""

import numpy as np

from ..runtime.primitives import Array, Scale, chain
from ..runtime.program import Guard, Kind
from ._pooled import group_guard
from ._rule import Local, Site, lowers, threshold
from ._scores import along_rows, rows_of
from ._smooth import tangent


@lowers("Normalizer", domain="ai.onnx.ml", kind=Kind.SMOOTH, observes=(0,))
def normalizer(site: Site) -> Local:
    """The tangent of the quotient."""
    rows = rows_of(site)
    x = site.value().reshape(rows.out_shape)
    norm, gradient, guards = _norm(site, x)
    if not norm.all():
        raise site.refuse("a row has norm 0, where the result jumps; ask at another x")
    divided = Scale(x.shape, 1 / norm)
    back = rows.T
    if site.reading.frozen:
        return Local(chain(rows, divided, back), frozen=True, roundings=x.shape[1])
    y = x / norm
    terms = [chain(rows, divided, back), chain(rows, along_rows(gradient, -y / norm), back)]
    return tangent(site, y.reshape(site.shape()), [(0, L) for L in terms], guards=guards)


def _norm(site: Site, x: Array) -> tuple[Array, Array, tuple[Guard, ...]]:
    """The norm of each row, (N, 1), its gradient, (N, F), and what keeps their form."""
    kind = site.attribute("norm", "MAX")
    if kind == "L1":
        return np.abs(x).sum(axis=1, keepdims=True), np.sign(x), (threshold(site.value()),)
    if kind == "L2":
        norm = np.sqrt(np.square(x).sum(axis=1, keepdims=True))
        return norm, x / np.where(norm, norm, 1), ()
    winners = np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]
    guard = group_guard(site, (len(site.shape()) - 1,), 1)
    return x.max(axis=1, keepdims=True), winners.astype(x.dtype), (guard,)
