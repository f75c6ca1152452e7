"""Affine, ImageScaler, Crop, ScaledTanh: operators of ONNX's first years that onnxruntime still runs.

Affine: y = alpha x + beta. ImageScaler: y = scale x + bias, one bias for each channel of (N, C, H, W).
Crop: the middle of (N, C, H, W), without the borders (left, top, right, bottom), or so much behind the first
two as `scale` says. ScaledTanh: y = alpha tanh(beta x), smooth: the slope is alpha beta (1 - tanh(beta x)²).
https://github.com/onnx/onnx/blob/rel-1.4.1/docs/Operators.md
"""

import numpy as np

from ..runtime.primitives import Array, Scale
from ..runtime.program import Kind
from ._moves import gathered, positions
from ._rule import Local, Site, lowers
from ._smooth import elementwise


@lowers("Affine")
def affine(site: Site) -> Local:
    """Scale and shift."""
    alpha, beta = site.attribute("alpha", 1.0), site.attribute("beta", 0.0)
    return Local(Scale(site.shape(), np.array(alpha)), np.full(site.shape(), beta))


@lowers("ImageScaler")
def image_scaler(site: Site) -> Local:
    """Scale all, and shift each channel."""
    bias = np.reshape(site.attribute("bias", [0.0]), (-1, 1, 1))
    factor = Scale(site.shape(), np.array(site.attribute("scale", 1.0)))
    return Local(factor, np.broadcast_to(bias, site.shape()))


@lowers("Crop")
def crop(site: Site) -> Local:
    """Keep the middle."""
    left, top, right, bottom = site.integers("border") or (0, 0, 0, 0)
    height, width = site.shape()[2:]
    size = site.integers("scale") or (height - top - bottom, width - left - right)
    return Local(gathered(site, positions(site)[:, :, top : top + size[0], left : left + size[1]]))


@lowers("ScaledTanh", kind=Kind.SMOOTH, observes=(0,))
def scaled_tanh(site: Site) -> Local:
    """The tangent at x."""
    alpha, beta = site.attribute("alpha", 1.0), site.attribute("beta", 1.0)

    def slope(x: Array) -> Array:
        return np.asarray(alpha * beta / np.cosh(np.minimum(np.abs(beta * x), 300)) ** 2)

    return elementwise(site, lambda x: np.asarray(alpha * np.tanh(beta * x)), slope)
