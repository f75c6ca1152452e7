"""Tangents of smooth operators: y = f(u) becomes J u + (f(u) - J u) at u.

f comes from the operator's equation, never from what was observed; a wrong f is found at x, and a wrong J by
differences of f (compiler/slopes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..runtime.primitives import Array, Primitive, Scale, chain
from ..runtime.program import Guard
from ._rule import Local, Site

# Relative errors, in units of the arithmetic's roundoff, by which implementations of exp, tanh, erf and their
# like may differ from each other: they approximate by polynomials of their own.
TRANSCENDENTAL = 16

Function = Callable[[Array], Array]


def tangent(
    site: Site,
    value: Array,
    terms: Sequence[tuple[int, Primitive]],
    *,
    guards: tuple[Guard, ...] = (),
    roundings: int = TRANSCENDENTAL,
    size: Array | float | None = None,
) -> Local:
    """The affine map with Jacobian `terms` that takes the given value at x.

    Args:
        site: the node; the values of its active operands are observed.
        value: f(u), in the output's shape, from the operator's equation.
        terms: the Jacobian in each active operand.
        guards: of a piece within which f is smooth.
        roundings: behind one entry of f(u).
        size: Σ |parts| where f(u) is itself a sum whose parts may cancel.
    """
    offset = value
    sizes = np.abs(value if size is None else size)
    for position, L in terms:
        u = site.value(position)[None]
        offset = offset - L.apply(u)[0]
        sizes = sizes + L.magnitude().apply(np.abs(u))[0]
    return Local(tuple(terms), offset, guards, offset_size=sizes, roundings=roundings)


def elementwise(
    site: Site, f: Function, slope: Function, *, gate: Function | None = None, guards: tuple[Guard, ...] = ()
) -> Local:
    """An operator that takes every entry by itself.

    Args:
        site: the node; operand 0 is observed.
        f: the function.
        slope: its derivative.
        gate: f(u) / u where the operator weighs u by a gate; what frozen mode holds.
        guards: of the piece within which f is smooth.
    """
    u = site.value()
    with np.errstate(all="ignore"):  # what is not finite is found by name, in the values at x
        if site.reading.frozen and gate is not None:
            return Local(Scale(u.shape, gate(u)), frozen=True, roundings=TRANSCENDENTAL)
        return tangent(site, f(u), [(0, Scale(u.shape, slope(u)))], guards=guards)


def product(
    site: Site,
    factor: Callable[[int], Primitive],
    positions: tuple[int, int] = (0, 1),
    offset: Array | None = None,
) -> Local:
    """An operator that multiplies two operands, linear in each.

    Args:
        site: the node; where both operands are active, their values are observed.
        factor: the map of one operand, by its position, with the other at its value.
        positions: of the two operands.
        offset: what is added to the product.
    """
    active = [position for position in positions if site.active(position)]
    terms = [(position, factor(position)) for position in active]
    if len(terms) < 2:
        return Local(terms, offset)
    if site.reading.frozen:
        halves = [(position, chain(L, Scale(L.out_shape, np.array(0.5)))) for position, L in terms]
        return Local(halves, offset, frozen=True)
    first, L = terms[0]
    y = L.apply(site.value(first)[None])[0]
    size = L.magnitude().apply(np.abs(site.value(first))[None])[0]
    fixed = 0 if offset is None else offset
    return tangent(site, y + fixed, terms, size=size + np.abs(fixed), roundings=L.fan_in)
