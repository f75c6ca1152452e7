"""All rows of a map checked at once, by one random combination of them, with a bound that costs one sweep.

W z + b = F(z) in every row means s·(W z + b) = s·F(z) for any weights s; and where it fails in some row, it
fails in almost every combination (Freivalds' check of a matrix product, 1979). The rounding bound of one
combination takes one row back through the network, however many rows W has. What the steps may round is
measured by norms (`Primitive.size_bound`) on tensors that were observed anyway, so no weight is read for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import DTypeLike

from ..runtime.primitives import Array
from ..runtime.program import LinearProgram, Step
from ..runtime.rounding import Arithmetic, flushed, moves, rounding_of, step_rounding
from .bounds import allowances, rounding_at
from .evidence import Evidence
from .sweep import Magnitudes
from .trace import Trace
from .verify import Deviation, differences, over


@lru_cache(maxsize=16)
def weights_of(count: int) -> Array:
    """One weight for each of so many rows, (count,): a random sign and a size in [1, 2].

    No row counts for less than its deviation, and two that are exchanged do not cancel.
    """
    random = np.random.default_rng(0)
    sizes = random.uniform(1.0, 2.0, count) if count > 1 else np.ones(count)
    weights = np.asarray(sizes * random.choice([-1.0, 1.0], count))
    weights.setflags(write=False)
    return weights


def functional_of(program: LinearProgram, rows: Array) -> Array:
    """The combination of rows as a functional of all outputs, (1, all outputs)."""
    found = np.zeros((1, program.out_size))
    np.add.at(found[0], rows, weights_of(len(rows)))
    return found


def rounding_by_norms(
    program: LinearProgram, evidence: Evidence, dtype: DTypeLike, arithmetic: Arithmetic
) -> Magnitudes:
    """What rounding may do at each step, at the worst of x and all fresh points: one bound for all of them.

    A tensor that was not observed is replaced by a bound on its size: the rounding bound asks for no more.
    What leaves the type's range is made in float64, as in `rounding_at`.

    Args:
        program: the network at x.
        evidence: with the places.
        dtype: floating type of the composition.
        arithmetic: the model's and the composition's, added.
    """
    places = evidence.places
    sizes = {name: _largest(places, name, dtype) for name, _ in program.inputs}
    held = dict(sizes)
    errors: dict[str, Array] = {}
    carried: dict[str, Array] = {}
    last = program.last_uses()
    for position, step in enumerate(program.steps):
        seen = all(_seen(place, step) for place in places)
        rounds = program.has_slot(step) and not moves(step)
        if rounds or not seen:
            bound = _bound(step, sizes, dtype)
        if seen:
            sizes[step.output] = _largest(places, step.output, dtype)
        else:
            offset = step.offset
            sizes[step.output] = bound if offset is None else bound + np.abs(offset).astype(dtype)
        extra = allowances(step, evidence.fresh, carried)
        if program.has_slot(step):
            error = rounding_of(step, bound, arithmetic) if rounds else np.zeros((1, *step.shape), dtype)
            if step.slack is not None:
                error = error + step.slack
            errors[step.output] = error if extra is None else error + extra.max(axis=0)
        elif extra is not None:
            carried[step.output] = extra
        for name in last.get(position, ()):
            sizes.pop(name, None)
    found = Magnitudes(errors, held, 1)
    if found.finite or np.dtype(dtype) == np.float64:
        return found
    return rounding_by_norms(program, evidence, np.float64, arithmetic)


def rounding_in_parts(
    program: LinearProgram, evidence: Evidence, dtype: DTypeLike, model: Arithmetic, ours: Arithmetic
) -> Magnitudes:
    """What rounding may do at each step, at x and all fresh points, where W z and b are swept one by one.

    Each of the two rounds by its own size, and may be larger than what they add up to.

    Args:
        program: the network at x.
        evidence: with the places.
        dtype: floating type of the composition.
        model: the model's arithmetic.
        ours: the composition's.
    """
    found = rounding_at(program, evidence, dtype, model)
    # W z of each place, and b behind them: the map at zero.
    block = {name: np.concatenate([z, np.zeros_like(z[:1])]) for name, z in found.values.items()}
    errors = dict(found.errors)
    for step, values in program.walk(block, [0.0] * found.count + [1.0]):
        if step.output in errors:
            *of_places, of_b = step_rounding(step, values, ours)
            errors[step.output] = errors[step.output] + np.stack(of_places) + of_b
    found = Magnitudes(errors, found.values, found.count)
    if found.finite or np.dtype(dtype) == np.float64:
        return found
    return rounding_in_parts(program, evidence, np.float64, model, ours)


def _bound(step: Step, sizes: Mapping[str, Array], dtype: DTypeLike) -> Array:
    """Σ |Lᵢ| |xᵢ| of a step's operands, by norms where that is cheaper, (1, *shape)."""
    parts = [L.size_bound(sizes[name]) for name, L in step.terms]
    return reduce(np.add, parts) if parts else np.zeros((1, *step.shape), dtype)


def _seen(place: Trace, step: Step) -> bool:
    """Whether a step's output was observed."""
    value = place.values.get(step.output)
    return value is not None and value.shape == step.shape


def _largest(places: list[Trace], name: str, dtype: DTypeLike) -> Array:
    """The largest size of each entry at any place, (1, *shape)."""
    largest, *others = (np.asarray(np.abs(place.values[name]), dtype) for place in places)
    for size in others:
        np.maximum(largest, size, out=largest)
    return largest[None]


def combined_deviations(
    W: Array, b: Array, program: LinearProgram, rows: Array, evidence: Evidence, inside: float, last: Array
) -> list[Deviation]:
    """Deviations of W z + b at each place, measured against bounds on the combination of all rows.

    Args:
        W: (K, N).
        b: (K,).
        program: the network at x.
        rows: flat output indices behind W's rows.
        evidence: with what onnxruntime computes.
        inside: what rounding inside of the network and the sweep may do to the combination, at any place.
        last: (K,), what rounding may do to W z + b itself, row by row.
    """
    weights = weights_of(len(rows))
    rounding = inside + float(np.abs(weights) @ last) + flushed(W.dtype)
    found = []
    for difference, moved, expanded in differences(W, b, program, rows, evidence):
        bound = rounding + float(np.abs(weights) @ expanded)
        ratios = (over(weights @ each, bound) for each in (difference, moved))
        found.append(Deviation(float(np.abs(difference).max(initial=0.0)), *ratios))
    return found
