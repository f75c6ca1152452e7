"""Names for arrays and shapes, and what happens where numbers leave their type's range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


@contextmanager
def overflow_refused_later() -> Iterator[None]:
    """Keep numpy's warnings back where a result that is not finite is refused in the end anyhow."""
    with np.errstate(over="ignore", invalid="ignore"):
        yield
