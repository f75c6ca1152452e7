"""CumProd: yᵢ = x₁ · … · xᵢ along an axis; without xᵢ itself where exclusive, from the end where reverse.

Smooth: the slope of yᵢ in a factor is the product of the others, a triangle for each line along the axis.
Frozen mode lets each of the factors count the same share, as a product of two does.
https://onnx.ai/onnx/operators/onnx__CumProd.html
"""

import math

import numpy as np

from ..runtime.primitives import Contract, Reshape, Transpose, chain
from ..runtime.program import Kind
from ._rule import Local, Site, lowers
from ._smooth import tangent


@lowers("CumProd", kind=Kind.SMOOTH, observes=(0,))
def cum_prod(site: Site) -> Local:
    """The tangent at x."""
    shape, axis = site.shape(0), int(np.ravel(site.value(1))[0]) % len(site.shape(0))
    order = (*(a for a in range(len(shape)) if a != axis), axis)
    last = tuple(shape[a] for a in order)
    n, lines = shape[axis], math.prod(last[:-1])
    reverse = bool(site.attribute("reverse", 0))
    x = site.value(0).transpose(order).reshape(lines, n)[:, :: -1 if reverse else 1]
    count = np.arange(n) + (0 if site.attribute("exclusive", 0) else 1)  # of factors of each output
    # Row j holds 1 in the place of factor j, so that its running products leave that factor out.
    others = np.where(np.eye(n, dtype=bool), 1, x[:, None, :])
    running = np.concatenate([np.ones((lines, n, 1), x.dtype), np.cumprod(others, axis=2)], axis=2)
    slope = np.where(np.arange(n)[:, None] < count, running[:, :, count], 0)  # (lines, factor, output)
    y = np.concatenate([np.ones((lines, 1), x.dtype), np.cumprod(x, axis=1)], axis=1)[:, count]
    if reverse:
        slope, y, count = slope[:, ::-1, ::-1], y[:, ::-1], count[::-1]
    along = tuple(n if a == axis else 1 for a in range(len(shape)))
    back = Transpose(last, tuple(int(a) for a in np.argsort(order)))
    lay, unlay = (Transpose(shape, order), Reshape(last, (lines, n))), (Reshape((lines, n), last), back)
    if site.reading.frozen:
        share = slope / np.maximum(count, 1).astype(x.dtype)
        empty = (count == 0).astype(x.dtype).reshape(along)  # the product of no factors is 1
        return Local(
            chain(*lay, Contract((lines, n), share, "lj,lji->li"), *unlay), empty, frozen=True, roundings=n
        )
    J = chain(*lay, Contract((lines, n), slope, "lj,lji->li"), *unlay)
    return tangent(site, y.reshape(last).transpose(back.axes), [(0, J)], roundings=n)
