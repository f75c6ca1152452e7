"""What is checked of one case with one choice of active inputs."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

import ilin

from .cases import Case, choices
from .oracle import (
    IN_FLOAT16,
    IN_FLOAT32,
    IN_FLOAT64,
    ROUNDED,
    Accuracy,
    Function,
    Runner,
    Slopes,
    declared_reference_of,
    flat_function,
    flattened,
    onnxruntime_of,
    reference_of,
    slopes,
    smooth_slope,
)

# Uses that ilin refuses on purpose; whatever else it refuses fails the case.
BY_DESIGN = {
    "training mode": r"training_mode",
    "two active operands are multiplied": r"multiplies two values that both depend on x",
    "an active parameter": r"its parameter .* depends on x",
    "no tangent at x": r"has no tangent",
    "an infinite slope": r"its slope in .* is not finite",
    "cast of an active value to integers": r"casts a value that depends on x to a type that is not floating",
    "an active mask of another length": r"its mask depends on x and is shorter than the keys",
    "the bits of an active value": r"reads the bits of a value that depends on x",
    "a mean by active weights": r"its mean divides by the sum of weights that depend on x",
}

# By operator, or by case. onnxruntime computes the coordinates of Resize and RoiAlign in float32, and their
# rules do as onnxruntime; the reference evaluator computes them in float64. Likewise the mean in the body of
# NegativeLogLikelihoodLoss divides by a sum of 3 · 6 · 6 · 5 · 3 · 4 held weights in float32.
LOOSER = {
    "Resize": 2e-5,
    "RoiAlign": 2e-5,
    "Upsample": 2e-5,
    "test_nllloss_NCd1d2d3d4d5_mean_weight_expanded": 6480 * np.finfo(np.float32).eps,
}

# A fast Fourier transform rounds all outputs in parts of the largest.
NORMWISE = {"DFT", "STFT"}

# Operators that the reference evaluator computes in float32, though it returns float64.
SINGLE_ONLY = {"DynamicQuantizeLinear", "LinearAttention"}

# Cases that it computes in float32: the sigmoid of their activation.
SINGLE_CASES = re.compile(r"test_causal_conv_with_state_(silu|swish)(?!.*expanded)")

# Cases whose x is at the end of the operator's domain: nothing runs beside it, so only the value is checked.
AT_THE_END = {"test_melweightmatrix"}  # the edges are those of the spectrum

# Where the reference evaluator is right at x and wrong beside it.
MISTAKEN = {"test_l1normalization_axis_last": "the reference evaluator leaves the absolute value out"}

ENGINES = ("matrix-free", "adjoint")  # beside "sparse", where all inputs that may be active are

SINGLE = np.finfo(np.float32).max

LARGEST = 250_000  # entries of W; beyond it only some rows are asked for
SOME_ROWS = 24
LOOPED = 50_000  # outputs that the reference evaluator, which loops over them in Python, takes seconds for


class SkippedCase(Exception):  # noqa: N818  (it is no error)
    """The case can say nothing of ilin, for the stated reason."""


@dataclass(frozen=True)
class Outcome:
    """What a case that passed was compared with."""

    oracle: str
    compared: int  # slopes
    kinks: int  # of them, those whose two sides differ


def check(case: Case, active: tuple[str, ...]) -> Outcome:
    """Raise AssertionError where ilin is wrong, SkippedCase where nothing can be said."""
    expected = observed(case)
    if not all(np.isfinite(case.feeds[name].astype(np.float64)).all() for name in case.floating_inputs):
        raise SkippedCase("an input at x is infinite or NaN")
    y = flattened([expected[name] for name in case.floating_outputs])
    x = flattened([case.feeds[name] for name in active])
    epsilon = max(_epsilon(expected[name]) for name in case.floating_outputs)
    rows = rows_of(case, x.size, y.size)
    affine = linearized(case, active, rows=rows, dtype="float64", engine="sparse")
    assert list(affine.inputs) == list(active)
    assert list(affine.outputs) == list(case.floating_outputs)
    how = {"normwise": case.subject in NORMWISE, "several": _is_several(case, affine)}
    check_value(affine, x, y, epsilon, **how)
    single = rows == "all" and active == next(choices(case)) and np.abs(x).max(initial=0) < SINGLE
    for engine in ENGINES if single else ():
        again = linearized(case, active, rows=rows, dtype="float32", engine=engine)
        check_value(again, x, y, epsilon, **how)
        np.testing.assert_allclose(
            again.W, affine.W, rtol=1e-5, atol=1e-5 * np.abs(affine.W).max(initial=0), err_msg=engine
        )
    if case.name in AT_THE_END:
        return Outcome("value alone, as nothing runs beside x", 0, 0)
    return check_slopes(case, affine, x, y)


def check_value(
    affine: ilin.AffineMap,
    x: np.ndarray,
    y: np.ndarray,
    epsilon: float,
    *,
    normwise: bool = False,
    several: bool = False,
) -> None:
    """W x + b is onnxruntime's y, by the certificate and by a measure of our own."""
    certificate = affine.certify_deeply()
    assert certificate.verified, str(certificate)
    assert certificate.at_x_over_bound <= 1
    ours, theirs = affine.W.astype(np.float64) @ x + affine.b, y[affine.rows]
    deviation = np.abs(ours - theirs)
    terms = np.abs(affine.W).astype(np.float64) @ np.abs(x) + np.abs(affine.b) + np.abs(theirs)
    storing_b = np.finfo(affine.b.dtype).eps * np.abs(affine.b).max(initial=0)
    adding_up = x.size * np.finfo(np.float64).eps * terms.max(initial=0)  # in another order than it did
    stated = certificate.at_x * (1 + 1e-6) + storing_b + adding_up + 1e-30
    observed = flattened(list(affine.outputs.values()))[affine.rows]
    assert np.abs(ours - observed).max(initial=0) <= stated, "the certificate understates the deviation"
    if normwise:
        terms = terms.max(initial=0)
    if several:  # what lies between the steps, such as a sigmoid, may be larger than y
        terms = terms + len(affine.layers) / 64
    epsilon = max(epsilon, np.finfo(np.float32).eps)
    assert (deviation <= 64 * epsilon * terms + 1e-30).all(), f"off by {deviation.max():.3g}"


