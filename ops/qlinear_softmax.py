"""QLinearSoftmax of onnxruntime (com.microsoft): y = saturate(round(softmax(s (x - z)) / s_y) + z_y).

Read exactly, it only jumps. Read straight through: Softmax's tangent in units of y's grid, held at the ends
of its range and off by half a step of it. onnxruntime takes 1 / s_y down to an integer, and so does the rule;
the s_y that its quantiser writes, 1/256, is one over an integer already. Below opset 13 (an attribute) the
sum runs over all axes from `axis` on.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QLinearSoftmax
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..runtime.primitives import Scale, chain
from ..runtime.program import Kind
from ._exponential import softmax_of, weighted_mean
from ._quantization import HALF, exact, integer_range, numbers, straight_through, zero_point_type
from ._rule import Local, Site, locally_constant, lowers
from ._smooth import tangent
from .softmax import softmax_axes

_MS = "com.microsoft"

locally_constant(__name__, "QLinearSoftmax", domain=_MS, when=exact)


@lowers("QLinearSoftmax", domain=_MS, kind=Kind.SMOOTH, observes=(0,), linear_in=(0,), when=straight_through)
def qlinear_softmax(site: Site) -> Local:
    """The tangent, held at the ends of the range."""
    low, high = integer_range(site, zero_point_type(site, 4))
    scale, steps = numbers(site, 1), np.floor(np.float32(1) / numbers(site, 3))
    axes = softmax_axes(site, int(site.attribute("opset", 13)))
    s = softmax_of((site.value() - numbers(site, 2)) * scale, axes)
    y = s * steps + numbers(site, 4)
    inside = (y > low) & (y <= high)
    weight = inside * (steps * scale)
    mean = weighted_mean(s, axes, -s)
    terms = [(0, Scale(s.shape, s * weight)), (0, chain(mean, Scale(s.shape, weight)))]
    held = tangent(site, np.clip(y, low, high), terms)
    return replace(held, slack=np.where(inside, HALF, 0.0))
