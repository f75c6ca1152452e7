"""Published networks that nobody here wrote: the map must hold at their input and around it.

They lie outside the project, in ../shared/models; without that folder these tests are skipped.
"""

from __future__ import annotations

import pytest

import ilin

from .published import DEFAULT, given, published

QUICK = 500_000  # activations are unknown beforehand; the size of the file stands for them


def cases():
    chosen = published()
    if not chosen:
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no models in {DEFAULT}"))
    for model in chosen:
        quick = model["size"] < QUICK and model["n_float_inputs"] < 10_000
        yield pytest.param(model, id=model["name"], marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("model", list(cases()))
def test_holds_at_x_and_around_x(model):
    entries = model["n_float_inputs"] * model["n_outputs"]
    rows = "all" if entries <= 2e7 else min(3, model["n_outputs"])
    affine = ilin.linearize(DEFAULT / model["file"], given(DEFAULT, model), rows=rows)
    assert affine.certificate.verified, affine.certificate.reason
    assert affine.certificate.points_held > 0
    assert affine.kind in ("affine", "piecewise-linear", "locally constant")
