"""Gemm: Y = alpha · A' B' + beta · C, with A' and B' optionally transposed and C broadcast.

Linear in A for fixed B and the other way round, and in C.
https://onnx.ai/onnx/operators/onnx__Gemm.html
"""

import numpy as np

from ..runtime.primitives import Array, Contract, Primitive, Scale, chain
from ._rule import Local, Site, lowers


@lowers("Gemm", products=((0, 1),))
def gemm(site: Site) -> Local:
    """Multiply the active matrix by the fixed one."""
    alpha, beta = float(site.attribute("alpha", 1.0)), float(site.attribute("beta", 1.0))
    a = "km" if site.attribute("transA", 0) else "mk"
    b = "nk" if site.attribute("transB", 0) else "kn"
    sizes = dict(zip(a, site.shape(0), strict=True)) | dict(zip(b, site.shape(1), strict=True))
    shape = (sizes["m"], sizes["n"])
    terms: dict[int, Primitive] = {}
    offset: Array | None = None
    size: Array | float = 0.0
    if site.active(0):
        terms[0] = Contract(site.shape(0), alpha * site.value(1), f"{a},{b}->mn")
    elif site.active(1):
        terms[1] = Contract(site.shape(1), alpha * site.value(0), f"{b},{a}->mn")
    else:  # only C depends on x
        left = Contract(site.shape(0), alpha * site.value(1), f"{a},{b}->mn")
        offset = left.apply(site.value(0)[None])[0]
        size = left.fan_in * left.magnitude().apply(np.abs(site.value(0))[None])[0]
    if beta == 0:
        return Local(terms, offset, offset_size=size)  # C is not read, whatever it holds
    if site.active(2):
        terms[2] = chain(site.spread(2, shape), Scale(shape, np.array(beta)))
    elif site.has(2):
        share = beta * site.value(2)
        offset = share if offset is None else offset + share
        size = size + np.abs(share)
    return Local(terms, offset, offset_size=size)