def _is_several(case: Case, affine: ilin.AffineMap) -> bool:
    """Whether the answer, or what it holds, is computed in several steps."""
    return len(case.model.graph.node) > 1 or len(affine.layers) > 1


def check_slopes(case: Case, affine: ilin.AffineMap, x: np.ndarray, y: np.ndarray) -> Outcome:
    """W d is the difference of the function along d, on either side where x sits on a kink."""
    every, accuracy, oracle = oracle_of(case, tuple(affine.inputs), y)
    relative = max(accuracy.relative, LOOSER.get(case.subject, 0), LOOSER.get(case.name, 0))
    several = _is_several(case, affine)
    if several:  # slopes are made of values between the steps, which onnxruntime rounds
        relative = max(relative, 64 * max(_epsilon(observed(case)[name]) for name in case.floating_outputs))
    accuracy = Accuracy(accuracy.step, accuracy.roundoff, relative)
    random = np.random.default_rng(zlib.crc32(case.name.encode()))

    def function(flat: np.ndarray) -> np.ndarray:
        return every(flat)[affine.rows]

    def size(d: np.ndarray) -> np.ndarray:
        """Of the terms that add up to W d; of any row's where such values may cancel."""
        terms = np.abs(affine.W) @ np.abs(d)
        return np.full_like(terms, terms.max(initial=0)) if several else terms

    if affine.kind == "smooth":
        return _check_tangent(affine, function, x, accuracy, oracle, random, size)
    compared = kinks = 0
    kinked = np.zeros(len(affine.rows), bool)
    for signs in ([1.0], [-1.0, 1.0], [-1.0, 1.0]):
        d = random.uniform(0.25, 1.0, x.shape) * random.choice(signs, x.shape)
        found = slopes(function, x, d, accuracy, size(d))
        ours = affine.W @ d
        wrong = np.where(found.kinked, found.outside(ours), found.misses(ours))
        if wrong.any():
            wrong &= ~_jumping(function, x, d, accuracy, found)
        assert not wrong.any(), _describe(wrong, ours, found)
        compared, kinks, kinked = compared + ours.size, kinks + int(found.kinked.sum()), kinked | found.kinked
    exactly_on_kinks = kinked.any() and accuracy.step <= IN_FLOAT64.step
    for column in _some(np.arange(x.size), random) if exactly_on_kinks else ():
        # Where several entries tie, a slope along d may lie between the two sides; along an axis it may not.
        d = np.zeros_like(x)
        d[column] = 1
        found = slopes(function, x, d, accuracy, 1.0)
        wrong = found.misses(affine.W[:, column]) & kinked
        assert not wrong.any(), _describe(wrong, affine.W[:, column], found)
    return Outcome(oracle, compared, kinks)


