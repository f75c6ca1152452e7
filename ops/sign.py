"""Sign, IsInf, IsNaN: y tells which side of 0 each entry is on, or whether it is finite.

Locally constant. Guard of Sign: the side of 0, and 0 itself. Values at x are finite, so the others stay.
https://onnx.ai/onnx/operators/onnx__Sign.html, …IsInf.html, …IsNaN.html
"""

from ..runtime.program import Guard
from ._rule import Site, jumps, locally_constant, sign_of


@jumps("Sign")
def sign(site: Site) -> tuple[Guard, ...]:
    """The side of 0."""
    return (sign_of(site.value()),)


locally_constant(__name__, "IsInf", "IsNaN")
