"""The ledger of published networks: nothing is left over but rounding.

They lie outside the project, in ../shared/models; without that folder these tests are skipped.
"""

from __future__ import annotations

import numpy as np
import pytest

import ilin
from ilin.runtime.rounding import growth

from .published import given
from .test_real_models import DEFAULT, cases


@pytest.mark.parametrize("model", list(cases()))
def test_the_residual_is_rounding(model):
    """Within the row's bound, and what adding the terms up in the map's type may round."""
    affine = ilin.linearize(DEFAULT / model["file"], given(DEFAULT, model), rows=1)
    ledger, certificate = affine.ledger(0), affine.certificate

    bound = certificate.at_x / certificate.at_x_over_bound if certificate.at_x else 0.0
    u = np.finfo(affine.b.dtype).eps / 2
    assert abs(ledger.residual) <= bound + growth(len(ledger.terms), u) * np.abs(ledger.terms).sum()
