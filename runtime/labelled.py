"""A map as an xarray Dataset: its arrays under named axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .arrays import overflow_refused_later, stack
from .errors import MemoryLimitError, NonFiniteError, OptionError
from .linearization import Linearization

if TYPE_CHECKING:
    from xarray import Dataset


@overflow_refused_later()
def dataset_of(affine: Linearization) -> Dataset:
    """See `AffineMap.to_xarray`."""
    try:
        import xarray
    except ImportError as error:
        raise OptionError(
            "to_xarray needs xarray, which is not installed: pip install 'ilin[table]'"
        ) from error
    if not isinstance(affine.W, np.ndarray | sparse.csr_array):
        raise MemoryLimitError(
            "this map was asked for with materialize=False, so W was not made; ask without it, for fewer rows"
        )
    W = affine.W if isinstance(affine.W, np.ndarray) else affine.W.toarray()
    y = stack(affine.outputs)
    arrays: dict[str, Any] = {"b": ("row", affine.b), "value": ("row", y[affine.rows])}
    start = 0
    for name, x in affine.inputs.items():
        axes = [f"{name}_{axis}" for axis in range(x.ndim)]
        slopes = W[:, start : start + math.prod(x.shape)].reshape(-1, *x.shape)
        parts = slopes * x.astype(W.dtype)
        if not np.isfinite(parts).all():
            raise NonFiniteError(
                f"contributions leave the range of {W.dtype}, though W and x do not; float64 has a wider one"
            )
        arrays |= {
            f"W:{name}": (["row", *axes], slopes),
            f"x:{name}": (axes, x),
            f"contributions:{name}": (["row", *axes], parts),
        }
        start += math.prod(x.shape)
    about = {"model": affine.model, "model_sha256": affine.model_sha256, "kind": str(affine.kind)}
    return xarray.Dataset(arrays, coords={"row": affine.rows}, attrs=about)
