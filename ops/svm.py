"""SVMRegressor, SVMClassifier: Σ c k(x, v) + rho over support vectors v, for each target or pair of classes.

The kernel k is LINEAR: xᵀv, POLY: (γ xᵀv + c₀)^d, SIGMOID: tanh(γ xᵀv + c₀), or RBF: exp(-γ |x - v|²).
Without support vectors, x is multiplied by the coefficients themselves. Affine with a LINEAR kernel, else
smooth; the sign that a one-class SVMRegressor gives only jumps, and so do the classes of SVMClassifier.
One score s for two classes becomes (-s, s), and with a post_transform what LinearClassifier makes of it;
SVMRegressor has no post_transform in onnxruntime.
https://onnx.ai/onnx/operators/onnx_aionnxml_SVMRegressor.html, …SVMClassifier.html
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from ..runtime.primitives import Array, Contract, Primitive, Scale, chain
from ..runtime.program import Kind
from ._rule import Local, Reading, Site, locally_constant, lowers
from ._scores import floats, for_two_classes, linear, post_transformed, rows_of
from ._smooth import TRANSCENDENTAL, tangent

_ML = "ai.onnx.ml"


def _one_class(attributes: Mapping[str, Any], _: Reading) -> bool:
    return bool(attributes.get("one_class", 0))


def _bends(attributes: Mapping[str, Any]) -> bool:
    """Whether there are support vectors under another kernel than the linear one."""
    supported = attributes.get("n_supports") or attributes.get("vectors_per_class")
    return bool(supported) and attributes.get("kernel_type", "LINEAR") != "LINEAR"


def _affine_regressor(attributes: Mapping[str, Any], reading: Reading) -> bool:
    return not (_one_class(attributes, reading) or _bends(attributes))


def _smooth_regressor(attributes: Mapping[str, Any], reading: Reading) -> bool:
    return not _one_class(attributes, reading) and _bends(attributes)


locally_constant(__name__, "SVMRegressor", domain=_ML, when=_one_class)


@lowers("SVMRegressor", domain=_ML, when=_affine_regressor)
def linear_svm_regressor(site: Site) -> Local:
    """The support vectors, then their coefficients."""
    coefficients, rho = floats(site, "coefficients")[None], floats(site, "rho")[:1]
    if not site.attribute("n_supports", 0):
        return linear(site, coefficients, rho)
    return _decided(site, coefficients, rho)


@lowers("SVMRegressor", domain=_ML, kind=Kind.SMOOTH, observes=(0,), when=_smooth_regressor)
def svm_regressor(site: Site) -> Local:
    """The kernels' tangents, then their coefficients."""
    return _decided(site, floats(site, "coefficients")[None], floats(site, "rho")[:1])


def _transform(attributes: Mapping[str, Any]) -> str:
    """What is done to the scores."""
    asked = str(attributes.get("post_transform", "NONE"))
    paired = len(attributes.get("vectors_per_class") or ()) == 2
    return "NONE" if paired and asked.startswith("SOFTMAX") else asked


def _smooth_classifier(attributes: Mapping[str, Any], _: Reading) -> bool:
    return _bends(attributes) or _transform(attributes) != "NONE"


def _affine_classifier(attributes: Mapping[str, Any], reading: Reading) -> bool:
    return not _smooth_classifier(attributes, reading)


@lowers("SVMClassifier", domain=_ML, constant_outputs=(0,), when=_affine_classifier)
def linear_svm_classifier(site: Site) -> Local:
    """The support vectors, then the coefficients of each pair of classes."""
    return _scores(site)


@lowers(
    "SVMClassifier",
    domain=_ML,
    kind=Kind.SMOOTH,
    observes=(0,),
    constant_outputs=(0,),
    when=_smooth_classifier,
)
def svm_classifier(site: Site) -> Local:
    """The tangents of the kernels and of the post_transform."""
    return post_transformed(site, _scores(site), _transform(site.attributes))


def _scores(site: Site) -> Local:
    """One score for each class, or without support vectors' probabilities one for each pair of classes."""
    coefficients, rho = floats(site, "coefficients"), floats(site, "rho")
    counts = site.attribute("vectors_per_class", ())
    if not sum(counts):
        labels = site.attribute("classlabels_strings") or site.attribute("classlabels_ints")
        return linear(site, coefficients.reshape(len(labels), -1), np.broadcast_to(rho[:1], len(labels)))
    if site.attribute("prob_a", ()):
        raise site.refuse(
            "finds its probabilities by iteration, which is not linearised; export the model with the "
            "decision function in their place"
        )
    decided = _decided(site, _of_pairs(coefficients.reshape(len(counts) - 1, -1), counts), rho)
    if len(counts) > 2:
        return decided
    return for_two_classes(decided, ones=site.attribute("post_transform", "NONE").startswith("SOFTMAX"))


def _of_pairs(coefficients: Array, counts: list[int]) -> Array:
    """The coefficients of every support vector for each pair of classes, (pairs, vectors)."""
    classes = np.repeat(np.arange(len(counts)), counts)
    return np.stack(
        [
            np.where(classes == i, coefficients[j - 1], 0) + np.where(classes == j, coefficients[i], 0)
            for i, j in combinations(range(len(counts)), 2)
        ]
    )


def _decided(site: Site, coefficients: Array, rho: Array) -> Local:
    """Sums of the kernels by coefficients (K, vectors), (N, K)."""
    rows = rows_of(site)
    vectors = floats(site, "support_vectors").reshape(coefficients.shape[1], -1)
    if not _bends(site.attributes):
        dots = Contract(rows.out_shape, vectors, "nf,mf->nm")
        return Local(chain(rows, dots, Contract(dots.out_shape, coefficients, "nm,km->nk")), rho)
    k, J, size = _kernel(site, site.value().reshape(rows.out_shape), vectors)
    combine = Contract(J.out_shape, coefficients, "nm,km->nk")
    return tangent(
        site,
        combine.apply(k[None])[0] + rho,
        [(0, chain(rows, J, combine))],
        roundings=TRANSCENDENTAL + k.shape[1],
        size=combine.magnitude().apply(size[None])[0] + np.abs(rho),
    )


def _kernel(site: Site, x: Array, vectors: Array) -> tuple[Array, Primitive, Array]:
    """The kernels of rows x (N, F) and vectors (M, F): (N, M), their Jacobian, and |k| + |∂k| · |parts|."""
    gamma, shift, degree = floats(site, "kernel_params")[:3]
    kind = site.attribute("kernel_type")
    if kind == "RBF":
        apart = x[:, None] - vectors  # (N, M, F)
        exponent = gamma * np.square(apart).sum(axis=2)
        k = np.exp(-exponent)
        return k, Contract(x.shape, -2 * gamma * k[..., None] * apart, "nf,nmf->nm"), k * (1 + exponent)
    dots = Contract(x.shape, gamma * vectors, "nf,mf->nm")
    z = dots.apply(x[None])[0] + shift
    if kind == "POLY":
        k, slope = z**degree, degree * z ** (degree - 1)
    else:
        k = np.tanh(z)
        slope = 1 - k * k
    return k, chain(dots, Scale(z.shape, slope)), np.abs(k) + np.abs(slope * shift)
