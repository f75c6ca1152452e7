"""Verdict: what ilin can do with one node, given which tensors depend on x."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import Entry
from ..runtime.program import Kind
from .graph import Node


@dataclass(frozen=True)
class Verdict:
    """What ilin can do with one node."""

    node: Node
    kind: Kind | None  # None: unsupported, for the given reason
    depends_on_x: bool
    reason: str = ""
    entry: Entry | None = None  # what serves it
    observed: frozenset[int] = frozenset()  # positions of inputs whose values at x the rule reads
    held: frozenset[int] = frozenset()  # positions of inputs that depend on x and are taken as parameters
    moved: tuple[str, ...] = ()  # outputs of a composite node that vary with x
    without_rule: Node | None = None  # what is in the way: this node, or one that it is written out in

    @property
    def varying(self) -> tuple[str, ...]:
        """Outputs that vary with the inputs ("" where left out); indices and masks do not."""
        constant = self.entry.constant_outputs if self.entry else ()
        return self.moved or tuple(name for i, name in enumerate(self.node.outputs) if i not in constant)

    @property
    def watched(self) -> tuple[str, ...]:
        """What the guards of a locally constant node are made from: its inputs, or else its outputs."""
        return self.node.inputs if self.entry is not None and self.entry.watch else self.node.outputs
