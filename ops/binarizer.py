"""Binarizer: y = 1 where x > threshold, else 0.

Locally constant. Guard: the side of the threshold.
https://onnx.ai/onnx/operators/onnx_aionnxml_Binarizer.html
"""

from ..runtime.program import Guard
from ._rule import Site, jumps, threshold


@jumps("Binarizer", domain="ai.onnx.ml")
def binarizer(site: Site) -> tuple[Guard, ...]:
    """The side of each entry."""
    return (threshold(site.value(), site.attribute("threshold", 0.0)),)
