"""Compiled kernels of the fused engine. Importing this imports numba; nothing else in ilin does."""

from . import compiling  # noqa: F401  # it registers itself with numba
from ._emit import VECTOR_BYTES
from ._strip import rest_of, strip_width
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
    "listed",
    "looked_up",
    "mask_fetched",
    "placed",
    "rest_of",
    "scaled",
    "share",
    "spread_rows",
    "strip_width",
    "summed",
    "threads_safe",
    "windows",
    "workers",
]
