"""Every engine computes the same map, within the bound on rounding errors that certificates state.

`python -m tests.conformance.agree` prints how far apart they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ilin

from ..compiler.published import DEFAULT, published
from .agree import case_subjects, model_subjects
from .agreement import agreement


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_engines_agree_on_every_conformance_case():
    compared = 0
    for name, linearize, rows in case_subjects():
        found = agreement(linearize, rows)
        assert found.worst <= 1, f"{name}: {found}"
        compared += 1
    assert compared > 250


@pytest.mark.slow
@pytest.mark.parametrize("model", [model["name"] for model in published()] or [None])
def test_engines_agree_on_published_networks(model):
    if model is None:
        pytest.skip(f"no models in {DEFAULT}")
    for name, linearize, rows in model_subjects(DEFAULT, model):
        found = agreement(linearize, rows)
        assert found.worst <= 1, f"{name}: {found}"


def test_a_map_that_is_off_by_little_is_seen():
    """One entry of W that is off by a thousandth is far over the bound."""
    name, linearize, rows = next(case_subjects("basic_conv_with_padding"))

    def spoiled(engine: str, dtype: str, rows: object) -> ilin.AffineMap:
        affine = linearize(engine, dtype, rows)
        if (engine, dtype) == ("matrix-free", "float32"):
            W = np.array(affine.W)
            W[0, 0] += 1e-3 * np.abs(W).max()
            return replace(affine, W=W)
        return affine

    assert agreement(linearize, rows).worst <= 1, name
    assert agreement(spoiled, rows).worst > 1
