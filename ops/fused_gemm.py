"""com.microsoft.FusedGemm: Y = f(alpha · A' B' + beta · C), a Gemm with the activation behind it.

At x: the Gemm, scaled by the slope of the piece of f that each sum lies on. Guards: the side of every kink.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedGemm
"""

from ..runtime.program import Kind
from ._fused import activated, pieces_of
from ._rule import Local, Site, lowers
from .gemm import gemm


@lowers("FusedGemm", domain="com.microsoft", kind=Kind.PIECEWISE_LINEAR, observes=None, products=((0, 1),))
def fused_gemm(site: Site) -> Local:
    """Multiply, add, activate."""
    given = [site.attribute(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    parameters = [value for value in given if value is not None]
    return activated(site, gemm(site), pieces_of(site, site.attribute("activation", ""), parameters))
