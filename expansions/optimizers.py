"""Adagrad, Adam, Momentum: one step of a training algorithm, for any number of tensors.

Written out by their definitions, in Add, Mul, Div, Sqrt and Sub. X, G, V and H are a tensor, its gradient and
the averages of the gradients and of their squares.
https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Adam.html, …Adagrad.html, …Momentum.html
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ._composite import Composite
from ._registry import expands

_TRAINING = "ai.onnx.preview.training"
_RATE, _COUNT, _FIRST = range(3)  # positions of R, T and the first X


@expands("Adagrad", domain=_TRAINING, values=(_COUNT,))
def adagrad(node: Composite) -> tuple[str, ...]:
    """H + G², and X - R G / (√H + ε), the rate falling with the count."""
    step = _Step(node)
    rate = node.node(
        "Div", node.inputs[_RATE], step.number(1 + step.count * float(node.attribute("decay_factor", 0.0)))
    )
    xs, hs = [], []
    for x, g, h in _groups(node, 3):
        gradient = step.regularised(x, g)
        h = node.node("Add", h, node.node("Mul", gradient, gradient))
        moved = node.node("Div", node.node("Mul", rate, gradient), step.deviation(h))
        xs.append(node.node("Sub", x, moved))
        hs.append(h)
    return (*xs, *hs)


@expands("Adam", domain=_TRAINING, values=(_COUNT,))
def adam(node: Composite) -> tuple[str, ...]:
    """Averages of G and G², and X - R V / (√H + ε), the rate making up for averages that start at 0."""
    step = _Step(node)
    alpha, beta = float(node.attribute("alpha", 0.9)), float(node.attribute("beta", 0.999))
    making_up = np.sqrt(1 - beta**step.count) / (1 - alpha**step.count) if step.count > 0 else 1.0
    rate = step.times(float(making_up), node.inputs[_RATE])
    xs, vs, hs = [], [], []
    for x, g, v, h in _groups(node, 4):
        gradient = step.regularised(x, g)
        v = node.node("Add", step.times(alpha, v), step.times(1 - alpha, gradient))
        square = node.node("Mul", gradient, gradient)
        h = node.node("Add", step.times(beta, h), step.times(1 - beta, square))
        x = node.node("Sub", x, node.node("Div", node.node("Mul", rate, v), step.deviation(h)))
        xs.append(step.times(1 - float(node.attribute("norm_coefficient_post", 0.0)), x))
        vs.append(v)
        hs.append(h)
    return (*xs, *vs, *hs)


@expands("Momentum", domain=_TRAINING, values=(_COUNT,))
def momentum(node: Composite) -> tuple[str, ...]:
    """α V + β G, and X less R times that; or, after Nesterov, R (G + α V)."""
    step, rate = _Step(node), node.inputs[_RATE]
    alpha = float(node.attribute("alpha"))
    beta = float(node.attribute("beta")) if step.count > 0 else 1.0
    xs, vs = [], []
    for x, g, v in _groups(node, 3):
        gradient = step.regularised(x, g)
        v = node.node("Add", step.times(alpha, v), step.times(beta, gradient))
        ahead = v
        if node.attribute("mode") == "nesterov":
            ahead = node.node("Add", gradient, step.times(alpha, v))
        xs.append(node.node("Sub", x, node.node("Mul", rate, ahead)))
        vs.append(v)
    return (*xs, *vs)


def _groups(node: Composite, kinds: int) -> Iterator[tuple[str, ...]]:
    """X, G and what follows of each tensor; the inputs list all X first, then all G, and so on."""
    every = node.inputs[_FIRST:]
    count = len(every) // kinds
    return zip(*(every[kind * count : (kind + 1) * count] for kind in range(kinds)), strict=True)


class _Step:
    """What the algorithms share."""

    def __init__(self, node: Composite) -> None:
        self.node = node
        self.count = node.integer(_COUNT, 1)  # of the steps before this one; 1 before anything has run

    def number(self, value: float) -> str:
        """A constant in the type of the tensors."""
        return self.node.constant(np.asarray(value, self.node.dtype(_FIRST)))

    def times(self, factor: float, tensor: str) -> str:
        """The tensor times a number."""
        return self.node.node("Mul", self.number(factor), tensor)

    def regularised(self, x: str, gradient: str) -> str:
        """G + c X, the gradient with that of ½ c |X|²."""
        coefficient = float(self.node.attribute("norm_coefficient", 0.0))
        return self.node.node("Add", self.times(coefficient, x), gradient)

    def deviation(self, squares: str) -> str:
        """√H + ε."""
        epsilon = float(self.node.attribute("epsilon", 0.0))
        return self.node.node("Add", self.node.node("Sqrt", squares), self.number(epsilon))
