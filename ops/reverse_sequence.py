"""ReverseSequence: y = x with the first entries of each sequence along the time axis in reverse.

https://onnx.ai/onnx/operators/onnx__ReverseSequence.html
"""

import numpy as np

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("ReverseSequence", linear_in=(0,))
def reverse_sequence(site: Site) -> Local:
    """Count down to the start of each sequence, and leave what lies behind its end."""
    rank, time = len(site.shape()), site.attribute("time_axis", 0)
    lengths = site.value(1).astype(np.int64)  # (batch,)
    t = np.arange(site.shape()[time])[:, None]
    source = np.where(t < lengths, lengths - 1 - t, t)  # (time, batch)
    along = (source if time == 0 else source.T).reshape(*site.shape()[:2], *(1,) * (rank - 2))
    return Local(gathered(site, np.take_along_axis(positions(site), along, time)))
