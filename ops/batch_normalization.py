"""BatchNormalization (inference): y = scale · (x - mean) / √(var + epsilon) + bias, for each channel.

Affine in x, mean and bias together: a diagonal with one value for each channel of (N, C, *spatial). Affine in
scale and bias, too; smooth where scale is multiplied by what depends on x, and in var. At opsets below 9,
`spatial = 0` gives every entry of a sample its own statistics.
https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
"""

from dataclasses import replace

import numpy as np

from ..runtime.primitives import Array, Primitive, Scale, chain
from ._rule import Local, Site, lowers
from ._smooth import plus, tangent

X, SCALE, BIAS, MEAN, VAR = range(5)


@lowers(
    "BatchNormalization",
    linear_in=(X, SCALE, BIAS, MEAN),
    products=((X, SCALE), (SCALE, MEAN)),
    constant_outputs=(1, 2, 3, 4),
    observes=(SCALE,),
    tangent=True,
)
def batch_normalization(site: Site) -> Local:
    """Scale and shift every channel by its running statistics."""
    if site.attribute("training_mode", 0):
        raise site.refuse(
            "training_mode = 1 normalises by the batch's own statistics; export the model for inference"
        )
    shape = site.shape(X)
    per_channel = (shape[1] if len(shape) > 1 else 1,) + (1,) * (len(shape) - 2)
    if not site.attribute("spatial", 1):
        per_channel = shape[1:]

    def value(position: int) -> Array:
        return site.value(position) if position == X else site.value(position).reshape(per_channel)

    var = value(VAR)
    rate = 1 / np.sqrt(var + np.asarray(site.attribute("epsilon", 1e-5), var.dtype))

    def slope(position: int) -> Array:
        if position in (X, MEAN):
            return np.asarray(value(SCALE) * (rate if position == X else -rate))
        normal = (value(X) - value(MEAN)) * rate
        return np.asarray(normal if position == SCALE else -value(SCALE) * normal * rate**2 / 2)

    def term(position: int, weight: float = 1.0) -> tuple[int, Primitive]:
        spread = site.spread(position, shape, shape if position == X else per_channel)
        return position, chain(spread, Scale(shape, weight * slope(position)))

    def shares(*positions: int) -> list[Array]:
        return [np.asarray(slope(position) * value(position)) for position in positions]

    def size(parts: list[Array]) -> Array | float:
        return sum(map(np.abs, parts), start=0.0)

    moved, weighed = site.active(X) or site.active(MEAN), site.active(SCALE)
    active = [position for position in (X, SCALE, MEAN, VAR) if site.active(position)]
    if site.active(VAR) or (moved and weighed and not site.reading.frozen):
        parts = shares(X, MEAN)
        y = tangent(site, parts[0] + parts[1], [term(position) for position in active], size=size(parts))
    elif weighed and not moved:
        y = Local([term(SCALE)], 0.0, offset_size=size(shares(X, MEAN)))
    else:
        half = 0.5 if weighed else 1.0  # what frozen mode lets either factor count
        parts = [half * part for part in shares(*({X, MEAN} - set(active)))]
        y = Local([term(position, half) for position in active], frozen=weighed)
        if parts:
            y = replace(y, offset=sum(parts), offset_size=size(parts))
    return plus(site, y, BIAS, shape, per_channel)
