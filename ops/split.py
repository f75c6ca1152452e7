"""Split: x cut into pieces along an axis; one selection for each output.

https://onnx.ai/onnx/operators/onnx__Split.html
"""

import numpy as np

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("Split", linear_in=(0,))
def split(site: Site) -> tuple[Local, ...]:
    """Select every piece; equal pieces (the last may be smaller) unless lengths are given."""
    axis = site.attribute("axis", 0)
    sizes = site.integers("split")
    if not sizes:
        count = site.attribute("num_outputs", len(site.outputs))
        length = site.shape()[axis]
        piece = -(-length // count)
        sizes = tuple(max(0, min(piece, length - piece * i)) for i in range(count))
    pieces = np.split(positions(site), np.cumsum(sizes)[:-1], axis)
    return tuple(Local(gathered(site, piece)) for piece in pieces)
