"""Evidence: what a map is compared with, the model at x and at fresh points of its region; gathered once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.arrays import overflow_refused_later
from ..runtime.certificate import Check
from ..runtime.primitives import Array
from ..runtime.program import Kind, LinearProgram
from ..runtime.rounding import Arithmetic
from .answer import Asked
from .engine import Engine
from .graph import Graph
from .neighbours import Look, Neighbour, find_neighbours
from .observer import Observer
from .paths import objection
from .scope import Scope
from .slopes import check_slopes
from .trace import Trace

if TYPE_CHECKING:
    from .region import Survey

FRESH, DEEP = 1, 4  # fresh points that a certificate asks for, by default and on the deep level


@dataclass(frozen=True)
class Evidence:
    """What a map is compared with: gathered at x and at fresh points of its region."""

    trace: Trace  # x
    fresh: Sequence[Neighbour]
    tried: int  # directions tried to find them
    arithmetic: Arithmetic  # the coarser of the model's and the composition's
    audited: Mapping[str, Array] | None = None  # every tensor of the program at x, as onnxruntime computes it
    slopes: Check | None = None  # of smooth steps
    objection: str = ""  # why what was looked at is not the model, if so

    @property
    def places(self) -> list[Trace]:
        """X and the fresh points."""
        return [self.trace, *(neighbour.trace for neighbour in self.fresh)]


@dataclass(frozen=True, eq=False)
class Case:
    """One question, and all that its answer is verified with."""

    asked: Asked
    graph: Graph  # on the way that x takes through the model, as all that follows
    scope: Scope
    observer: Observer
    engine: Engine
    dtype: np.dtype[Any]  # that the answer is composed in
    memory_limit: int | str | None
    outputs: Sequence[str]  # of the model, by name
    look: Look  # the model at another point
    lowered: Callable[[], LinearProgram]  # the network at x in float64
    survey: Callable[[], Survey]  # the geometry of the region at x
    _looked: list[Neighbour | None] = field(default_factory=list)  # what each direction tried has led to

    @property
    def model(self) -> Arithmetic:
        """What the model computes in."""
        return Arithmetic.of(self.observer.dtype)

    @property
    def ours(self) -> Arithmetic:
        """What the answer is composed in."""
        return Arithmetic.of(self.dtype)

    @overflow_refused_later()
    def evidence(self, count: int, *, whole: bool = False) -> Evidence:
        """The model at x and at so many fresh points, or as many as there are.

        Fresh points are looked for once: whoever asks for more of them than are known goes on behind them.

        Args:
            count: fresh points wanted.
            whole: with every tensor that was observed at the fresh points. Of these nothing is kept but what
                goes into the model and what comes out, so to have them again is to look again.
        """
        program, trace = self.asked.program, self.asked.trace
        coarser = self.model.coarser(self.ours)
        looked = [] if whole else list(self._looked)
        missing = count - sum(near is not None for near in looked)
        if missing > 0 and program.kind is not Kind.SMOOTH:  # such a map holds at x and nowhere else
            given = (program, trace, self.look, self.dtype, coarser)
            looked += find_neighbours(*given, missing, behind=len(looked))
            if len(looked) > len(self._looked):
                self._looked[:] = [near and near.ends(program) for near in looked]
        held = [place for place, near in enumerate(looked) if near is not None]
        tried = held[count - 1] + 1 if len(held) >= count else len(looked)
        fresh = [near for near in looked[:tried] if near is not None]
        objected = objection([trace, *(near.trace for near in fresh)], self.outputs)
        return Evidence(trace, fresh, tried, coarser, objection=objected)

    def audited(self, evidence: Evidence) -> Evidence:
        """The same with every tensor at x, and the slopes of smooth steps."""
        trace, program = self.asked.trace, self.asked.program
        audited = {**trace.values, **self.observer.audit(trace.feeds)}
        slopes = None
        if program.kind is Kind.SMOOTH:
            slopes = check_slopes(self.scope, program, trace, audited, self.ours)
        return replace(evidence, audited=audited, slopes=slopes)
