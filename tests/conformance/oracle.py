"""Oracles that ilin has no part in: onnxruntime for values, onnx's reference evaluator for slopes.

The reference evaluator is plain numpy and mostly ignores declared types, so a model whose floating tensors
are rewritten to float64 gives differences that are good to about ten digits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from ilin.runtime.widen import as_float64, widened

Feeds = Mapping[str, np.ndarray]
Runner = Callable[[Feeds], dict[str, np.ndarray]]
Function = Callable[[np.ndarray], np.ndarray]  # flat active inputs -> flat outputs, both float64

ROUNDED = {"Erf", "Gelu"}  # the reference evaluator's erf is in float32


# -- the two evaluators --------------------------------------------------------------------------------


def onnxruntime_of(model: onnx.ModelProto) -> Runner:
    """The model run by onnxruntime as it is written, without graph rewrites."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    names = [put.name for put in session.get_outputs()]
    known = {put.name for put in session.get_inputs()}

    def run(feeds: Feeds) -> dict[str, np.ndarray]:
        given = {name: value for name, value in feeds.items() if name in known}
        return dict(zip(names, session.run(names, given), strict=True))

    return run


def declared_reference_of(model: onnx.ModelProto) -> Runner:
    """The model run by the reference evaluator in the types that it declares."""
    return _evaluated(ReferenceEvaluator(model))


def reference_of(model: onnx.ModelProto) -> Runner:
    """The model run by the reference evaluator in float64."""
    evaluated = _evaluated(ReferenceEvaluator(as_float64(model)))

    def run(feeds: Feeds) -> dict[str, np.ndarray]:
        found = evaluated({name: widened(value) for name, value in feeds.items()})
        for name, value in found.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.dtype != np.float64:
                raise TypeError(f"it computes {name!r} in {value.dtype}")
        return found

    return run


def _evaluated(evaluator: ReferenceEvaluator) -> Runner:
    def run(feeds: Feeds) -> dict[str, np.ndarray]:
        known = set(evaluator.input_names)
        given = {name: value for name, value in feeds.items() if name in known}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return dict(zip(evaluator.output_names, evaluator.run(None, given), strict=True))

    return run


# -- functions of a flat vector --------------------------------------------------------------------------


def flat_function(
    run: Runner, feeds: Feeds, active: Sequence[str], outputs: Sequence[str], *, keep_type: bool = False
) -> Function:
    """The model as a function of its flattened active inputs, the others held."""

    def function(flat: np.ndarray) -> np.ndarray:
        given, start = dict(feeds), 0
        for name in active:
            own = feeds[name]
            part = flat[start : start + own.size].reshape(own.shape)
            given[name] = part.astype(own.dtype) if keep_type else part
            start += own.size
        values = run(given)
        return flattened([values[name] for name in outputs])

    return function


def flattened(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(value)).astype(np.float64) for value in values])


# -- finite differences ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slopes:
    """One-sided differences of each output along one direction."""

    ahead: np.ndarray
    behind: np.ndarray
    tolerance: np.ndarray  # absolute, for each output

    @property
    def kinked(self) -> np.ndarray:
        """Outputs whose two sides disagree: x sits on a kink, or it lies within the step."""
        return np.abs(self.ahead - self.behind) > self.tolerance

    def misses(self, ours: np.ndarray) -> np.ndarray:
        """Outputs whose slope is neither side's (the one, where they agree)."""
        return (np.abs(ours - self.ahead) > self.tolerance) & (np.abs(ours - self.behind) > self.tolerance)

    def outside(self, ours: np.ndarray) -> np.ndarray:
        """Outputs whose slope is not even between the two sides."""
        low, high = np.minimum(self.ahead, self.behind), np.maximum(self.ahead, self.behind)
        return (ours < low - self.tolerance) | (ours > high + self.tolerance)


@dataclass(frozen=True)
class Accuracy:
    """How differences of one function are taken, and how good they are."""

    step: float
    roundoff: float  # unit roundoff of the arithmetic behind the function
    relative: float  # tolerance in parts of the terms that add up to a slope


IN_FLOAT64 = Accuracy(step=1e-6, roundoff=2.0**-53, relative=1e-6)
IN_FLOAT32 = Accuracy(step=2.0**-6, roundoff=2.0**-24, relative=1e-5)
IN_FLOAT16 = Accuracy(step=2.0**-4, roundoff=2.0**-11, relative=1e-3)


def slopes(
    function: Function, x: np.ndarray, d: np.ndarray, accuracy: Accuracy, size: np.ndarray | float
) -> Slopes:
    """Both one-sided differences of `function` at x along d.

    `size` bounds the terms that add up to each slope, for the relative tolerance.
    """
    step = accuracy.step
    above, here, below = function(x + step * d), function(x), function(x - step * d)
    ahead, behind = (above - here) / step, (here - below) / step
    rounding = 64 * accuracy.roundoff / step * (1 + np.abs(here))
    return Slopes(ahead, behind, accuracy.relative * np.maximum(size, np.abs(ahead)) + rounding)


@dataclass(frozen=True)
class Slope:
    """Central differences of each output along one direction, of a function that is smooth there."""

    value: np.ndarray
    tolerance: np.ndarray  # absolute, for each output

    def misses(self, ours: np.ndarray) -> np.ndarray:
        """Outputs whose slope is another, or whose differences are not finite."""
        return ~(np.abs(ours - self.value) <= self.tolerance)


def smooth_slope(
    function: Function,
    x: np.ndarray,
    d: np.ndarray,
    accuracy: Accuracy,
    size: np.ndarray | float,
    *,
    kinks: bool = False,
) -> Slope:
    """The slope of `function` at x along d.

    The difference between two step sizes is three times what curvature does to the smaller one, and about as
    large where the slope itself has a kink (Softsign at 0); it counts twice.
    Where x sits on kinks, any slope between those of the two sides passes; where it sits at the end of the
    function's domain, such as 0 of x^1.5, the differences are those towards the inside, which may converge as
    slowly as √h.
    """
    h = accuracy.step
    far_above, above, here, below, far_below = (function(x + k * h * d) for k in (2, 1, 0, -1, -2))
    near, far = (above - below) / (2 * h), (far_above - far_below) / (4 * h)
    for close, further, sign in ((above, far_above, 1), (below, far_below, -1)):
        inside = ~np.isfinite(near) & np.isfinite(further)
        near = np.where(inside, sign * (close - here) / h, near)
        outer = sign * (further - here) / (2 * h)
        far = np.where(inside, near + (outer - near) / (np.sqrt(2) - 1), far)
    rounding = 64 * accuracy.roundoff / h * (1 + np.abs(here))
    rounding = rounding + 4 * accuracy.roundoff / h * np.abs(x).max(initial=0) * size  # of x + h d itself
    tolerance = accuracy.relative * np.maximum(size, np.abs(near)) + rounding + 2 * np.abs(near - far)
    if kinks:
        tolerance = tolerance + np.abs(above - 2 * here + below) / (2 * h)
    return Slope(near, tolerance)
