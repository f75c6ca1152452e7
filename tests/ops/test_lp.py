"""The p-norm of groups, for every p > 1."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from ilin.ops import Operand, Site
from ilin.ops._lp import norm
from ilin.runtime.primitives import Sparse, Sum

X = np.random.default_rng(0).standard_normal((3, 5))
X[1, 2] = 0


def at(x, p, total=None):
    """The norm of each group, or of each row, as a map at x."""
    operand = Operand("x", x.shape, True, x)
    site = Site("norm", "LpPool", "", 22, {}, (operand,), ("X",), ("y",))
    return norm(site, p, total or Sum(x.shape, (3, 1)))


@pytest.mark.parametrize("p", [2, 3, 5])
def test_the_slope_of_a_norm(p):
    local = at(X, p)
    ((_, L),) = local.by_position
    d, step = np.random.default_rng(1).standard_normal(X.shape), 1e-6

    def f(x):
        return np.linalg.norm(x, p, axis=1)

    assert local.offset is None
    np.testing.assert_allclose(L.apply(X[None])[0, :, 0], f(X), rtol=1e-12)
    slope = (f(X + step * d) - f(X - step * d)) / (2 * step)
    np.testing.assert_allclose(L.apply(d[None])[0, :, 0], slope, rtol=1e-8)


def test_rows_of_any_size_have_their_own_slope():
    x = np.float32([[3e30, 4e30], [1e-3, 0], [0, 2]])
    ((_, L),) = at(x, 2).by_position
    np.testing.assert_allclose(L.matrix().sum(1), [1.4, 1, 1], rtol=1e-6)


def test_a_small_group_beside_a_large_one():
    x = np.float32([[3e30, 4e30], [1e-30, 0], [0, 2]])
    for p in (2, 3):
        ((_, L),) = at(x, p).by_position
        large = 3.0 ** (p - 1) + 4.0 ** (p - 1)
        large /= (3.0**p + 4.0**p) ** ((p - 1) / p)
        np.testing.assert_allclose(L.matrix().sum(1), [large, 1, 1], rtol=1e-6)


def test_groups_at_both_ends_of_float64():
    ((_, L),) = at(np.array([[3e307, 4e307], [1e-300, 0], [0, 2]]), 3).by_position
    large = (3.0**2 + 4.0**2) / (3.0**3 + 4.0**3) ** (2 / 3)
    np.testing.assert_allclose(L.matrix().sum(1), [large, 1, 1], rtol=1e-12)


def test_groups_of_any_size_that_share_entries():
    groups = sparse.csr_array(np.float32([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]))
    x = np.float32([3e30, 3e-30, 4e-30, 0])
    ((_, L),) = at(x, 2, Sparse((4,), (3,), groups)).by_position
    expected = [[1, 1e-60, 0, 0], [0, 0.6, 0.8, 0], [0, 0, 1, 0]]
    np.testing.assert_allclose(L.matrix().toarray(), expected, rtol=1e-6, atol=1e-38)
