"""Shrink: y = x + bias where x < -lambd, x - bias where x > lambd, 0 between.

At x: a diagonal of zeros and ones, and the bias with its sign. Both ends belong to the piece between them, as
their value 0 does, which another piece need not have. Guards: the side of each end. onnxruntime computes in
float32 what is float64, too, which the check at fresh points tells.
https://onnx.ai/onnx/operators/onnx__Shrink.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Scale
from ..runtime.program import Guard, HalfSpaces, Kind
from ._rule import Local, Site, explains, like, lowers, threshold


@lowers("Shrink", kind=Kind.PIECEWISE_LINEAR, observes=(0,))
def shrink(site: Site) -> Local:
    """Move what lies beyond the ends towards 0 by the bias."""
    x, bias = site.value(), float(site.attribute("bias", 0.0))
    end = np.asarray(site.attribute("lambd", 0.5), x.dtype)
    below, above = _below(x, -end), threshold(x, end)
    moved = np.where(below.choice, bias, np.where(above.choice, -bias, 0.0))
    return Local(Scale(x.shape, below.choice | above.choice), moved if bias else None, (below, above))


def _below(x: Array, at: Array) -> Guard:
    """Guard of the lower end, which itself lies above: the mirror image of `threshold`."""
    below = x < at

    def half_spaces() -> HalfSpaces:
        sign = np.where(below, -1, 1).astype(x.dtype)
        return HalfSpaces(((0, Scale(x.shape, sign)),), -(sign * at))

    return Guard(below, lambda: np.abs(x - at), half_spaces)


@explains("Shrink")
def shrink_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The bias with its sign, where there is one, and the mask."""
    x, node, bias = site.tensor(0), graph.node, float(site.attribute("bias", 0.0))
    end = float(site.attribute("lambd", 0.5))
    below, above = node("Less", x, like(site, graph, -end)), node("Greater", x, like(site, graph, end))
    mask = node("Or", below, above)
    if not bias:
        return (mask,)
    up, down, zero = (like(site, graph, value) for value in (bias, -bias, 0.0))
    return node("Where", below, up, node("Where", above, down, zero)), mask
