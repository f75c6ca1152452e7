"""The linear program of a model at one point, for tests of what works on programs."""

from __future__ import annotations

from typing import Any

from ilin.compiler.pipeline import CompiledModel
from ilin.compiler.trace import feeds_of
from ilin.runtime.program import LinearProgram


def program_at(compiled: CompiledModel, x: Any) -> LinearProgram:
    feeds, _ = feeds_of(compiled.graph, x)
    return compiled._lower(compiled._observer.trace(feeds))
