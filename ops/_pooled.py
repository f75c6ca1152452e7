"""The largest entry of each group of positions: what MaxPool and ReduceMax share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array, Scale, Window, chain
from ..runtime.program import Guard, HalfSpaces
from ._moves import gathered
from ._rule import Local, Site


def extreme_of(site: Site, candidates: Array, sign: int = 1, window: Window | None = None) -> Local:
    """Lower y[o] = max over candidates[o, :] of sign·x, times sign.

    Args:
        site: the node; its operand 0 is observed.
        candidates: (*out_shape, n) flat positions in x; -1 for none (padding).
        sign: 1 for the largest, -1 for the smallest.
        window: what the candidates of every channel are, where they are a sliding window.

    Among equals the first candidate wins, as in onnxruntime.
    """
    values = sign * site.value().ravel()
    group = np.where(candidates < 0, -np.inf, values[candidates]).astype(values.dtype)  # (*out, n)
    best = group.argmax(axis=-1)[..., None]
    winner = np.take_along_axis(candidates, best, -1)[..., 0]
    top = np.take_along_axis(group, best, -1)[..., 0]
    np.put_along_axis(group, best, -np.inf, -1)
    margin = top - group.max(axis=-1)

    def half_spaces() -> HalfSpaces:
        """Sign · (winner - loser) ≥ 0, one row for each loser of each group."""
        losing = candidates >= 0
        np.put_along_axis(losing, best, False, -1)
        losers = candidates[losing]
        winners = np.broadcast_to(winner[..., None], candidates.shape)[losing]
        signed = np.array(float(sign))
        pair = [(gathered(site, index), factor) for index, factor in ((winners, signed), (losers, -signed))]
        return HalfSpaces(tuple((0, chain(g, Scale(g.out_shape, factor))) for g, factor in pair))

    picked = replace(gathered(site, winner), window=window)
    return Local(picked, guards=(Guard(winner, margin, half_spaces),))


def extreme_in_graph(site: Site, graph: Builder, candidates: Array, sign: int = 1) -> tuple[str, ...]:
    """The winners of `extreme_of`, for candidates that are all entries of x."""
    groups = graph.constant(candidates)
    entries = graph.node("Reshape", site.tensor(0), graph.constant([-1]))
    values = graph.node("Gather", entries, groups)  # (*out, n)
    best = graph.node("ArgMax" if sign > 0 else "ArgMin", values, axis=candidates.ndim - 1, keepdims=1)
    winner = graph.node("GatherElements", groups, best, axis=candidates.ndim - 1)
    return (graph.node("Squeeze", winner, graph.constant([candidates.ndim - 1])),)
