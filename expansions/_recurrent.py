"""What RNN, GRU and LSTM share: directions, layouts, lengths, states, activations.

One step of one direction is a cell, a function of the step's inputs and the states before it. The inputs'
part of all steps, X Wᵀ + b, is one product ahead of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..runtime.primitives import Array
from ._composite import Composite, Facts

Activation = Callable[[str], str]
Cell = Callable[["Direction", str, tuple[str, ...]], tuple[str, ...]]

# Of activations, with onnxruntime's defaults: 0 where ONNX leaves them open, and for ThresholdedRelu, where
# ONNX says 1.
_PARAMETERS = {
    "Affine": {"alpha": 0.0, "beta": 0.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "Relu": {},
    "ScaledTanh": {"alpha": 0.0, "beta": 0.0},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
    "ThresholdedRelu": {"alpha": 0.0},
}


@dataclass(frozen=True)
class Direction:
    """One direction of a recurrent node."""

    site: Composite
    hidden: int
    count: int  # of gates
    recurrence: str  # Rᵀ, (hidden, gates · hidden)
    biases: tuple[str, str] | None  # of the inputs and of the recurrence, each (gates · hidden,)
    peephole: str | None  # (3 · hidden,)
    activations: tuple[Activation, ...]

    def gates(self, tensor: str) -> list[str]:
        """A tensor taken apart along its last axis, gate by gate."""
        return self.site.split(tensor, [self.hidden] * self.count, -1)

    @cached_property
    def recurrences(self) -> list[str]:
        """Rᵀ gate by gate."""
        return self.gates(self.recurrence)

    @cached_property
    def peepholes(self) -> list[str] | None:
        """The three peepholes, or None."""
        return None if self.peephole is None else self.site.split(self.peephole, [self.hidden] * 3, 0)

    @cached_property
    def _bounds(self) -> tuple[str, str]:
        clip, dtype = self.site.attribute("clip"), self.site.dtype(0)
        return self.site.constant(np.array(-clip, dtype)), self.site.constant(np.array(clip, dtype))

    @cached_property
    def _one(self) -> str:
        return self.site.constant(np.array(1, self.site.dtype(0)))

    def add(self, *tensors: str) -> str:
        """The sum of tensors."""
        total, *others = tensors
        for other in others:
            total = self.site.node("Add", total, other)
        return total

    def activate(self, which: int, tensor: str) -> str:
        """An activation, its input clipped where the node asks for it."""
        site, bound = self.site, self.site.attribute("clip")
        if bound and site.opset >= 11:
            tensor = site.node("Clip", tensor, *self._bounds)
        elif bound:
            tensor = site.node("Clip", tensor, min=-bound, max=bound)
        return self.activations[which](tensor)

    def one_minus(self, tensor: str) -> str:
        """1 - tensor."""
        return self.site.node("Sub", self._one, tensor)


def typical(_: Composite) -> tuple[Facts, ...]:
    """Two steps, whatever the model's shapes are: the second one's states depend on the first."""
    return (Facts(shapes={0: (2, 2, 2), 2: (2, 2, 2)}),)


def recurrent(
    site: Composite,
    cell: Cell,
    gates: int,
    defaults: Sequence[str],
    *,
    states: Sequence[int] = (5,),
    inputs_bias: Callable[[Direction, tuple[str, str]], str] | None = None,
    peepholes: int | None = None,
) -> tuple[str, ...]:
    """Write out all steps of all directions.

    Args:
        site: the node.
        cell: one step: the direction, its inputs' part (batch, gates · hidden), the states (batch, hidden)
            before it, to the states behind it, the first of which is the output.
        gates: how many blocks of rows the weights have.
        defaults: the activations of one direction.
        states: positions of the inputs that hold the first states.
        inputs_bias: what of the biases is added to the inputs' part; None for all.
        peepholes: position of that input.
    """
    batch_first = bool(site.attribute("layout", 0))
    steps, batch = site.shape(0)[:2][:: -1 if batch_first else 1]
    hidden = site.attribute("hidden_size") or site.shape(2)[-1]
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[
        site.attribute("direction", "forward")
    ]
    site.require_room(steps * len(ways) * (8 + 4 * gates), f"its {steps:,} steps")
    X = _moved(site, site.inputs[0], (1, 0, 2), batch_first)
    activations = list(_activations(site, [*defaults] * len(ways)))
    lengths = site.value(4)
    outputs, last = [], []
    for d, backwards in enumerate(ways):
        way = ("reverse/" if backwards else "forward/") if len(ways) > 1 else ""
        site.part = way
        own = activations[d * len(defaults) : (d + 1) * len(defaults)]
        direction = _direction(site, d, gates, hidden, own, peepholes)
        part = site.node("MatMul", X, _transposed(site, site.inputs[1], d))
        if direction.biases is not None:
            bias = (inputs_bias or _all)(direction, direction.biases)
            part = site.node("Add", part, bias)
        carried = tuple(
            site.take(_moved(site, site.inputs[i], (1, 0, 2), batch_first), d, 0)
            if site.has(i)
            else site.constant(np.zeros((batch, hidden), site.dtype(0)))
            for i in states
        )
        given = {}
        for t in range(steps)[:: -1 if backwards else 1]:
            site.part = f"{way}{t}/"
            found = cell(direction, site.take(part, t, 0), carried)
            given[t], carried = _masked(site, found, carried, lengths, t)
        site.part = ""
        outputs.append([given[t] for t in range(steps)])
        last.append(carried)
    Y = site.stack([site.stack(each, 0) for each in outputs], 1)  # (steps, directions, batch, hidden)
    ends = [site.stack([states[i] for states in last], 0) for i in range(len(states))]
    return (
        _moved(site, Y, (2, 0, 1, 3), batch_first),
        *(_moved(site, end, (1, 0, 2), batch_first) for end in ends),
    )


def _direction(
    site: Composite,
    d: int,
    gates: int,
    hidden: int,
    activations: Sequence[Activation],
    peepholes: int | None,
) -> Direction:
    biases = None
    if site.has(3):
        inputs, recurrence = site.split(site.take(site.inputs[3], d, 0), [gates * hidden] * 2, 0)
        biases = (inputs, recurrence)
    own = site.take(site.inputs[peepholes], d, 0) if peepholes is not None and site.has(peepholes) else None
    return Direction(
        site, hidden, gates, _transposed(site, site.inputs[2], d), biases, own, tuple(activations)
    )


def _all(direction: Direction, biases: tuple[str, str]) -> str:
    return direction.add(*biases)


def _transposed(site: Composite, weights: str, d: int) -> str:
    return site.node("Transpose", site.take(weights, d, 0), perm=[1, 0])


def _moved(site: Composite, tensor: str, perm: Sequence[int], batch_first: bool) -> str:
    return site.node("Transpose", tensor, perm=list(perm)) if batch_first else tensor


def _masked(
    site: Composite, found: tuple[str, ...], before: tuple[str, ...], lengths: Array | None, t: int
) -> tuple[str, tuple[str, ...]]:
    """The output and the states behind a step: where a sequence has ended, 0 and the states before it."""
    if lengths is None or bool((t < lengths).all()):
        return found[0], found
    dtype = site.dtype(0)
    goes_on = site.constant((t < lengths)[:, None].astype(dtype))
    ended = site.constant((t >= lengths)[:, None].astype(dtype))
    kept = [site.node("Mul", state, goes_on) for state in found]
    carried = tuple(
        site.node("Add", new, site.node("Mul", old, ended)) for new, old in zip(kept, before, strict=True)
    )
    return kept[0], carried


def _activations(site: Composite, defaults: Sequence[str]) -> Iterator[Activation]:
    """The activations of all directions; their parameters are handed out in order, to those that take any."""
    known = {name.lower(): name for name in _PARAMETERS}
    left = {name: list(site.attribute(f"activation_{name}", [])) for name in ("alpha", "beta")}
    for given in site.attribute("activations", defaults):
        if given.lower() not in known:
            raise site.refuse(f"unknown activation {given!r}; known are {', '.join(_PARAMETERS)}")
        name = known[given.lower()]
        values = {
            key: left[key].pop(0) if left[key] else default for key, default in _PARAMETERS[name].items()
        }
        yield _activation(site, name, values)


def _activation(site: Composite, name: str, values: dict[str, float]) -> Activation:
    def plain(x: str) -> str:
        return site.node(name, x, **values)

    if name not in ("Affine", "ScaledTanh"):
        return plain
    alpha, beta = (site.constant(np.array(values[key], site.dtype(0))) for key in ("alpha", "beta"))

    def affine(x: str) -> str:
        return site.node("Add", site.node("Mul", x, alpha), beta)

    def scaled_tanh(x: str) -> str:
        return site.node("Mul", site.node("Tanh", site.node("Mul", x, beta)), alpha)

    return affine if name == "Affine" else scaled_tanh
