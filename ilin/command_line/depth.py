"""How deeply the command verifies where nobody says: deeply, where that alone tests W and takes little."""

from __future__ import annotations

import numpy as np

from ..compiler.evidence import DEEP
from ..compiler.interior import work_of
from ..runtime.affine_map import AffineMap
from ..runtime.in_double import seconds

_SECONDS = 1.0  # for all instances, by the estimate: an answer that was quick stays so
_BYTES = 64 << 20  # of W in float64, likewise


def goes_deeper(affine: AffineMap, instances: int) -> bool:
    """Whether a map that the default certificate leaves untested is to be verified deeply by itself.

    Args:
        affine: the map, with its default certificate.
        instances: how many there are to be verified.
    """
    certificate, program = affine.certificate, affine.program
    if not (certificate.verified and certificate.untested) or program is None:
        return False
    size = np.dtype(np.float64).itemsize * len(affine.b) * program.in_size
    return size <= _BYTES and instances * (1 + DEEP) * seconds(*work_of(program)) <= _SECONDS
