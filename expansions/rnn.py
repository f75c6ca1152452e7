"""RNN: Hₜ = f(Xₜ Wᵀ + Hₜ₋₁ Rᵀ + b), one step after the other.

https://onnx.ai/onnx/operators/onnx__RNN.html
"""

from __future__ import annotations

from ._composite import Composite
from ._recurrent import Direction, recurrent, typical
from ._registry import expands


@expands("RNN", shapes=(0, 2), values=(4,), typical=typical)
def rnn(site: Composite) -> tuple[str, ...]:
    """Y and Y_h."""
    return recurrent(site, _cell, 1, ("Tanh",))


def _cell(own: Direction, x: str, states: tuple[str, ...]) -> tuple[str]:
    (H,) = states
    return (own.activate(0, own.add(x, own.site.node("MatMul", H, own.recurrence))),)
