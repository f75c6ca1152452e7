"""FeatureVectorizer: rows of features side by side, each cut or filled up with zeros to a given width.

Each active operand moves to its place; the others are the offset. A vector is one row.
https://onnx.ai/onnx/operators/onnx_aionnxml_FeatureVectorizer.html
"""

import numpy as np

from ..runtime.primitives import Array, Primitive
from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("FeatureVectorizer", domain="ai.onnx.ml")
def feature_vectorizer(site: Site) -> Local:
    """Place every operand."""
    widths = [int(width) for width in site.attribute("inputdimensions")]
    starts = np.concatenate([[0], np.cumsum(widths)])
    rows = len(np.atleast_2d(positions(site)))
    terms: dict[int, Primitive] = {}
    offset: Array = np.zeros((rows, starts[-1]))
    for position, (start, width) in enumerate(zip(starts, widths, strict=False)):
        own = np.atleast_2d(positions(site, position))[:, :width]
        place = np.full((rows, starts[-1]), -1)
        place[:, start : start + own.shape[1]] = own
        if site.active(position):
            terms[position] = gathered(site, place, position)
        else:
            offset = offset + np.where(place >= 0, np.ravel(site.value(position))[place], 0)
    return Local(terms, offset if len(terms) < len(widths) else None)
