"""MeanVarianceNormalization: y = (x - mean) / sqrt(var), over `axes` (batch and positions by default).

Smooth; frozen mode holds the deviation. The function in the specification adds 1e-9 to it, onnxruntime adds
nothing: equal entries are not a number there, and have no map.
https://onnx.ai/onnx/operators/onnx__MeanVarianceNormalization.html
"""

from ..runtime.program import Kind
from ._normalised import Layout, normalised, over_deviation
from ._rule import Local, Site, lowers


@lowers("MeanVarianceNormalization", kind=Kind.SMOOTH, observes=(0,))
def mean_variance_normalization(site: Site) -> Local:
    """Normalise over the axes."""
    shape = site.shape()
    axes = tuple(sorted({axis % len(shape) for axis in site.attribute("axes", (0, 2, 3))}))
    return normalised(Layout(site, shape), axes, over_deviation(0.0))
