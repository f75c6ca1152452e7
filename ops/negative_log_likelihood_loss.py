"""NegativeLogLikelihoodLoss: y = -w[t] · x[n, t, …] for each target t; or their sum, or their weighted mean.

Linear in the scores x for held weights, and in the weights w for held scores, but for the mean, which divides
by the sum of the weights. Targets of the value ignore_index count neither in the sum nor in the mean.
https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html
"""

import numpy as np

from ..runtime.primitives import Array, Scale, chain
from ._moves import gathered, positions
from ._reduced import sum_over
from ._rule import Local, Site, lowers


@lowers("NegativeLogLikelihoodLoss", products=((0, 2),), linear_in=(0, 2))
def negative_log_likelihood_loss(site: Site) -> Local:
    """Select the target's score or weight, scale it, and sum."""
    reduction = site.attribute("reduction", "mean")
    ignored = site.value(1) == site.attribute("ignore_index")  # nowhere, without the attribute
    target = np.where(ignored, 0, site.value(1)).astype(np.int64)
    factor: Array
    if site.active(0):
        position, index = 0, np.take_along_axis(positions(site), target[:, None], 1)[:, 0]
        factor = -np.where(ignored, 0, site.value(2)[target] if site.has(2) else 1.0)
        if reduction == "mean":
            factor = factor / -factor.sum()
    else:
        if reduction == "mean":
            raise site.refuse(
                "its mean divides by the sum of weights that depend on x, which is not affine in x; hold the "
                "weights fixed by choosing other inputs, or name a tensor before this node in outputs"
            )
        position, index = 2, target
        factor = -np.where(ignored, 0, np.take_along_axis(site.value(0), target[:, None], 1)[:, 0])
    each = chain(gathered(site, index, position), Scale(target.shape, factor))
    if reduction == "none":
        return Local({position: each})
    return Local({position: chain(each, sum_over(target.shape, tuple(range(target.ndim)), keep=False))})
