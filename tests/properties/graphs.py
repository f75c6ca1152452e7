"""The strategy: random graphs of the operators that ilin has rules for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from hypothesis import assume
from hypothesis import strategies as st

from ilin.ops import REGISTRY
from ilin.runtime.program import Kind

from ..conformance.oracle import onnxruntime_of
from .builder import Builder, Draw, Graph, Refused
from .operators import EMITTERS, function

OLDEST, NEWEST = 7, onnx.defs.onnx_opset_version()

KNOWN = sorted(op for op in EMITTERS if ("", op) in REGISTRY)
LINEAR = [op for op in KNOWN if REGISTRY["", op].kind is not Kind.SMOOTH]
WITHOUT_EMITTER = sorted(op for domain, op in REGISTRY if not domain and op not in EMITTERS)

_IMAGES = [(1, 1, 4, 5), (1, 2, 5, 5), (2, 3, 4, 3), (1, 4, 6, 6), (2, 2, 3, 7), (1, 4, 3, 3)]
_SHAPES = [(1, 4), (3, 5), (2, 3, 6), (1, 2, 9), (5,), (1, 2, 3, 4, 2), (), (1, 1, 7)]


_ONE_IN_FOUR = st.sampled_from([False, False, False, True])


@st.composite
def graphs(draw: Draw, *, must: str | None = None, most: int = 7) -> Graph:
    """A random graph.

    Args:
        draw: given by hypothesis.
        must: an operator that it holds in any case.
        most: nodes at most, but for helpers such as constants.
    """
    b = Builder(draw, draw(st.integers(OLDEST, NEWEST)), draw(st.integers(0, 2**16)), draw(_ONE_IN_FOUR))
    b.dtype = np.dtype(b.choose(["float32", "float32", "float32", "float64", "float16"]))
    b.with_empty = draw(_ONE_IN_FOUR)
    b.smooth = (must is not None and must not in LINEAR) or b.flag()
    for _ in range(b.integer(1, 2)):
        shape = b.choose(_IMAGES) if b.flag() else b.choose(_SHAPES)
        b.put(b.array(*shape), free=True)
    # Hypothesis prefers some positions of a list; with an order for each graph, it prefers no operator.
    order = [*(KNOWN if b.smooth else LINEAR), "function"]
    b.random().shuffle(order)
    wanted: list[Any] = [draw(st.sampled_from(order)) for _ in range(b.integer(0 if must else 1, most))]
    if must:
        wanted.insert(b.integer(0, len(wanted)), must)
    added = set()
    for op in wanted:
        if _tried(b, op):
            added.add(op)
    assume(b.nodes and (must is None or must in added))
    outputs = _outputs(b)
    graph = b.finish(outputs, _active(b, outputs))
    assume(sum(b.values[name].size for name in graph.active) <= 400)
    assume(_runs(graph))
    return graph


def _runs(graph: Graph) -> bool:
    """Whether onnxruntime runs it, whole and cut at the active tensors: it infers wrong shapes for some.

    Seen: ConvTranspose with output_shape; AveragePool with SAME_UPPER and dilations, whose buffer is then
    reused for a tensor of another shape.
    """
    try:
        onnxruntime_of(graph.model)(graph.feeds)
        onnxruntime_of(graph.between)({**graph.feeds, **{name: graph.values[name] for name in graph.active}})
    except Exception:  # onnxruntime's exceptions share no base class
        return False
    return True


def _tried(b: Builder, op: str) -> bool:
    before = len(b.nodes)
    try:
        function(b) if op == "function" else EMITTERS[op](b)
    except Refused:
        return False
    return len(b.nodes) > before


def _active(b: Builder, outputs: list[str]) -> list[str]:
    """The free inputs, some of them, or tensors in between."""
    inner = [n for n in b.active if n not in b.feeds and n not in outputs and not b.sources[n] <= b.barred]
    if inner and b.flag() and b.flag():
        return b.subset(inner)[:2]
    allowed = [name for name in b.free if name not in b.barred]
    return b.subset(allowed) if b.flag() else allowed


def _outputs(b: Builder) -> list[str]:
    """The tensors that nothing reads, and now and then one that something does."""
    read = {name for node in b.nodes for name in node.input}
    computed = [name for name in b.active if name not in b.feeds]
    leaves = [name for name in computed if name not in read]
    assume(computed)
    extra = [b.choose(computed)] if b.flag() and b.flag() else []
    found = list(dict.fromkeys([*(leaves or computed[-1:]), *extra]))
    while sum(math.prod(b.shape(name)) for name in found) > 400:
        found.pop(0)
    return found
