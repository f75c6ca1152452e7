"""InstanceNormalization: every channel of every instance of (N, C, *spatial) normalised over its positions.

GroupNormalization: the same over groups of channels. Scale and bias belong to channels; to groups in
GroupNormalization below opset 21. Smooth; frozen mode holds the deviations. onnxruntime expands
GroupNormalization to a graph in which the variance is mean(x²) - mean², in float32 unless `stash_type` says
otherwise.
https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html, …GroupNormalization.html
"""

from dataclasses import replace

import numpy as np

from ..runtime.program import Kind
from ..runtime.rounding import Arithmetic, growth
from ._normalised import Layout, normalised, over_deviation
from ._rule import Local, Site, lowers

FLOAT32 = 1  # as ONNX numbers its types


@lowers("InstanceNormalization", kind=Kind.SMOOTH, observes=(0, 1, 2), products=((0, 1),), tangent=True)
def instance_normalization(site: Site) -> Local:
    """Normalise every channel."""
    shape = site.shape()
    layout = Layout(site, shape, (shape[1], *(1 for _ in shape[2:])))
    return normalised(layout, tuple(range(2, len(shape))), over_deviation(site.attribute("epsilon", 1e-5)))


@lowers("GroupNormalization", kind=Kind.SMOOTH, observes=(0, 1, 2), products=((0, 1),), tangent=True)
def group_normalization(site: Site) -> Local:
    """Normalise every group of channels."""
    batch, channels, *spatial = site.shape()
    groups = site.attribute("num_groups")
    each = channels // groups
    by_channel = site.opset >= 21
    layout = Layout(
        site,
        (batch, groups, each, *spatial),
        (groups, each if by_channel else 1, *(1 for _ in spatial)),
    )
    local = normalised(
        layout,
        tuple(range(2, 3 + len(spatial))),
        over_deviation(site.attribute("epsilon", 1e-5)),
        by_difference=True,
    )
    if site.attribute("stash_type", FLOAT32) != FLOAT32 or local.offset_size is None:
        return local
    slack = growth(local.roundings, Arithmetic.of(np.float32).u) * local.offset_size
    return replace(local, slack=slack)
