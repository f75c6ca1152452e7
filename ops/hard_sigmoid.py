"""HardSigmoid: y = max(0, min(1, alpha x + beta)).

At x: slope alpha between the two ends x = -beta/alpha and (1 - beta)/alpha, 0 elsewhere. Guards: the side
of each end; an end itself counts as below it.
https://onnx.ai/onnx/operators/onnx__HardSigmoid.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, lowers, threshold


@lowers("HardSigmoid", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def hard_sigmoid(site: Site) -> Local:
    """Pass what lies on the ramp."""
    x = site.value()
    alpha, beta = float(site.attribute("alpha", 0.2)), float(site.attribute("beta", 0.5))
    if alpha == 0:
        return Local(Scale(x.shape, np.zeros((), bool)), offset=np.full(x.shape, np.clip(beta, 0, 1)))
    low, high = (np.asarray(end, x.dtype) for end in sorted((-beta / alpha, (1 - beta) / alpha)))
    inside = (x > low) & (x <= high)
    flat = (x > high) == (alpha > 0)  # outside the ramp: which of the two ends is the one of value 1
    return Local(
        Scale(x.shape, np.where(inside, alpha, 0.0)),
        offset=np.where(inside, beta, flat).astype(x.dtype),
        guards=(threshold(x, low), threshold(x, high)),
    )
