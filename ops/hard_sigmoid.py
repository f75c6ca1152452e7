"""HardSigmoid: y = max(0, min(1, alpha x + beta)).

At x: slope alpha strictly between the two ends, 0 elsewhere. Guards: both ends, x = -beta/alpha and
(1 - beta)/alpha.
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
    ramp = alpha * x + beta
    inside = (ramp > 0) & (ramp < 1)
    ends = (-beta / alpha, (1 - beta) / alpha) if alpha else ()
    return Local(
        Scale(x.shape, np.where(inside, alpha, 0.0)),
        offset=np.where(inside, beta, np.clip(ramp, 0, 1) >= 1).astype(x.dtype),
        guards=tuple(threshold(x, end) for end in ends),
    )
