"""Conformance of the explanation: W and b of every ONNX node case whose operators ilin knows.

The values come from onnxruntime, the slopes from finite differences of onnx's reference evaluator in float64.
`python -m tests.conformance.report` prints the same by operator.
"""

from __future__ import annotations

import pytest

import ilin

from .cases import Case, choices, forbidden, relevant_cases
from .check import SkippedCase, check, observed


def _named(case: Case, active: tuple[str, ...]) -> object:
    return pytest.param(case, active, id=f"{case.name.removeprefix('test_')}[{'+'.join(active)}]")


@pytest.mark.parametrize(
    ("case", "active"),
    [_named(case, active) for case in relevant_cases() for active in list(choices(case)) or [()]],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_map_is_the_operators_value_and_slope(case: Case, active: tuple[str, ...]) -> None:
    try:
        check(case, active)
    except SkippedCase as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    ("case", "active"), [_named(case, active) for case in relevant_cases() if (active := forbidden(case))]
)
def test_operands_that_must_not_be_active_together_are_refused(case: Case, active: tuple[str, ...]) -> None:
    try:
        observed(case)
    except SkippedCase as reason:
        pytest.skip(str(reason))
    with pytest.raises(ilin.UnsupportedError, match=r"multiplies two values|its parameter|training_mode"):
        ilin.linearize(case.model, dict(case.feeds), inputs=list(active))


def test_most_cases_say_something() -> None:
    """A loader or filter that lost the cases would leave the tests above green."""
    assert len(relevant_cases()) > 250
    assert len({case.subject for case in relevant_cases()}) > 40
