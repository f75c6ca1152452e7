"""DynamicQuantizeLinear: y = x in unsigned bytes, with the scale and zero point that x's own range asks for.

scale = (max(x, 0) - min(x, 0)) / 255; zero point = round(-min / scale); y = round(x / scale) + zero point.
Read exactly: the scale is piecewise linear (guards: where the extremes are), y and the zero point only jump.
Read straight through: scale and zero point are held, and y = x / scale + zero point, off by a step at most:
half a step for each of the two roundings.
https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..runtime.primitives import Array, Reshape, Scale, Sum, chain
from ..runtime.program import Kind
from ._moves import gathered
from ._pooled import group_guard
from ._quantization import HALF, exact, straight_through
from ._rule import Local, Site, lowers, stays

_STEPS = 255


@dataclass(frozen=True)
class Grid:
    """What x's range asks for."""

    scale: Array  # 0 where x is zero
    zero: Array

    @classmethod
    def of(cls, x: Array) -> Self:
        """The grid from the extremes of x, and 0."""
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        scale = np.asarray((high - low) / _STEPS, x.dtype)
        zero = np.clip(np.rint(-low / scale), 0, _STEPS) if scale else np.zeros(())
        return cls(scale, np.asarray(zero, x.dtype))

    def steps(self, x: Array) -> Array:
        """How many steps each entry lies from the zero point."""
        if not self.scale:
            return np.zeros_like(x)
        return np.asarray(np.clip(np.rint(x / self.scale) + self.zero, 0, _STEPS) - self.zero)


@lowers(
    "DynamicQuantizeLinear",
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0,),
    constant_outputs=(0, 2),
    when=exact,
)
def scale_alone(site: Site) -> Local:
    """The scale: the range of x, divided by the steps."""
    return scale_of(site, Grid.of(site.value()))


def scale_of(site: Site, grid: Grid) -> Local:
    """The scale of operand 0, whose grid is known at x."""
    x, scale, zero = site.value(), grid.scale, grid.zero
    axes = tuple(range(x.ndim))
    extremes = [group_guard(site, axes, sign) for sign in (1, -1)]
    index = np.array([g.choice for g in extremes]).reshape(2)
    keeps = np.array([x.max() > 0, x.min() < 0])  # the range always holds 0
    pair = gathered(site, np.where(keeps, index, -1))
    signs = Scale((2,), np.array([1.0, -1.0]) / _STEPS)
    total = chain(pair, signs, Sum((2,), (1,)), Reshape((1,), ()))
    jumps = (stays(np.rint(x / scale) + zero), stays(zero)) if scale else ()
    return Local(total, guards=(*extremes, *jumps))


@lowers(
    "DynamicQuantizeLinear",
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0,),
    constant_outputs=(1, 2),
    when=straight_through,
)
def quantize(site: Site) -> Local:
    """Divide by the scale."""
    grid = Grid.of(site.value())
    if not grid.scale:
        raise site.refuse("x is zero, so that it has no range; ask at another x")
    return Local(Scale(site.shape(), 1 / grid.scale), grid.zero, slack=2 * HALF)
