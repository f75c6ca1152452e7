"""Fresh points in the linear region of x, to test a map where it was not made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.primitives import Array
from ..runtime.program import HalfSpaces, LinearProgram, Step

Point = Mapping[str, Array]


@dataclass(frozen=True)
class Ray:
    """A direction from x, and how far one can go along it before a guard gives way."""

    direction: Point
    length: float  # in multiples of the direction; infinite where nothing gives way


def draw_rays(program: LinearProgram, x: Point, count: int, dtype: np.dtype[Any], seed: int = 0) -> list[Ray]:
    """Draw directions and find their exact length inside the region, by one tangent sweep.

    Directions are of several families, as some regions are flat in most of them: where x is zero over a
    wide area, pre-activations often sit exactly on a kink there, and only a change of the other entries
    stays inside. Families: every entry moves; entries move in proportion to x; x as a whole is scaled.

    Returns:
        Rays along every direction and against it, longest first.
    """
    random = np.random.default_rng(seed)
    directions: list[Point] = [{name: np.asarray(value, float) for name, value in x.items()}]
    for _ in range(count):
        noise = {name: random.standard_normal(value.shape) for name, value in x.items()}
        directions.append({name: noise[name] * (float(np.abs(x[name]).mean()) or 1.0) for name in x})
        directions.append({name: noise[name] * x[name] for name in x})
    block = {
        name: np.stack([value, *(direction[name] for direction in directions)]).astype(dtype)
        for name, value in x.items()
    }
    lengths = np.full((2, len(directions)), np.inf)  # along, against
    for step, values in program.walk(block, [1.0] + [0.0] * len(directions)):
        for guard in step.guards:
            lengths = np.minimum(lengths, _lengths(step, guard.half_spaces(), values))
    found = [
        Ray({name: sign * value for name, value in direction.items()}, float(length))
        for sign, row in zip((1, -1), lengths, strict=True)
        for direction, length in zip(directions, row, strict=True)
    ]
    return sorted(found, key=lambda ray: -ray.length)


def _lengths(step: Step, half_spaces: HalfSpaces, values: Mapping[str, Array]) -> Array:
    """Largest t with margin ± t·rate ≥ 0 for every half-space, (2, directions). Row 0 of values is x."""
    directions = len(next(iter(values.values()))) - 1
    total: Array | None = None
    for position, L in half_spaces.terms:
        name = step.operands[position]
        assert name is not None
        part = L.apply(values[name])
        total = part if total is None else total + part
    if total is None or not total.size:
        return np.full((2, directions), np.inf)
    flat = total.reshape(len(total), -1)
    offset = np.broadcast_to(half_spaces.offset, total.shape[1:]).ravel()
    margin = np.maximum(flat[0] + offset, 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        lengths = margin / np.abs(flat[1:])
    closing = [np.where(rates, lengths, np.inf).min(axis=1) for rates in (flat[1:] < 0, flat[1:] > 0)]
    return np.stack(closing)


def inner_points(
    x: Point, rays: list[Ray], count: int, accepts: Callable[[Point], bool]
) -> tuple[list[Point], int]:
    """Step along rays to points that keep the pattern.

    Args:
        x: the point that the rays leave from.
        rays: longest first.
        count: how many points are wanted.
        accepts: whether the model shows x's activation pattern at a point.

    Returns:
        The accepted points, and how many were tried.
    """
    kept: list[Point] = []
    tried = 0
    for ray in rays:
        if len(kept) == count:
            break
        # Half-way to the boundary, and no farther than a change of x by about half its own size.
        length = min(0.5 * ray.length, 0.5)
        point = {
            name: (value + length * ray.direction[name]).astype(value.dtype) for name, value in x.items()
        }
        if all(np.array_equal(point[name], x[name]) for name in x):
            continue  # the region is thinner than the spacing of floating-point numbers along this ray
        tried += 1
        if accepts(point):
            kept.append(point)
    return kept, tried


def same_pattern(a: LinearProgram, b: LinearProgram) -> bool:
    """Whether two programs of one model made the same choices everywhere."""
    return all(
        np.array_equal(first.choice, second.choice)
        for one, other in zip(a.steps, b.steps, strict=True)
        for first, second in zip(one.guards, other.guards, strict=True)
    )
