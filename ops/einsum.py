"""Einsum: y = the products of n operands along labelled axes, summed over labels that y does not have.

Linear in one operand for the others fixed: its diagonals where it repeats a label, then a contraction with
one operand after another.
https://onnx.ai/onnx/operators/onnx__Einsum.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ..runtime.primitives import Array, Contract, Primitive, Reshape, Scale, Shape, Sum, Transpose, chain
from ._moves import gathered, positions
from ._rule import Local, Site, lowers

_MOST = 64  # operands; numpy takes no more either
_ELLIPSIS = "0123456789"  # labels of the axes that "..." stands for; the last is the last axis


class _Equation(NamedTuple):
    """An equation without ellipsis, arrow and broadcasting."""

    operands: tuple[str, ...]  # one label for each axis
    output: str
    sizes: Mapping[str, int]

    def shape(self, labels: str) -> Shape:
        """The sizes of labels."""
        return tuple(self.sizes[label] for label in labels)


@lowers("Einsum", products=tuple(combinations(range(_MOST), 2)))
def einsum(site: Site) -> Local:
    """Contract the active operand with the others, those first that share a label with it."""
    equation = _equation(site)
    position = next(i for i in range(len(site.inputs)) if site.active(i))
    x, parts = _opened(site, position, equation)
    others = [_plain(site.value(i), equation, i) for i in range(len(site.inputs)) if i != position]
    while others:
        near = (i for i, (labels, _) in enumerate(others) if set(labels) & set(x))
        w, weight = others.pop(next(near, 0))
        needed = set(equation.output).union(*(labels for labels, _ in others))
        x, product = _contracted(x, w, weight, needed, equation)
        parts += product
    x, total = _summed(x, set(equation.output), equation)
    parts += total
    if x != equation.output or not parts:
        parts.append(Transpose(equation.shape(x), tuple(x.index(label) for label in equation.output)))
    return Local({position: chain(*parts)})


# -- the equation --------------------------------------------------------------------------------------


def _equation(site: Site) -> _Equation:
    """Name the axes of an ellipsis, and the output's where they are left out."""
    left, arrow, right = site.attribute("equation").replace(" ", "").partition("->")
    terms, shapes = left.split(","), [site.shape(i) for i in range(len(site.inputs))]
    hidden = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    operands = tuple(
        term.replace("...", _ELLIPSIS[len(_ELLIPSIS) - count :])
        for term, count in zip(terms, hidden, strict=True)
    )
    ellipsis = _ELLIPSIS[len(_ELLIPSIS) - max(hidden) :]
    if arrow:
        output = right.replace("...", ellipsis)
    else:
        counted = Counter(left.replace(",", "").replace(".", ""))
        output = ellipsis + "".join(sorted(label for label, count in counted.items() if count == 1))
    sizes: dict[str, int] = {}
    for labels, shape in zip(operands, shapes, strict=True):
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = sizes.get(label, 1) if size == 1 else size
    return _Equation(operands, output, sizes)


def _opened(site: Site, position: int, equation: _Equation) -> tuple[str, list[Primitive]]:
    """The active operand with every label once and in full size: diagonals, without axes to be broadcast."""
    shape = site.shape(position)
    labels, diagonal = _diagonal(positions(site, position), equation.operands[position])
    parts: list[Primitive] = [gathered(site, diagonal, position)] if diagonal.shape != shape else []
    kept = _full(labels, diagonal.shape, equation)
    if kept != labels:
        parts.append(Reshape(diagonal.shape, equation.shape(kept)))
    return kept, parts


def _plain(value: Array, equation: _Equation, position: int) -> tuple[str, Array]:
    """Another operand likewise."""
    labels, diagonal = _diagonal(value, equation.operands[position])
    kept = _full(labels, diagonal.shape, equation)
    return kept, diagonal.reshape(equation.shape(kept))


def _diagonal(value: Array, labels: str) -> tuple[str, Array]:
    """The labels without repetition, and the entries at which repeated ones agree."""
    distinct = "".join(dict.fromkeys(labels))
    return distinct, np.einsum(value, [distinct.index(a) for a in labels], list(range(len(distinct))))


def _full(labels: str, shape: Shape, equation: _Equation) -> str:
    """The labels of axes that are not to be broadcast."""
    return "".join(label for label, size in zip(labels, shape, strict=True) if size == equation.sizes[label])


# -- the map -------------------------------------------------------------------------------------------


def _contracted(
    x: str, w: str, weight: Array, needed: set[str], equation: _Equation
) -> tuple[str, list[Primitive]]:
    """The product with another operand, summed over labels that are not needed any more."""
    x, parts = _summed(x, needed | set(w), equation)
    alone = tuple(axis for axis, label in enumerate(w) if label not in needed and label not in x)
    weight = weight.sum(axis=alone, dtype=np.float64).astype(weight.dtype)
    w = "".join(label for axis, label in enumerate(w) if axis not in alone)
    y = "".join(label for label in dict.fromkeys(x + w) if label in needed)
    if set(y) == set(x):  # entry by entry
        order = sorted(range(len(w)), key=lambda axis: x.index(w[axis]))
        aligned = weight.transpose(order).reshape([equation.sizes[a] if a in w else 1 for a in x])
        return x, [*parts, Scale(equation.shape(x), aligned)]
    if set(y) == set(equation.output):
        y = equation.output
    return y, [*parts, Contract(equation.shape(x), weight, f"{x},{w}->{y}")]


def _summed(x: str, needed: set[str], equation: _Equation) -> tuple[str, list[Primitive]]:
    """The sum over labels that are not needed."""
    kept = "".join(label for label in x if label in needed)
    if kept == x:
        return x, []
    ones = tuple(equation.sizes[label] if label in needed else 1 for label in x)
    return kept, [Sum(equation.shape(x), ones), Reshape(ones, equation.shape(kept))]
