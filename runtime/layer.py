"""Layer: one step of the network at x, as a map lists it."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import sparse

from .errors import InputError
from .primitives import Array, Primitive, Shape
from .program import Kind


@dataclass(frozen=True, eq=False)
class Layer:
    """One step of the network at x: output = Σ Lᵢ inputᵢ + offset."""

    name: str  # of the node
    op: str
    output: str  # tensor name
    shape: Shape
    kind: Kind
    bias_share: Array | None  # (K,): what this step's offset adds to b; None where W was not made
    inputs: tuple[str, ...] = ()  # tensor names, one for each term
    terms: tuple[Primitive, ...] | None = None  # None on a map that was loaded from a file
    offset: Array | None = None  # (*shape), None for zero

    def matrix(self, input: str | None = None) -> sparse.csr_array:
        """The step's sparse matrix over flattened tensors.

        Args:
            input: name of the input tensor; by default all inputs, their columns side by side in order.

        Raises:
            InputError: no such input, or a map that was loaded from a file, which holds no matrices.
        """
        if self.terms is None:
            raise InputError(
                f"layer {self.name!r} was loaded from a file, which holds no matrices; linearize again"
            )
        parts = [L.matrix() for name, L in zip(self.inputs, self.terms, strict=True) if input in (None, name)]
        if not parts:
            known = ", ".join(self.inputs) or "none: it does not depend on x"
            raise InputError(f"layer {self.name!r} has no input {input!r}; its inputs: {known}")
        return sparse.hstack(parts, format="csr") if len(parts) > 1 else parts[0]

    def __repr__(self) -> str:
        return f"Layer({self.name!r}, {self.op}, {self.output!r}{list(self.shape)}, {self.kind})"
