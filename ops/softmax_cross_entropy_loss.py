"""SoftmaxCrossEntropyLoss: ℓ = -w[label] · log softmax(scores)[label], summed or averaged; log_prob.

Smooth in the scores: with s the softmax over the classes (axis 1) and e the label's unit vector,
dℓ = w Σ (s - e) dx. Labels and weights are held; labels that are `ignore_index` count nothing.
https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html
"""

import numpy as np

from ..runtime.primitives import Array, Scale, chain
from ..runtime.program import Kind
from ._exponential import log_sum_exp
from ._reduced import sum_over
from ._rule import Local, Site, lowers
from ._smooth import TRANSCENDENTAL, tangent
from .softmax import log_softmax_over


@lowers("SoftmaxCrossEntropyLoss", kind=Kind.SMOOTH, observes=(0,), linear_in=(0,))
def softmax_cross_entropy_loss(site: Site) -> tuple[Local, ...]:
    """The loss, and the logarithms of the softmax where they are asked for."""
    return (_loss(site), log_softmax_over(site, (1,)))[: len(site.outputs)]


def _loss(site: Site) -> Local:
    u = site.value()
    chosen, weight = _chosen(site, u)
    logarithms = u - log_sum_exp(u, (1,))
    # At the label s - 1 = expm1(log s), which does not cancel where s is near 1.
    slope = weight * np.where(chosen, np.expm1(logarithms), np.exp(logarithms))
    parts = -np.where(chosen, weight * logarithms, 0)
    reduction = site.attribute("reduction", "mean")
    total = sum_over(u.shape, (1,) if reduction == "none" else tuple(range(u.ndim)), keep=False)
    y = total.apply(parts[None])[0]
    sizes = total.apply(np.where(chosen, np.abs(weight) * (np.abs(u) + np.abs(u - logarithms)), 0)[None])[0]
    if reduction == "mean":
        count = np.where(chosen, weight, 0).sum()
        with np.errstate(all="ignore"):  # no label counts: not a number, found by name
            slope, y, sizes = slope / count, y / count, sizes / abs(count)
    roundings = u.shape[1] + total.fan_in + TRANSCENDENTAL
    return tangent(site, y, [(0, chain(Scale(u.shape, slope), total))], size=sizes, roundings=roundings)


def _chosen(site: Site, u: Array) -> tuple[Array, Array]:
    """Which class is each entry's label, in u's shape; and the label's weight, with one class."""
    labels = np.expand_dims(site.value(1), 1)
    counted = labels != site.attribute("ignore_index") if site.attribute("ignore_index") is not None else True
    classes = np.arange(u.shape[1]).reshape(-1, *(1 for _ in u.shape[2:]))
    chosen = (labels == classes) & counted
    weights = site.value(2).astype(u.dtype) if site.has(2) else np.ones(u.shape[1], u.dtype)
    return chosen, np.where(counted, weights[np.where(counted, labels, 0)], 0)
