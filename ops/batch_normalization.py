"""BatchNormalization (inference): y = scale · (x - mean) / sqrt(var + epsilon) + bias, for each channel.

Affine: a diagonal with one value for each channel of (N, C, *spatial). At opsets below 9, `spatial = 0`
gives every entry of a sample its own statistics.
https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ._rule import Local, Site, lowers


@lowers("BatchNormalization", linear_in=(0,), constant_outputs=(1, 2, 3, 4))
def batch_normalization(site: Site) -> Local:
    """Scale and shift every channel by its running statistics."""
    if site.attribute("training_mode", 0):
        raise site.refuse(
            "training_mode = 1 normalises by the batch's own statistics; export the model for inference"
        )
    shape = site.shape(0)
    per_channel = (shape[1] if len(shape) > 1 else 1,) + (1,) * (len(shape) - 2)
    if not site.attribute("spatial", 1):
        per_channel = shape[1:]
    scale, bias, mean, var = (site.value(i).reshape(per_channel) for i in range(1, 5))
    slope = scale / np.sqrt(var + np.asarray(site.attribute("epsilon", 1e-5), var.dtype))
    shift = mean * slope
    return Local(Scale(shape, slope), bias - shift, offset_size=np.abs(bias) + np.abs(shift))
