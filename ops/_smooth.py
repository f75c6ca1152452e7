"""Tangents of smooth operators: y = f(u) becomes J u + (f(u) - J u) at u.

f comes from the operator's equation, never from what was observed; a wrong f is found at x, and a wrong J by
differences of f (compiler/slopes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Primitive, Scale, Shape, chain
from ..runtime.program import Guard, Kind
from ._rule import Local, Site

# Errors, in units of roundoff of |f(u)| + |f'(u) u|, by which implementations of exp, tanh, erf and their
# like may be off: they approximate by polynomials of their own. Measured on the kernels of onnxruntime 1.32
# (x86-64, half a million arguments from ±1e-8 to ±30): 8 for tanh in float64, 5 in float32, below 5 for all
# others. Where a kernel rounds something larger than its result, such as exp(u) - 1, a rule gives the `size`
# of that.
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
    site: Site,
    f: Function,
    slope: Function,
    *,
    gate: Function | None = None,
    guards: tuple[Guard, ...] = (),
    straight: Array | None = None,
    size: Array | float | None = None,
) -> Local:
    """An operator that takes every entry by itself.

    Args:
        site: the node; operand 0 is observed.
        f: the function.
        slope: its derivative.
        gate: f(u) / u where the operator weighs u by a gate; what frozen mode holds.
        guards: of the piece within which f is smooth.
        straight: entries around which f(u) = slope · u; where all are, the answer holds on their piece.
        size: of what onnxruntime rounds behind f(u), where that is larger.
    """
    u = site.value()
    with np.errstate(all="ignore"):  # what is not finite is found by name, in the values at x
        if straight is not None and straight.all():
            return Local(Scale(u.shape, slope(u)), guards=guards, kind=Kind.PIECEWISE_LINEAR)
        if site.reading.frozen and gate is not None:
            offset = None if size is None else 0.0  # whose size the output's rounding is measured against
            weigh = Scale(u.shape, gate(u))
            return Local(weigh, offset, offset_size=size, frozen=True, roundings=TRANSCENDENTAL)
        J = Scale(u.shape, finite(site, np.asarray(slope(u))))
        return tangent(site, np.asarray(f(u)), [(0, J)], guards=guards, size=size)


def elementwise_in_graph(site: Site, graph: Builder, slope: str) -> tuple[str, str]:
    """What explains `elementwise` without a gate: the offset f(u) - slope · u, and the slope."""
    return graph.node("Sub", site.outputs[0], graph.node("Mul", slope, site.tensor())), slope


def finite(site: Site, slope: Array, position: int = 0) -> Array:
    """The slopes, or a refusal where one is infinite or not defined: √x at 0, powers of a negative base."""
    bad = np.argwhere(~np.isfinite(slope))
    if len(bad):
        where = ", ".join(map(str, bad[0])) or "the scalar"
        u = np.broadcast_to(site.value(position), slope.shape)[tuple(bad[0])]
        raise site.refuse(
            f"its slope in {site.tensor(position)!r} is not finite at entry {where}, which is {u:g}"
        )
    return slope


def product(site: Site, factor: Callable[[int], Primitive], positions: tuple[int, int] = (0, 1)) -> Local:
    """An operator that multiplies two operands, linear in each.

    Args:
        site: the node; where both operands are active, their values are observed.
        factor: the map of one operand, by its position, with the other at its value.
        positions: of the two operands. Where neither is active the product is an offset.
    """
    active = [position for position in positions if site.active(position)]
    terms = [(position, factor(position)) for position in active or positions[:1]]
    if len(active) == 1:
        return Local(terms)
    if len(active) == 2 and site.reading.frozen:
        halves = [(position, chain(L, Scale(L.out_shape, np.array(0.5)))) for position, L in terms]
        return Local(halves, frozen=True)
    first, L = terms[0]
    y = L.apply(site.value(first)[None])[0]
    size = L.magnitude().apply(np.abs(site.value(first))[None])[0]
    if not active:
        return Local((), y, offset_size=L.fan_in * size)
    return tangent(site, y, terms, size=size, roundings=L.fan_in)


def plus(
    site: Site, local: Local, position: int, shape: Shape, aligned: Shape | None = None, weight: float = 1.0
) -> Local:
    """A product and an operand that is added to it: one more term, or a share of the offset.

    Args:
        site: the node.
        local: the product.
        position: of the operand.
        shape: of the output.
        aligned: what the operand is read as before it is broadcast, by default its own shape.
        weight: what the operand is multiplied by.
    """
    if site.active(position):
        spread = site.spread(position, shape, aligned)
        term = spread if weight == 1 else chain(spread, Scale(shape, np.array(weight)))
        return replace(local, terms=(*local.by_position, (position, term)))
    value = site.value(position)
    share = weight * value.reshape(value.shape if aligned is None else aligned)
    if local.offset is None:
        return replace(local, offset=share)
    size = local.offset if local.offset_size is None else local.offset_size
    return replace(local, offset=local.offset + share, offset_size=np.abs(size) + np.abs(share))
