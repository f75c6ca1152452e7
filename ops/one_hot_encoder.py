"""OneHotEncoder: y = a 1 at the category that x is and 0 elsewhere, along a new last axis.

Locally constant: what is behind the point of x is dropped first. Guard: the integers on either side.
https://onnx.ai/onnx/operators/onnx_aionnxml_OneHotEncoder.html
"""

from ..runtime.program import Guard
from ._rule import Site, jumps
from .rounding import towards_zero


@jumps("OneHotEncoder", domain="ai.onnx.ml")
def one_hot_encoder(site: Site) -> tuple[Guard, ...]:
    """The integer part of each entry."""
    return (towards_zero(site.value()),)
