"""What a side is given, and what it gives back. Plain data: both cross process boundaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cases import Case
from numpy.typing import NDArray

Array = NDArray[Any]
Options = Mapping[str, Any]

# Arrays of the largest activation's size that a batched backward pass keeps alive at once, roughly.
_ALIVE = 4


@dataclass(frozen=True)
class Job:
    """A case with its files."""

    case: Case
    folder: Path  # model.onnx, and weights.npz: the arrays of the network's state, in order
    largest: int  # elements of the largest activation
    engine: str = "auto"  # of ilin
    trial: int | None = None  # only the first so many rows, to try options out
    memory_limit: int = 3 << 30  # bytes that a side's working set may be expected to take

    @property
    def model(self) -> Path:
        """The exported network."""
        return self.folder / "model.onnx"

    @property
    def K(self) -> int:
        """Rows that are asked for at one point."""
        return self.case.K if self.trial is None else min(self.trial, self.case.K)

    def weights(self) -> list[Array]:
        """The network's parameters: weight and bias of each layer in turn."""
        with np.load(self.folder / "weights.npz") as stored:
            return [stored[name] for name in stored.files]

    def fits(self, rows_in_flight: int) -> bool:
        """Whether a backward pass over so many rows at once is expected to fit in memory."""
        return _ALIVE * 4 * self.largest * rows_in_flight <= self.memory_limit


@dataclass(frozen=True)
class Answer:
    """W, (K, N) or (points, K, N), and the seconds it took."""

    W: Array
    seconds: float


def nothing(_: Array) -> dict[str, Any]:
    """No facts."""
    return {}


@dataclass(frozen=True)
class Prepared:
    """A side that has read its model and can be asked."""

    ask: Callable[[Array], Answer]  # x as in the case's shape, or (points, …) where it has several
    facts: Callable[[Array], dict[str, Any]] = field(default=nothing)
    verified: Callable[[Array], float] | None = None  # seconds of an answer with its verification


class Side(Protocol):
    """What every module of `sides` offers."""

    def versions(self) -> dict[str, str]:
        """Package name to version; raises ImportError where one is missing."""
        ...

    def serves(self, case: Case) -> str:
        """Why it cannot answer a case, or nothing."""
        ...

    def candidates(self, job: Job) -> list[Options]:
        """Ways to run it, of which the fastest is taken; those that would not fit in memory left out."""
        ...

    def prepare(self, job: Job, options: Options) -> Prepared:
        """Read the model and build whatever is built once."""
        ...
