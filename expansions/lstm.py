"""LSTM: Cₜ = fₜ ⊙ Cₜ₋₁ + iₜ ⊙ cₜ and Hₜ = oₜ ⊙ h(Cₜ) with the gates i (input), o (output) and f (forget):

    iₜ, fₜ = f(Xₜ Wᵀ + Hₜ₋₁ Rᵀ + P ⊙ Cₜ₋₁ + b), oₜ likewise with Cₜ, and cₜ = g(Xₜ W_cᵀ + Hₜ₋₁ R_cᵀ + b_c)

https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

from ._composite import Composite
from ._recurrent import Direction, recurrent, typical
from ._registry import expands


@expands("LSTM", shapes=(0, 2), values=(4,), typical=typical)
def lstm(site: Composite) -> tuple[str, ...]:
    """Y, Y_h and Y_c."""
    return recurrent(site, _cell, 4, ("Sigmoid", "Tanh", "Tanh"), states=(5, 6), peepholes=7)


def _cell(own: Direction, x: str, states: tuple[str, ...]) -> tuple[str, str]:
    H, C = states
    site = own.site

    def peeped(gate: str, part: int, cell: str) -> str:
        if own.peepholes is None:
            return gate
        return own.add(gate, site.node("Mul", own.peepholes[part], cell))

    i, o, f, c = own.gates(own.add(x, site.node("MatMul", H, own.recurrence)))
    i = own.activate(0, peeped(i, 0, C))
    coupled = bool(site.attribute("input_forget", 0))
    f = own.one_minus(i) if coupled else own.activate(0, peeped(f, 2, C))
    c = own.activate(1, c)
    C = own.add(site.node("Mul", f, C), site.node("Mul", i, c))
    o = own.activate(0, peeped(o, 1, C))
    return site.node("Mul", o, own.activations[2](C)), C
