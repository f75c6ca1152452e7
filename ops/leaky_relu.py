"""LeakyRelu: y = x where x > 0, alpha x elsewhere.

At x: a diagonal of ones and alphas; at 0 the slope is alpha. Guard: the sign of each entry.
https://onnx.ai/onnx/operators/onnx__LeakyRelu.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, lowers, threshold


@lowers("LeakyRelu", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def leaky_relu(site: Site) -> Local:
    """Scale the entries that are not positive by alpha."""
    x = site.value()
    slope = np.where(x > 0, 1.0, site.attribute("alpha", 0.01))
    return Local(Scale(x.shape, slope), guards=(threshold(x),))
