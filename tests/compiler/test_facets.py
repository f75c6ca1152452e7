"""Facets against the convex hull of the dual points (Qhull), and against one linear program for each row."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial import ConvexHull

import ilin
from ilin.compiler.facets import facets

from .test_region import model

MARGINAL = 1e-6  # a row that sticks out by less, in parts of the region's size, may be told either way


def gemm_relu(random, sizes):
    """A network of Gemm and Relu with random weights at a random point."""
    weights, nodes, below = {}, [], "x"
    for i, (m, n) in enumerate(pairwise(sizes)):
        weights |= {f"W{i}": random.standard_normal((m, n)), f"b{i}": random.standard_normal(n)}
        above = "y" if i == len(sizes) - 2 else f"h{i}"
        nodes += [("Gemm", [below, f"W{i}", f"b{i}"], f"u{i}", {}), ("Relu", [f"u{i}"], above, {})]
        below = above
    return model(nodes, [1, sizes[0]], weights), random.standard_normal((1, sizes[0]))


def hull_of(A, c, x):
    """Rows of facets: vertices of the hull of 0 and the points aᵢ / mᵢ, m the margins at x.

    A row is implied by others if its point is in the hull of theirs and 0 (polar duality; Ziegler, Lectures
    on Polytopes, §2.3). Done in the space that the rows span.
    """
    points = A / (c - A @ x)[:, None]
    _, sizes, span = np.linalg.svd(points, full_matrices=False)
    points = points @ span[sizes > 1e-9 * sizes[0]].T
    if points.shape[1] == 1:
        line = points[:, 0]
        ends = {int(line.argmax()), int(line.argmin())}
        return {row for row in ends if 0 < line[row] == line.max() or 0 > line[row] == line.min()}
    return set(ConvexHull(np.vstack([points, np.zeros(points.shape[1])])).vertices) - {len(points)}


def sticks_out(A, c, x, row):
    """How far a row cuts into what the others leave, in parts of the median margin; 0 where it is implied."""
    A = A / np.linalg.norm(A, axis=1)[:, None]
    others = [i for i in range(len(c)) if i != row and not np.allclose(A[i], A[row], atol=1e-9)]
    room = c - A @ x
    size = np.median(room)
    limits = np.append(room[others], room[row] + size) / size
    solved = linprog(-A[row], A[[*others, row]], limits, bounds=(None, None), method="highs-ds")
    return -solved.fun - room[row] / size


def assert_same(A, c, x, found, seed):
    """The rows found are the facets, but for rows that hardly stick out, and each said once."""
    length = np.linalg.norm(A, axis=1)
    A, c = A / length[:, None], c / length
    expected = hull_of(A, c, x)
    for row in expected ^ set(found.tolist()):
        same = np.isclose(A, A[row], rtol=0, atol=1e-9).all(axis=1) & np.isclose(c, c[row], rtol=1e-9, atol=0)
        if same.sum() > 1 and len(set(np.flatnonzero(same)) & set(found.tolist())) == 1:
            continue  # one of several equal rows
        assert sticks_out(A, c, x, row) < MARGINAL, (seed, row)


SIZES = [(4, 2, 8), (6, 3, 8), (3, 1, 6), (2, 2, 8), (4, 4, 8), (5, 4, 4, 8), (3, 6, 6), (2, 5, 5, 5)]


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "-".join(map(str, sizes)))
def test_facets_of_networks_are_those_of_the_dual_hull(sizes):
    """Narrow layers make rows parallel and regions unbounded in most directions."""
    for seed in range(60):
        proto, x = gemm_relu(np.random.default_rng(seed), sizes)
        region = ilin.compile(proto, dtype="float64").at(x).region
        every, minimal = region.half_spaces(), region.minimal()

        place = {boundary: row for row, boundary in enumerate(every.boundaries)}
        found = np.array([place[boundary] for boundary in minimal.boundaries])
        assert_same(every.A, every.c, x.ravel(), found, seed)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_facets_of_random_rows_are_those_of_the_dual_hull(scale):
    """Of rows of very different length, with copies, parallel ones and a direction that none constrains."""
    for seed in range(150):
        random = np.random.default_rng(seed)
        N, count = int(random.integers(1, 6)), int(random.integers(2, 40))
        A = random.standard_normal((count, N))
        A[random.random(count) < 0.2] *= 1e-6
        c = scale * np.linalg.norm(A, axis=1) * random.uniform(0.01, 3, count)
        copies = random.integers(0, count, 5)
        A = np.vstack([A, 3 * A[copies], A[copies], -A[copies]])
        c = np.concatenate([c, 3 * c[copies], 1.5 * c[copies], 2 * c[copies]])
        if N > 1 and random.random() < 0.3:
            A[:, 0] = 0
        if not A.any(axis=1).all():
            continue
        x = np.zeros(N)

        assert_same(A, c, x, facets(A, c, x), seed)


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e7])
def test_a_point_on_a_boundary_has_the_facets_of_its_neighbours(scale):
    for seed in range(60):
        random = np.random.default_rng(seed)
        A = random.standard_normal((20, 3))
        c = scale * random.uniform(0.1, 1, 20) * np.linalg.norm(A, axis=1)
        met = facets(A, c, np.zeros(3))
        way = A[met[0]]
        t = np.divide(c, A @ way, out=np.full(20, np.inf), where=A @ way > 0).min()

        np.testing.assert_array_equal(facets(A, c, t * way), met)
