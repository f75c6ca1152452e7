"""Scores of the classical models of ai.onnx.ml, (N, K) for N rows of features, and their post_transform.

What becomes of a model with one score for two classes, and which transforms are left out there, is not in
the specification; it is what onnxruntime does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime.primitives import Array, Broadcast, Contract, Primitive, Reshape, Scale, Sum, chain
from ._functions import logistic
from ._rule import Local, Site
from ._smooth import tangent


def rows_of(site: Site) -> Primitive:
    """The operand as rows of features, (N, F); a vector is one row."""
    own = site.shape()
    return Reshape(own, own if len(own) == 2 else (1, *own))


def floats(site: Site, name: str) -> Array:
    """An attribute that lists numbers; none where it is left out."""
    given: Any = site.attribute(name, ())
    return np.asarray(given, np.float64)


def linear(site: Site, coefficients: Array, intercepts: Array) -> Local:
    """Scores x Cᵀ + i of coefficients (K, F) and intercepts (K,); without any, i is 0."""
    rows = rows_of(site)
    scores = Contract(rows.out_shape, coefficients, "nf,kf->nk")
    return Local(chain(rows, scores), intercepts if intercepts.size else None)


def for_two_classes(scores: Local, ones: bool) -> Local:
    """From one score s for each row, (N, 1), to (1 - s, s), or to (-s, s) without `ones`."""
    ((_, L),) = scores.by_position
    both = np.array([[-1.0, 1.0]])
    offset = 0.0 if scores.offset is None else scores.offset
    size = offset if scores.offset_size is None else scores.offset_size
    one = np.array([float(ones), 0.0])
    return Local(
        chain(L, Contract(L.out_shape, both, "nk,kj->nj")),
        one + offset * both[0],
        offset_size=one + np.abs(size),
    )


def post_transformed(site: Site, scores: Local, transform: str) -> Local:
    """The tangent of the transform of scores that are affine, or given by their tangent, at x.

    Raises:
        UnsupportedError: PROBIT, and a score of 0 under SOFTMAX_ZERO.
    """
    ((_, L),) = scores.by_position
    x = site.value()[None]
    s = L.apply(x)[0] + (0 if scores.offset is None else scores.offset)
    y, slopes = _transform(site, s, transform)
    lost = scores.offset if scores.offset_size is None else scores.offset_size
    size = np.abs(y)
    if lost is not None:
        spread = np.broadcast_to(np.abs(lost), s.shape)[None]
        size = size + sum(J.magnitude().apply(spread)[0] for J in slopes)
    return tangent(site, y, [(0, chain(L, J)) for J in slopes], size=size)


def _transform(site: Site, s: Array, transform: str) -> tuple[Array, Sequence[Primitive]]:
    """The transform of scores, and its Jacobian as a sum."""
    if transform == "NONE":
        return s, [Reshape(s.shape, s.shape)]
    if transform == "LOGISTIC":
        return logistic(s), [Scale(s.shape, logistic(s) * logistic(-s))]
    if transform == "PROBIT":
        raise site.refuse("post_transform PROBIT is not linearised; name a tensor before it in outputs")
    if transform == "SOFTMAX_ZERO" and (np.abs(s) <= _ZERO).any():
        raise site.refuse("a score is 0, where post_transform SOFTMAX_ZERO jumps; ask at another x")
    y = np.exp(s - s.max(axis=1, keepdims=True))
    y = y / y.sum(axis=1, keepdims=True)
    return y, [Scale(s.shape, y), along_rows(y, -y)]


_ZERO = 1e-7  # scores up to here are taken as 0 by SOFTMAX_ZERO


def along_rows(weights: Array, factors: Array) -> Primitive:
    """The rank-one map of each row, x ↦ f Σ w x, for (N, K) weights w and factors f."""
    shape = weights.shape
    total = (shape[0], 1)
    return chain(Scale(shape, weights), Sum(shape, total), Broadcast(total, shape), Scale(shape, factors))