def _jumping(
    function: Function, x: np.ndarray, d: np.ndarray, accuracy: Accuracy, found: Slopes
) -> np.ndarray:
    """Outputs that jump at x, where there is no slope: their differences grow as the step shrinks."""
    finer = replace(accuracy, step=accuracy.step / 16)
    near = slopes(function, x, d, finer, 1.0)
    grows = [np.abs(a) > 8 * np.abs(b) for a, b in ((near.ahead, found.ahead), (near.behind, found.behind))]
    return grows[0] | grows[1]


def _check_tangent(
    affine: ilin.AffineMap,
    function: Function,
    x: np.ndarray,
    accuracy: Accuracy,
    oracle: str,
    random: np.random.Generator,
    size: Function,
) -> Outcome:
    """W d is the derivative along d."""
    kinks = affine.certificate.ties
    for _ in range(3):
        d = random.uniform(0.25, 1.0, x.shape) * random.choice([-1.0, 1.0], x.shape)
        ours, found = affine.W @ d, smooth_slope(function, x, d, accuracy, size(d), kinks=kinks > 0)
        wrong = found.misses(ours)
        row = int(np.argmax(wrong))
        assert not wrong.any(), (
            f"{int(wrong.sum())} of {wrong.size} slopes are wrong; row {row}: W d = {ours[row]:.9g}, "
            f"central differences {found.value[row]:.9g}, tolerance {found.tolerance[row]:.2g}"
        )
    return Outcome(oracle, 3 * len(affine.rows), kinks)


# -- what it is compared with --------------------------------------------------------------------------------


@cache
def observed(case: Case) -> dict[str, np.ndarray]:
    """The values to compare with, or why the case is skipped."""
    if case.holds_other_than_tensors:
        raise SkippedCase("an input or output is no tensor")
    if not case.floating_inputs:
        raise SkippedCase("no floating-point input")
    if not case.floating_outputs:
        raise SkippedCase("no floating-point output")
    expected = _values(case)
    for name in case.floating_outputs:
        if not np.isfinite(expected[name].astype(np.float64)).all():
            raise SkippedCase("an output at x is infinite or NaN")
    return expected


@cache
def _runner(case: Case) -> Runner:
    """Whatever gave the case's values."""
    try:
        run = onnxruntime_of(case.model)
        run(case.feeds)
    except Exception:  # as in `_values`
        return declared_reference_of(case.model)
    return run


