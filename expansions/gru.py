"""GRU: Hₜ = (1 - zₜ) ⊙ hₜ + zₜ ⊙ Hₜ₋₁ with the gates z (update) and r (reset):

    zₜ, rₜ = f(Xₜ Wᵀ + Hₜ₋₁ Rᵀ + b)
    hₜ = g(Xₜ W_hᵀ + (rₜ ⊙ Hₜ₋₁) R_hᵀ + b_h), or g(Xₜ W_hᵀ + rₜ ⊙ (Hₜ₋₁ R_hᵀ + Rb_h) + Wb_h)

https://onnx.ai/onnx/operators/onnx__GRU.html
"""

from __future__ import annotations

from ._composite import Composite
from ._recurrent import Direction, recurrent, typical
from ._registry import expands


@expands("GRU", shapes=(0, 2), values=(4,), typical=typical)
def gru(site: Composite) -> tuple[str, ...]:
    """Y and Y_h."""
    linear_first = bool(site.attribute("linear_before_reset", 0))
    return recurrent(
        site,
        _linear_first if linear_first else _reset_first,
        3,
        ("Sigmoid", "Tanh"),
        inputs_bias=_inputs_bias if linear_first else None,
    )


def _reset_first(own: Direction, x: str, states: tuple[str, ...]) -> tuple[str]:
    (H,) = states
    site = own.site
    x_z, x_r, x_h = own.gates(x)
    R_z, R_r, R_h = own.recurrences
    z = own.activate(0, own.add(x_z, site.node("MatMul", H, R_z)))
    r = own.activate(0, own.add(x_r, site.node("MatMul", H, R_r)))
    h = own.activate(1, own.add(x_h, site.node("MatMul", site.node("Mul", r, H), R_h)))
    return (_mixed(own, z, h, H),)


def _linear_first(own: Direction, x: str, states: tuple[str, ...]) -> tuple[str]:
    (H,) = states
    site = own.site
    recurred = site.node("MatMul", H, own.recurrence)
    if own.biases is not None:
        recurred = own.add(recurred, own.biases[1])
    x_z, x_r, x_h = own.gates(x)
    h_z, h_r, h_h = own.gates(recurred)
    z, r = (own.activate(0, own.add(*parts)) for parts in ((x_z, h_z), (x_r, h_r)))
    h = own.activate(1, own.add(x_h, site.node("Mul", r, h_h)))
    return (_mixed(own, z, h, H),)


def _mixed(own: Direction, z: str, h: str, H: str) -> str:
    site = own.site
    return own.add(site.node("Mul", own.one_minus(z), h), site.node("Mul", z, H))


def _inputs_bias(_: Direction, biases: tuple[str, str]) -> str:
    return biases[0]
