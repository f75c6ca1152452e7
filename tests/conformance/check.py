"""What is checked of one case with one choice of active inputs."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

import ilin

from .cases import Case, has_tensors_only
from .oracle import flat_function, flattened, is_floating, reference_of, run_onnxruntime, session_of, slopes

DIRECTIONS = 3

# Uses that ilin refuses on purpose; anything else that it refuses fails the case.
BY_DESIGN = {
    "training mode": r"training_mode",
    "two active operands": r"multiplies two values that both depend on x",
    "active parameter": r"its parameter .* depends on x",
    "cast to integers": r"casts a value that depends on x to a type that is not floating point",
}


class Skipped(Exception):
    """The case says nothing about ilin, for a stated reason."""


@dataclass(frozen=True)
class Outcome:
    oracle: str  # which evaluator the slopes were compared with
    ties: int  # differences whose two sides disagree
    compared: int


def check(case: Case, active: tuple[str, ...]) -> Outcome:
    """Raise AssertionError where ilin is wrong, Skipped where nothing can be said."""
    expected = observed(case)
    affine = linearize(case, active)
    names = [name for name in case.floating_outputs if name in affine.outputs]
    _check_value(affine, expected, names)
    return _check_slopes(case, affine, expected, active, names)


@cache
def observed(case: Case) -> dict[str, np.ndarray]:
    """What onnxruntime computes, or why the case is skipped."""
    if not has_tensors_only(case):
        raise Skipped("an input or output is no tensor")
    if not case.floating_inputs:
        raise Skipped("no floating-point input")
    if not case.floating_outputs:
        raise Skipped("no floating-point output")
    if case.without_rule:
        raise Skipped("another operator has no rule: " + ", ".join(case.without_rule))
    try:
        return run_onnxruntime(case.model, case.feeds)
    except Exception as error:  # onnxruntime's exceptions share no base class
        text = " ".join(str(error).split())
        raise Skipped(f"onnxruntime does not run it: {text[:160]}") from error


def linearize(case: Case, active: tuple[str, ...]) -> ilin.AffineMap:
    try:
        return ilin.linearize(case.model, dict(case.feeds), inputs=list(active), dtype="float64")
    except ilin.UnsupportedError as error:
        for reason, pattern in BY_DESIGN.items():
            if re.search(pattern, str(error)):
                raise Skipped(f"refused by design: {reason}") from error
        raise
    except ilin.NonFiniteError as error:
        raise Skipped("values at x are not finite") from error


def _check_value(affine: ilin.AffineMap, expected: dict[str, np.ndarray], names: list[str]) -> None:
    certificate = affine.certificate
    assert certificate.verified, str(certificate)
    assert certificate.at_x_over_bound <= 1
    x = flattened(list(affine.inputs.values()))
    ours, theirs = affine.W @ x + affine.b, flattened([expected[name] for name in names])
    assert ours.shape == theirs.shape
    deviation = np.abs(ours - theirs).max(initial=0.0)
    assert deviation <= certificate.at_x * (1 + 1e-6) + 1e-30, "the certificate understates the deviation"
    unit = max(np.finfo(np.float32).eps, *(_epsilon(expected[name]) for name in names))
    scale = np.abs(affine.W) @ np.abs(x) + np.abs(affine.b) + np.abs(theirs)
    assert (np.abs(ours - theirs) <= 64 * unit * scale + 1e-30).all(), f"off by {deviation}"


def _check_slopes(
    case: Case,
    affine: ilin.AffineMap,
    expected: dict[str, np.ndarray],
    active: tuple[str, ...],
    names: list[str],
) -> Outcome:
    feeds = {name: value for name, value in case.feeds.items() if isinstance(value, np.ndarray)}
    x = flattened([feeds[name] for name in active])
    function, step, relative, oracle = _oracle(case, feeds, expected, active, names)
    random = np.random.default_rng(zlib.crc32(case.name.encode()))
    ties = compared = 0
    for _ in range(DIRECTIONS):
        d = random.uniform(0.25, 1.0, x.shape) * random.choice([-1.0, 1.0], x.shape)
        found = slopes(function, x, d, step, relative)
        ties += int((~found.smooth).sum())
        compared += found.ahead.size
        missed = found.misses(affine.W @ d)
        assert not missed.any(), _describe(missed, affine.W @ d, found)
    return Outcome(oracle, ties, compared)


def _oracle(case, feeds, expected, active, names):
    unit = max(_epsilon(expected[name]) for name in names)
    x = flattened([feeds[name] for name in active])
    theirs = flattened([expected[name] for name in names])
    why = ""
    try:
        function = flat_function(reference_of(case.model), feeds, active, names)
        here = function(x)
        if here.shape == theirs.shape and np.allclose(
            here, theirs, rtol=64 * unit, atol=64 * unit * (1 + np.abs(theirs).max(initial=0))
        ):
            return function, 1e-6, 1e-6, "reference evaluator"
        why = f"the reference evaluator deviates: {np.abs(here - theirs).max() if here.shape == theirs.shape else (here.shape, theirs.shape)}"
    except Exception as error:  # whatever the reference evaluator cannot do
        why = f"the reference evaluator fails: {type(error).__name__}: {str(error)[:100]}"
    function = flat_function(session_of(case.model), feeds, active, names, keep_type=True)
    return function, 2.0**-6, 1e-2 if unit > 1e-6 else 1e-3, f"onnxruntime ({why})"


def _epsilon(value: np.ndarray) -> float:
    return 2.0**-7 if value.dtype.name == "bfloat16" else float(np.finfo(value.dtype).eps)


def _describe(missed, ours, found) -> str:
    i = int(np.flatnonzero(missed)[0])
    return (
        f"{int(missed.sum())} of {missed.size} slopes are wrong; output {i}: W d = {ours[i]!r}, "
        f"differences {found.behind[i]!r} behind and {found.ahead[i]!r} ahead"
    )


__all__ = ["Outcome", "Skipped", "check", "is_floating", "linearize", "observed"]
