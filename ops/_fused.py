"""Activations that onnxruntime's optimiser puts into the node before them: y = f(z), z affine in the inputs.

z is no tensor of the model, so it is evaluated here, at the inputs' values at x. f is lowered there by the
rule of the activation itself, which sees z as the operand of a node of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from ..runtime.primitives import Array, chain
from ..runtime.program import Guard, HalfSpaces
from ._rule import Local, Operand, Reading, Rule, Site, When
from .clip import clip
from .elu import celu, elu, selu
from .hard_sigmoid import hard_sigmoid
from .hyperbolic import tanh
from .leaky_relu import leaky_relu
from .relu import relu
from .sigmoid import sigmoid
from .softplus import softplus, softsign
from .swish import hard_swish, swish
from .thresholded_relu import thresholded_relu

# Rules by the names of their operators, with their attributes in onnxruntime's order.
_STRAIGHT: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "Relu": (relu, ()),
    "LeakyRelu": (leaky_relu, ("alpha",)),
    "ThresholdedRelu": (thresholded_relu, ("alpha",)),
    "Clip": (clip, ("min", "max")),
    "HardSigmoid": (hard_sigmoid, ("alpha", "beta")),
}
_GATES: dict[str, tuple[Rule, tuple[str, ...]]] = {"Sigmoid": (sigmoid, ()), "Tanh": (tanh, ())}
_CURVED: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "HardSwish": (hard_swish, ()),
    "Elu": (elu, ("alpha",)),
    "Celu": (celu, ("alpha",)),
    "Selu": (selu, ("alpha", "gamma")),
    "Softplus": (softplus, ()),
    "Softsign": (softsign, ()),
    "Swish": (swish, ("alpha",)),
}
_RULES = _STRAIGHT | _GATES | _CURVED


def _among(names: Mapping[str, Any]) -> When:
    return lambda attributes, _: attributes.get("activation") in names


gates, curved = _among(_GATES), _among(_CURVED)


def other(attributes: Mapping[str, Any], reading: Reading) -> bool:
    """Whether the activation is piecewise linear, or none that is known."""
    return not gates(attributes, reading) and not curved(attributes, reading)


def named(site: Site, activation: str, parameters: Sequence[float]) -> Mapping[str, float]:
    """The attributes of an activation from its parameters in onnxruntime's order."""
    _, names = _known(site, activation)
    return dict(zip(names, parameters, strict=False))


def activated(site: Site, z: Local, activation: str, attributes: Mapping[str, float]) -> Local:
    """Lower f(z) for a node whose active inputs are all observed.

    Raises:
        UnsupportedError: an activation that no rule here takes.
    """
    rule, _ = _known(site, activation)
    terms, a = z.by_position, np.asarray(0.0 if z.offset is None else z.offset)
    at_x = reduce(np.add, (L.apply(site.value(i)[None])[0] for i, L in terms), a)
    operand = Operand("z", at_x.shape, True, at_x)
    local = rule(
        replace(site, op_type=activation, domain="", attributes=attributes, inputs=(operand,), formal=("X",))
    )
    assert isinstance(local, Local)
    ((_, S),) = local.by_position

    def of(value: Array) -> Array:
        """What S makes of a value of z."""
        return np.asarray(S.apply(np.broadcast_to(value, at_x.shape)[None])[0])

    c = np.asarray(0.0 if local.offset is None else local.offset)
    size = np.abs(c if local.offset_size is None else local.offset_size)
    own = np.abs(of(a if z.offset_size is None else np.asarray(z.offset_size)))
    return replace(
        local,
        terms=[(i, chain(L, S)) for i, L in terms],
        offset=of(a) + c,
        offset_size=own + size,
        guards=tuple(_on_inputs(guard, z, a) for guard in local.guards),
    )


def _known(site: Site, activation: str) -> tuple[Rule, tuple[str, ...]]:
    found = _RULES.get(activation)
    if found is None:
        raise site.refuse(
            f"no rule takes its activation {activation!r} within the node; compile the model before "
            "onnxruntime's optimiser, or as it saves it at ORT_ENABLE_BASIC, where it is a node by itself"
        )
    return found


def _on_inputs(guard: Guard, z: Local, a: Array) -> Guard:
    """A guard of z = Σ Lᵢ xᵢ + a, its half-spaces stated in the inputs."""

    def half_spaces() -> HalfSpaces:
        own = guard.half_spaces()
        rows, c = [], own.offset
        for _, T in own.terms:
            rows += [(i, chain(L, T)) for i, L in z.by_position]
            c = c + T.apply(np.broadcast_to(a, T.in_shape)[None])[0]
        return HalfSpaces(tuple(rows), c)

    return replace(guard, half_spaces=half_spaces)