def _values(case: Case) -> dict[str, np.ndarray]:
    """What onnxruntime computes; where it has no implementation, what the reference evaluator does."""
    try:
        return onnxruntime_of(case.model)(case.feeds)
    except Exception as error:  # onnxruntime's and numpy's exceptions share no base class
        why = _one_line(error)
    try:
        return declared_reference_of(case.model)(case.feeds)
    except Exception as error:  # it raises whatever numpy raises
        raise SkippedCase(f"nothing runs it: {why}; {_one_line(error)}") from error


def linearized(case: Case, active: tuple[str, ...], **options: object) -> ilin.AffineMap:
    rows = options.pop("rows", "all")
    try:
        return ilin.linearize(case.model, dict(case.feeds), rows=rows, inputs=list(active), **options)
    except ilin.ModelError as error:
        if re.search(r"onnxruntime (failed|does not accept)", str(error)):
            raise SkippedCase(f"refused: {_one_line(error)}") from error
        raise
    except ilin.UnsupportedError as error:
        for reason, pattern in BY_DESIGN.items():
            if re.search(pattern, str(error)):
                raise SkippedCase(f"refused by design: {reason}") from error
        raise


def oracle_of(case: Case, active: tuple[str, ...], y: np.ndarray) -> tuple[Function, Accuracy, str]:
    """The reference evaluator in float64; onnxruntime where that one fails or computes something else."""
    expected = observed(case)
    epsilon = max(_epsilon(expected[name]) for name in case.floating_outputs)
    try:
        function = flat_function(reference_of(case.model), case.feeds, active, case.floating_outputs)
        here = function(flattened([case.feeds[name] for name in active])) if y.size <= LOOPED else None
    except Exception as error:  # it raises whatever numpy raises
        why = f"the reference evaluator fails: {_one_line(error)}"
    else:
        single_only = case.subject in SINGLE_ONLY or SINGLE_CASES.match(case.name)
        mistaken = "the reference evaluator computes it in float32" if single_only else ""
        why = mistaken or MISTAKEN.get(case.name, "") or _disagreement(here, y, 64 * epsilon)
        if not why:
            single = any(node.op_type in ROUNDED for node in case.model.graph.node)
            return function, IN_FLOAT32 if single else IN_FLOAT64, "reference evaluator"
    function = flat_function(_runner(case), case.feeds, active, case.floating_outputs, keep_type=True)
    return function, IN_FLOAT16 if epsilon > 1e-6 else IN_FLOAT32, f"onnxruntime ({why})"


def _disagreement(theirs: np.ndarray | None, y: np.ndarray, tolerance: float) -> str:
    if theirs is None:
        return f"{y.size} outputs, which the reference evaluator loops over"
    if theirs.shape != y.shape:
        return f"the reference evaluator has {theirs.size} outputs instead of {y.size}"
    if not np.allclose(theirs, y, rtol=tolerance, atol=tolerance * np.abs(y).max(initial=0)):
        return f"the reference evaluator is off by {np.abs(theirs - y).max():.2g}"
    return ""


def rows_of(case: Case, N: int, K: int) -> str | list[int]:
    if N * K <= LARGEST:
        return "all"
    random = np.random.default_rng(zlib.crc32(case.name.encode()))
    return sorted(int(row) for row in random.choice(K, SOME_ROWS, replace=False))


def _some(columns: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return columns if len(columns) <= 64 else random.choice(columns, 64, replace=False)


def _epsilon(value: np.ndarray) -> float:
    return 2.0**-7 if value.dtype.name == "bfloat16" else float(np.finfo(value.dtype).eps)


def _describe(wrong: np.ndarray, ours: np.ndarray, found: Slopes) -> str:
    i = int(np.flatnonzero(wrong)[0])
    return (
        f"{int(wrong.sum())} of {wrong.size} slopes are wrong; row {i}: W d = {ours[i]:.9g}, differences "
        f"{found.behind[i]:.9g} behind and {found.ahead[i]:.9g} ahead, tolerance {found.tolerance[i]:.2g}"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:140]
