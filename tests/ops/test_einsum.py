"""Einsum: equations of every form, each operand active in turn."""

from __future__ import annotations

import numpy as np
import pytest

import ilin

from ..conformance.check import check
from .nodes import case_of

EQUATIONS = {
    "ij,jk->ik": [(2, 3), (3, 4)],
    "ij , jk": [(2, 3), (3, 4)],  # implicit
    "ba": [(2, 3)],  # implicit: transposed, as labels are sorted
    "ij->": [(2, 3)],
    "ii->i": [(3, 3)],
    "ii": [(3, 3)],
    "iij->j": [(3, 3, 2)],
    "...ii->...i": [(2, 3, 3)],
    "i,j->ij": [(2,), (3,)],
    "ij,j->": [(2, 3), (3,)],
    "ij,ij->ij": [(2, 3), (2, 3)],
    "ij,ji->i": [(2, 3), (3, 2)],
    "ij,jk,kl->il": [(2, 3), (3, 4), (4, 2)],
    "ij,kl,jk->il": [(2, 3), (4, 2), (3, 4)],
    "ij,k->i": [(2, 3), (4,)],  # labels that only one operand has
    ",i->i": [(), (3,)],
    "i->i": [(3,)],
    "BA,aA->Ba": [(2, 3), (4, 3)],
    "...ij,...jk->...ik": [(2, 1, 2, 3), (1, 4, 3, 2)],
    "...i,i...->...": [(2, 3), (3, 2)],
    "b...d,bd->b...": [(2, 2, 3, 4), (2, 4)],
    "bhqd,bhkd->bhqk": [(1, 2, 3, 4), (1, 2, 2, 4)],
    "ij,ij->i": [(1, 3), (2, 3)],  # an axis of length 1 is broadcast
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_operand_against_the_others(equation, dtype):
    random = np.random.default_rng(len(equation))
    operands = {
        f"x{i}": random.standard_normal(shape).astype(dtype) for i, shape in enumerate(EQUATIONS[equation])
    }
    for name in operands:
        check(case_of("Einsum", operands, 12, equation=equation), (name,))


def test_two_operands_that_depend_on_x():
    case = case_of(
        "Einsum", {"a": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}, 12, equation="ij,j->i"
    )
    with pytest.raises(ilin.UnsupportedError, match=r"Einsum.* multiplies two values .*\('a' and 'b'\)"):
        ilin.compile(case.model)
