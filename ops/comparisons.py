"""Equal, Greater, GreaterOrEqual, Less, LessOrEqual: which of two operands is larger, entry by entry.

Locally constant. Guard: the sign of the difference. Operators on the booleans that come out (And, Or, Not,
Xor) do not depend on x any more.
https://onnx.ai/onnx/operators/onnx__Greater.html, …Less.html, …Equal.html
"""

from ..runtime.program import Guard
from ._rule import Site, jumps, side_of


@jumps("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def compare(site: Site) -> tuple[Guard, ...]:
    """The sign of the difference."""
    return (side_of(site),)
