"""Activations that onnxruntime's optimiser puts into the node before them: y = f(z), z affine in the inputs.

f is a few straight pieces. z is no tensor of the model, so it is evaluated here, at the inputs' values at x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from ..runtime.primitives import Scale, chain
from ..runtime.program import Guard, HalfSpaces
from ._rule import Local, Site


@dataclass(frozen=True)
class Pieces:
    """A piecewise linear function; a kink belongs to the piece below it."""

    kinks: tuple[float, ...]  # rising
    slopes: tuple[float, ...]  # of the pieces, one more than kinks
    intercepts: tuple[float, ...]


def pieces_of(site: Site, activation: str, parameters: Sequence[float]) -> Pieces:
    """An activation by its name in ONNX and its parameters in onnxruntime's order."""
    if activation == "Relu":
        return Pieces((0.0,), (0.0, 1.0), (0.0, 0.0))
    if activation == "LeakyRelu":
        (alpha,) = parameters or (0.01,)
        return Pieces((0.0,), (alpha, 1.0), (0.0, 0.0))
    if activation == "Clip":
        low, high = min(parameters), parameters[1]  # the upper bound is applied last
        return Pieces((low, high), (0.0, 1.0, 0.0), (low, 0.0, high))
    if activation == "HardSigmoid":
        alpha, beta = parameters or (0.2, 0.5)
        if alpha == 0:
            return Pieces((), (0.0,), (min(max(beta, 0.0), 1.0),))
        low, high = sorted((-beta / alpha, (1 - beta) / alpha))
        return Pieces((low, high), (0.0, alpha, 0.0), (0.0, beta, 1.0) if alpha > 0 else (1.0, beta, 0.0))
    raise site.refuse(
        f"its activation {activation!r} is smooth, and no rule takes it within the node; compile the model "
        "before onnxruntime's optimiser, or as it saves it at ORT_ENABLE_BASIC, where it is a node by itself"
    )


def activated(site: Site, z: Local, pieces: Pieces) -> Local:
    """Lower f(z) for a node whose active inputs are all observed."""
    terms, offset = dict(z.by_position), np.asarray(0.0 if z.offset is None else z.offset)
    value = reduce(np.add, (L.apply(site.value(i)[None])[0] for i, L in terms.items()), offset)
    piece = sum((value > kink).astype(np.int8) for kink in pieces.kinks)
    slope = np.array(pieces.slopes)[piece]
    size = offset if z.offset_size is None else z.offset_size

    def guard(kink: float) -> Guard:
        above = value > kink

        def half_spaces() -> HalfSpaces:
            sign = np.where(above, 1, -1).astype(value.dtype)
            sides = tuple((i, chain(L, Scale(value.shape, sign))) for i, L in terms.items())
            return HalfSpaces(sides, sign * (offset - kink))

        return Guard(above, lambda: np.abs(value - kink), half_spaces)

    return Local(
        {i: chain(L, Scale(value.shape, slope)) for i, L in terms.items()},
        slope * offset + np.array(pieces.intercepts)[piece],
        tuple(map(guard, filter(np.isfinite, pieces.kinks))),
        offset_size=np.abs(slope) * np.abs(size) + np.abs(np.array(pieces.intercepts)[piece]),
    )
