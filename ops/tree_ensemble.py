"""TreeEnsemble, TreeEnsembleRegressor, TreeEnsembleClassifier: y = a sum over the leaves that x falls into.

Locally constant. Guard: the leaf of each tree; what keeps it are the splits on the way, each an interval of
one feature.
https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html, …TreeEnsembleRegressor.html,
…TreeEnsembleClassifier.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..runtime.primitives import Array, Scale, chain
from ..runtime.program import Guard, HalfSpaces
from ._moves import gathered
from ._rule import Site, jumps

# In the order of TreeEnsemble's numbers; the other operators spell them out, and mark leaves.
_MODES = np.array([f"BRANCH_{mode}" for mode in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")])


@jumps("TreeEnsembleRegressor", "TreeEnsembleClassifier", domain="ai.onnx.ml")
def trees_of_named_nodes(site: Site) -> tuple[Guard, ...]:
    """The leaves; nodes are named by the numbers of their tree and of their own."""
    tree, node = (np.asarray(site.attribute(f"nodes_{name}")) for name in ("treeids", "nodeids"))
    modes = np.asarray(site.attribute("nodes_modes"))
    span = node.max() + 1
    names = tree * span + node
    order = np.argsort(names)

    def child(name: str) -> Array:
        named = np.where(modes == "LEAF", node, site.attribute(f"nodes_{name}nodeids"))
        return np.asarray(order[np.searchsorted(names[order], tree * span + named)])

    values = np.asarray(site.attribute("nodes_values_as_tensor", site.attribute("nodes_values")), np.float64)
    roots = np.unique(tree, return_index=True)[1]
    feature = np.asarray(site.attribute("nodes_featureids"))
    return (
        _leaves(
            site, _Forest.of(modes, feature, values, values[:, None], child("true"), child("false"), roots)
        ),
    )


@jumps("TreeEnsemble", domain="ai.onnx.ml")
def trees_of_counted_nodes(site: Site) -> tuple[Guard, ...]:
    """The leaves; branches and leaves are counted each for themselves."""
    branches = _MODES[np.asarray(site.attribute("nodes_modes"))]
    leaves = len(site.attribute("leaf_targetids"))

    def child(name: str) -> Array:
        ids, is_leaf = (np.asarray(site.attribute(f"nodes_{name}{what}")) for what in ("nodeids", "leafs"))
        return np.concatenate([ids + is_leaf * len(branches), np.arange(leaves) + len(branches)])

    def with_leaves(of_branches: Array) -> Array:
        return np.concatenate([of_branches, np.zeros((leaves, *of_branches.shape[1:]), of_branches.dtype)])

    modes = np.concatenate([branches, np.full(leaves, "LEAF")])
    values = np.asarray(site.attribute("nodes_splits"), np.float64)
    members = np.broadcast_to(values[:, None], (len(values), 1))
    if (branches == "BRANCH_MEMBER").any():
        members = _members(np.asarray(site.attribute("membership_values"), np.float64), branches, values)
    feature = with_leaves(np.asarray(site.attribute("nodes_featureids")))
    roots = np.asarray(site.attribute("tree_roots"))
    forest = _Forest.of(
        *(modes, feature, with_leaves(values), with_leaves(members), child("true"), child("false"), roots)
    )
    return (_leaves(site, forest),)


def _members(listed: Array, modes: Array, values: Array) -> Array:
    """The numbers that each node compares with, (nodes, most), from lists that end with NaN."""
    ends = np.flatnonzero(np.isnan(listed))
    lists = iter(np.split(listed, ends + 1))
    own = [
        next(lists)[:-1] if mode == "BRANCH_MEMBER" else value[None]
        for mode, value in zip(modes, values, strict=True)
    ]
    found = np.full((len(own), max(map(len, own))), np.nan)
    for row, numbers in zip(found, own, strict=True):
        row[: len(numbers)] = numbers
    return found


@dataclass(frozen=True)
class _Forest:
    """Nodes of all trees. A branch goes `below` where x ≤ value, or x < value, or x is one of the members."""

    leaf: Array  # (nodes,) bool
    strict: Array  # (nodes,) bool: x < value
    member: Array  # (nodes,) bool: x is one of members
    feature: Array  # (nodes,)
    value: Array  # (nodes,)
    members: Array  # (nodes, most), NaN for none
    below: Array  # (nodes,) positions
    above: Array  # (nodes,) positions
    roots: Array  # (trees,) positions

    @classmethod
    def of(
        cls,
        modes: Array,
        feature: Array,
        value: Array,
        members: Array,
        true: Array,
        false: Array,
        roots: Array,
    ) -> _Forest:
        """Every kind of branch by one of three: the others have their sides exchanged."""
        turned = np.isin(modes, ["BRANCH_GT", "BRANCH_GTE", "BRANCH_NEQ"])
        return cls(
            modes == "LEAF",
            np.isin(modes, ["BRANCH_LT", "BRANCH_GTE"]),
            np.isin(modes, ["BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER"]),
            feature,
            value,
            members,
            np.where(turned, false, true),
            np.where(turned, true, false),
            roots,
        )


@dataclass(frozen=True)
class _Split:
    """One level of all ways through the trees, for N rows and T trees: (N, T) each."""

    position: Array  # flat, of the entry of x that is compared
    x: Array
    low: Array  # the interval that x lies in; infinite where an end does not matter
    high: Array


def _leaves(site: Site, forest: _Forest) -> Guard:
    """Guard of the leaf of every row in every tree."""
    x = site.value()
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    at = np.broadcast_to(forest.roots, (len(rows), len(forest.roots)))
    splits: list[_Split] = []
    while not forest.leaf[at].all():
        split, at = _down(forest, rows, at)
        splits.append(split)

    def margins() -> Array:
        nearest = np.full(at.shape, np.inf)
        for split in splits:
            np.minimum(nearest, np.minimum(split.x - split.low, split.high - split.x), out=nearest)
        return nearest

    def half_spaces() -> HalfSpaces:
        """One row for each finite end of an interval."""
        ends = [
            (split.position, end, sign)
            for split in splits
            for end, sign in ((split.low, 1.0), (split.high, -1.0))
        ]
        finite = [np.isfinite(end) for _, end, _ in ends]
        index = _joined(position[kept] for (position, _, _), kept in zip(ends, finite, strict=True))
        signs = _joined(np.full(kept.sum(), sign) for (_, _, sign), kept in zip(ends, finite, strict=True))
        bounds = _joined(end[kept] for (_, end, _), kept in zip(ends, finite, strict=True))
        read = gathered(site, index.astype(np.int64))
        return HalfSpaces(((0, chain(read, Scale(read.out_shape, signs))),), -signs * bounds)

    return Guard(at, margins, half_spaces)


def _joined(parts: Iterator[Array]) -> Array:
    return np.concatenate([np.zeros(0), *parts])


def _down(forest: _Forest, rows: Array, at: Array) -> tuple[_Split, Array]:
    """From branches to what is under them; leaves stay."""
    feature, value = forest.feature[at], forest.value[at]
    x = np.take_along_axis(rows, feature, axis=1)
    goes_below = np.where(forest.strict[at], x < value, x <= value)
    low, high = np.where(goes_below, -np.inf, value), np.where(goes_below, value, np.inf)
    compared = forest.member[at]
    if compared.any():
        numbers, entry = forest.members[at[compared]], x[compared][:, None]
        goes_below[compared] = (numbers == entry).any(axis=1)
        low[compared] = np.where(numbers <= entry, numbers, -np.inf).max(axis=1)
        high[compared] = np.where(numbers >= entry, numbers, np.inf).min(axis=1)
    below, above = forest.below[at], forest.above[at]
    idle = forest.leaf[at] | (below == above)
    position = np.arange(len(rows))[:, None] * rows.shape[1] + feature
    split = _Split(position, x, np.where(idle, -np.inf, low), np.where(idle, np.inf, high))
    return split, np.where(forest.leaf[at], at, np.where(goes_below, below, above))
