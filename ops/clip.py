"""Clip: y = min(max(x, lo), hi).

At x: entries in (lo, hi] pass; the others are the bound that holds them (min(·, hi) is applied last, so hi
wins where lo > hi). Guards: the side of each bound; a bound itself counts as below it.
https://onnx.ai/onnx/operators/onnx__Clip.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ..runtime.program import Kind
from ._rule import Local, Site, lowers, threshold


@lowers("Clip", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,))
def clip(site: Site) -> Local:
    """Pass what lies between the bounds."""
    x = site.value(0)
    low, high = (
        np.asarray(site.parameter(name, end), x.dtype) for name, end in (("min", -np.inf), ("max", np.inf))
    )
    inside = (x > low) & (x <= high)
    bound = np.where(x > high, high, np.minimum(low, high))
    guards = tuple(threshold(x, end) for end in (low, high) if np.isfinite(end))
    return Local(Scale(x.shape, inside), offset=np.where(inside, 0, bound), guards=guards)
