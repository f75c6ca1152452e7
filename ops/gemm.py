"""Gemm: Y = alpha · A' B' + beta · C, with A' and B' optionally transposed and C broadcast.

Linear in A for fixed B and the other way round, and in C; smooth where A and B both depend on x.
https://onnx.ai/onnx/operators/onnx__Gemm.html
"""

from ..runtime.primitives import Contract, Primitive
from ._rule import Local, Site, lowers
from ._smooth import plus, product


@lowers("Gemm", products=((0, 1),), tangent=True)
def gemm(site: Site) -> Local:
    """Multiply each active matrix by the other."""
    alpha, beta = float(site.attribute("alpha", 1.0)), float(site.attribute("beta", 1.0))
    axes = ("km" if site.attribute("transA", 0) else "mk", "nk" if site.attribute("transB", 0) else "kn")

    def factor(position: int) -> Primitive:
        own, other = axes[position], axes[1 - position]
        return Contract(site.shape(position), alpha * site.value(1 - position), f"{own},{other}->mn")

    multiplied = product(site, factor)
    if beta == 0 or not site.has(2):
        return multiplied  # where beta is 0, C is not read, whatever it holds
    sizes = dict(zip("".join(axes), (*site.shape(0), *site.shape(1)), strict=True))
    return plus(site, multiplied, 2, (sizes["m"], sizes["n"]), weight=beta)
