"""Compiled kernels of the fused engine. Importing this imports numba; nothing else in ilin does."""

from . import compiling  # noqa: F401  # it registers itself with numba
from ._micro import VECTOR_BYTES, lanes_of
from .blocks import added, scaled, share, spread_rows, summed
from .threads import threads_safe, workers
from .units import chained, fetched, kept, listed, looked_up, mask_fetched, placed
from .windows import windows

__all__ = [
    "VECTOR_BYTES",
    "added",
    "chained",
    "fetched",
    "kept",
    "lanes_of",
    "listed",
    "looked_up",
    "mask_fetched",
    "placed",
    "scaled",
    "share",
    "spread_rows",
    "summed",
    "threads_safe",
    "windows",
    "workers",
]
