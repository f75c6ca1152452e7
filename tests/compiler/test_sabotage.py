"""Wrong rules must be caught by the verification, and it must say by which check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ilin
from ilin.ops import REGISTRY, Local
from ilin.runtime.primitives import Chain, Scale
from ilin.runtime.program import Kind

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture
def sabotage(monkeypatch):
    """Replace a rule by one that tampers with its result."""

    def replace_rule(op_type, tamper, **changes):
        entry = REGISTRY["", op_type]
        monkeypatch.setitem(
            REGISTRY,
            ("", op_type),
            replace(entry, rule=lambda site: tamper(site, entry.rule(site)), **changes),
        )

    return replace_rule


def certificate():
    return ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy")).certificate


def test_untouched_rules_are_verified():
    assert certificate().verified


def test_observed_output_as_offset_is_caught_in_the_region(sabotage):
    """Right at x in every digit, and wrong everywhere else."""

    def tamper(site, local):
        value = local.by_position[0][1].apply(site.value()[None])[0]
        return (
            Local(Scale(value.shape, np.zeros(value.shape, bool)), value) if "relu4" in site.name else local
        )

    sabotage("Relu", tamper)
    found = certificate()
    assert found.steps.passed
    assert found.at_x_over_bound <= 1
    assert not found.verified
    assert found.in_region_over_bound > 1
    assert found.reason.startswith("W z + b differs from onnxruntime's output at a fresh point of the region")
    assert found.moved_over_bound > 1  # the points were far enough to tell


@pytest.mark.parametrize(
    ("op_type", "node"), [("Relu", "/relu1/Relu"), ("Gemm", "/dense1/Gemm"), ("Conv", "/conv1/Conv")]
)
def test_a_slope_off_by_one_in_a_thousand_is_caught_at_its_node(sabotage, op_type, node):
    def tamper(_, local):
        ((position, L),) = local.by_position
        return replace(local, terms={position: Chain((L, Scale(L.out_shape, np.array(1.001))))})

    sabotage(op_type, tamper)
    found = certificate()
    assert found.steps.first_bad_node == node
    assert found.reason.startswith(f"node '{node}' is the first that differs from onnxruntime at x (by ")


def test_a_dropped_offset_is_caught_at_its_node(sabotage):
    sabotage("BatchNormalization", lambda _, local: replace(local, offset=None))
    assert certificate().steps.first_bad_node == "/norm1/BatchNormalization"


def test_kind_is_part_of_every_answer(sabotage):
    sabotage("Relu", lambda _, local: replace(local, kind=Kind.SMOOTH))
    assert ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy")).kind == "smooth"
