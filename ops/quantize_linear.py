"""QuantizeLinear: y = saturate(round(x / scale) + zero point), rounded half to even.

Read exactly: locally constant. Guard: the cell of the grid that each entry lies in. Read straight through:
y = x / scale + zero point within the range, off by half a step; guards: the ends of the range.
https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
"""

import numpy as np

from ..runtime.primitives import Scale
from ..runtime.program import Guard, Kind
from ._quantization import (
    cells,
    exact,
    integer_range,
    onto_grid,
    per_entry,
    straight_through,
    zero_point_type,
)
from ._rule import Local, Site, jumps, lowers, stays


@jumps("QuantizeLinear", when=exact)
@jumps("QuantizeLinear", domain="com.microsoft", when=exact)
def quantize_exactly(site: Site) -> tuple[Guard, ...]:
    """The cell of each entry."""
    x, grid = site.value(0), zero_point_type(site, 2)
    scale, zero = per_entry(site, 1, x.shape), per_entry(site, 2, x.shape)
    if grid.name.startswith("float"):
        return (stays((x / scale).astype(grid).astype(np.float32)),)
    return (cells(x / scale, scale, zero, *integer_range(site, grid)),)


@lowers("QuantizeLinear", kind=Kind.PIECEWISE_LINEAR, observes=(0,), linear_in=(0,), when=straight_through)
@lowers(
    "QuantizeLinear",
    domain="com.microsoft",
    kind=Kind.PIECEWISE_LINEAR,
    observes=(0,),
    linear_in=(0,),
    when=straight_through,
)
def quantize_straight_through(site: Site) -> Local:
    """Divide by the scale."""
    x = site.value(0)
    scale, zero = per_entry(site, 1, x.shape), per_entry(site, 2, x.shape)
    low, high = integer_range(site, zero_point_type(site, 2))
    return onto_grid(site, {0: Scale(x.shape, 1 / scale)}, zero, x / scale + zero, low, high)
