"""Transpose: y = x with its axes permuted — a permutation matrix.

https://onnx.ai/onnx/operators/onnx__Transpose.html
"""

from ..runtime.primitives import Transpose
from ._rule import Local, Site, lowers


@lowers("Transpose")
def transpose(site: Site) -> Local:
    """Permute the axes; reversed by default."""
    rank = len(site.shape())
    return Local(Transpose(site.shape(), tuple(site.integers("perm", tuple(reversed(range(rank)))) or ())))
