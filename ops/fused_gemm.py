"""com.microsoft.FusedGemm: Y = f(alpha · A' B' + beta · C), a Gemm with the activation behind it.

At x: the Gemm, scaled by the slope of f at each sum. Guards: those of f, such as the side of every kink.
Where f is smooth, so is the node; frozen mode holds what f weighs its argument by.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedGemm
"""

from functools import partial

from ..runtime.program import Kind
from ._fused import activated, curved, gates, other
from ._rule import Local, Site, lowers
from .gemm import gemm

_fused = partial(lowers, "FusedGemm", domain="com.microsoft", observes=None, products=((0, 1),))


@_fused(kind=Kind.PIECEWISE_LINEAR, when=other)
@_fused(kind=Kind.SMOOTH, when=gates, gate=True)
@_fused(kind=Kind.SMOOTH, when=curved)
def fused_gemm(site: Site) -> Local:
    """Multiply, add, activate."""
    given = {name: site.attribute(f"activation_{name}") for name in ("alpha", "beta", "gamma")}
    attributes = {name: value for name, value in given.items() if value is not None}
    return activated(site, gemm(site), site.attribute("activation", ""), attributes)
