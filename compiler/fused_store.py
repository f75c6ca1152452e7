"""What the fused engine keeps from point to point."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..runtime.primitives import Array


@dataclass
class FusedStore:
    """What is expensive to prepare and the same at every point, by the identity of what it was made from."""

    _kept: dict[Any, tuple[Any, Any]] = field(default_factory=dict)
    _counting: Array = field(default_factory=lambda: np.arange(1 << 16, dtype=np.int32))

    @property
    def arena(self) -> Any:
        """Buffers for blocks."""
        from .active import Arena

        return self.equal("arena", Arena)

    def get(self, kind: Hashable, source: object, make: Callable[[], Any]) -> Any:
        """The `kind` of thing prepared from `source`, made at the first call."""
        kept = self._kept.get((kind, id(source)))
        if kept is None or kept[0] is not source:
            kept = self._kept[kind, id(source)] = (source, make())
        return kept[1]

    def equal(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The thing prepared for an equal, hashable key."""
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = (None, make())
        return kept[1]

    def counting(self, count: int) -> Array:
        """0, 1, … count - 1: the rows of a block in which every unit has its own."""
        if count > len(self._counting):
            self._counting = np.arange(2 * count, dtype=np.int32)
        return self._counting[:count]
