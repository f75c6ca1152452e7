"""AffineGrid: y[n, p] = theta[n] · (p, 1), the coordinates p of a regular grid mapped by theta.

Linear in theta for a fixed size. Coordinates run from -1 to 1 along each axis, between the centres of the
outer cells with align_corners and between their outer edges without, and are listed from the last axis to
the first. Of a single cell onnxruntime takes the end, 1, for its centre with align_corners.
https://onnx.ai/onnx/operators/onnx__AffineGrid.html
"""

import numpy as np

from ..runtime.primitives import Array, Contract, Reshape, chain
from ._rule import Local, Site, lowers


@lowers("AffineGrid", linear_in=(0,))
def affine_grid(site: Site) -> Local:
    """Multiply every matrix by every coordinate."""
    batch, _, *spatial = site.integers("size") or ()
    align = bool(site.attribute("align_corners", 0))
    axes = np.meshgrid(*(_cells(size, align) for size in spatial), indexing="ij")
    points = np.stack([*reversed(axes), np.ones(spatial)], axis=-1).reshape(-1, len(spatial) + 1)
    product = Contract(site.shape(0), points, "nij,pj->npi")
    return Local(chain(product, Reshape(product.out_shape, (batch, *spatial, len(spatial)))))


def _cells(size: int, align: bool) -> Array:
    """Coordinates of the cells of one axis."""
    if align:
        return np.linspace(-1, 1, size) if size > 1 else np.ones(size)
    return (2 * np.arange(size) + 1) / max(size, 1) - 1
