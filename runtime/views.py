"""The network at x seen from a tensor on the way: what leads up to it, what follows from it, what passes it.

For a tensor t let P z + p be the map from the inputs z up to it, and M t + r the map onward from it to the
rows, everything that does not come from t held at x. Where every path from the inputs passes t (t is a cut),
r depends on nothing but the network, and the two compose to the whole: W = M P and b = M p + r. Where some
paths go around t, as beside a residual branch, M is the total derivative of the rows with respect to t, r
is what arrives around t at x, and M t(x) + r = W x + b still holds, at x.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from scipy import sparse

from .arrays import Array, Shape, overflow_refused_later
from .errors import InputError, MemoryLimitError, NonFiniteError, OptionError, UnknownTensorError
from .layer import Layer
from .linearization import Linearization
from .matrix import matrix_of
from .memory import limit_of, readable
from .operator import ProgramOperator, bias_of, operator_of, walked
from .program import Kind, LinearProgram, Step
from .transpose import tangent

Limit = int | str | None  # of memory, as in `limit_of`
_LINES = 12  # units that a text shows
_ROOM = 2**22  # entries of the largest tensor of a block of vectors


@dataclass(frozen=True, eq=False)
class LayerView:
    """The affine map M u + b between a tensor of the network at x and the inputs, or the rows.

    Made by `AffineMap.upto` and `.onward`. Rows and columns are flattened in C order. M is not computed
    before it is asked for.
    """

    tensor: str
    program: LinearProgram = field(repr=False)  # the linear part of the steps between the two
    rows: Array  # (K,) flat indices into what comes out
    b: Array  # (K,)
    cut: bool  # whether every path from the inputs to the outputs passes the tensor
    memory_limit: Limit = field(default=None, repr=False)  # of `matrix` and `rank`

    @property
    def in_shapes(self) -> dict[str, Shape]:
        """Name to shape of what u stacks: the inputs, or the tensor."""
        return dict(self.program.inputs)

    @property
    def out_shapes(self) -> dict[str, Shape]:
        """Name to shape of what the rows count in: the tensor, or the outputs."""
        return dict(self.program.outputs)

    @property
    def shape(self) -> tuple[int, int]:
        """(K, N) of M."""
        return len(self.rows), self.program.in_size

    @cached_property
    def operator(self) -> ProgramOperator:
        """M as a scipy LinearOperator: each product is one sweep through the steps."""
        largest = max((step.size for step in self.program.steps), default=1)
        at_once = max(1, _ROOM // max(largest, 1))
        return operator_of(self.program, self.rows, self.b.dtype, at_once=at_once)

    def matrix(self) -> sparse.csr_array:
        """M, (K, N), made when it is first asked for and then kept.

        Raises:
            MemoryLimitError: it would take more than `memory_limit`.
            NonFiniteError: an entry outside the range of the type.
        """
        return self._matrix

    @cached_property
    def _matrix(self) -> sparse.csr_array:
        with overflow_refused_later():
            M = matrix_of(self.program, self.rows, self.b.dtype, limit_of(self.memory_limit))
        _require_finite(M.data, f"entries of a view at {self.tensor!r}")
        return M

    @property
    def nnz(self) -> int:
        """Entries of M that are not 0."""
        return int(self.matrix().nnz)

    def rank(self) -> int:
        """The rank of M: its singular values above σ₁ · max(K, N) · ε, ε that of M's own type.

        That is `numpy.linalg.matrix_rank` of M as it was composed; the singular values are worked out in
        float64, over the rows and columns of M that are not 0.

        Raises:
            MemoryLimitError: M, or the dense part that has to be decomposed, would not fit.
        """
        M = self.matrix()
        rows, columns = np.flatnonzero(np.diff(M.indptr)), np.unique(M.indices)
        if not len(rows):
            return 0
        size = 3 * 8 * len(rows) * len(columns)  # LAPACK works on a copy, beside its own room
        if size > limit_of(self.memory_limit):
            raise MemoryLimitError(
                f"the rank takes the singular values of a dense {len(rows)} × {len(columns)} matrix: about "
                f"{readable(size)}; memory_limit= admits more"
            )
        found = np.linalg.svd(M[rows][:, columns].toarray().astype(np.float64), compute_uv=False)
        return int(np.count_nonzero(found > found[0] * max(M.shape) * np.finfo(M.dtype).eps))

    def __call__(self, u: Any) -> Array:
        """M u + b, (K,).

        Args:
            u: N numbers: shaped as what the view starts from, or flat; several inputs flat and stacked.

        Raises:
            InputError: another number of them.
        """
        flat = np.ravel(np.asarray(u)).astype(self.b.dtype)
        if len(flat) != self.shape[1]:
            start = ", ".join(f"{name!r} {list(shape)}" for name, shape in self.program.inputs)
            raise InputError(f"this view starts from {start}, but {len(flat)} numbers are given")
        return np.asarray(self.operator @ flat) + self.b

    def __repr__(self) -> str:
        K, N = self.shape
        source, target = (clipped(", ".join(names), 18) for names in (self.in_shapes, self.out_shapes))
        return f"LayerView({source} → {target}, {K}×{N} {self.b.dtype})"


@dataclass(frozen=True, eq=False)
class Carried:
    """What arrives of an input feature at one step."""

    node: str
    op: str
    output: str  # tensor name
    shape: Shape
    norm: float  # L2
    nonzeros: int  # entries of the tensor that it reaches
    unit: tuple[int, ...] | None  # the entry that it moves most; None where it reaches none
    value: float  # what arrives there; 0.0 where it reaches none
    tensor: Array | None = field(default=None, repr=False)  # (*shape), where tensors were asked for


@dataclass(frozen=True, eq=False)
class FeatureTrace:
    """How one input feature is carried through the network at x, step by step."""

    input: str
    index: tuple[int, ...]
    x: float  # its value
    steps: tuple[Carried, ...]  # in execution order, as `AffineMap.layers`

    def __repr__(self) -> str:
        head = f"{clipped(self.input, 30)}{list(self.index)} = {self.x:.6g}, carried on"
        lines = [head, f"{'tensor':<25}{'op':<13}{'norm':>9}{'nonzero':>9}{'largest':>10}"]
        for step in self.steps:
            where = "" if step.unit is None else f" [{','.join(map(str, step.unit))}]"
            op = step.op if len(step.op) < 13 else step.op[:11] + "…"
            lines.append(
                f"{clipped(step.output, 24):<25}{op:<13}"
                f"{step.norm:>9.4g}{step.nonzeros:>9}{step.value:>+10.4g}{clipped(where, 14)}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Units:
    """What the units of a tensor carry to one row: slope times value at x, largest first.

    contribution.sum() + others + rest = (W x + b)[row].
    """

    tensor: str
    row: int  # position in the map's rows
    index: Array  # (k, axes of the tensor)
    value: Array  # (k,) of the units at x
    slope: Array  # (k,) of the row in each of them
    contribution: Array  # (k,) slope ⊙ value, by decreasing magnitude
    others: float  # the sum over the units that are not listed
    rest: float  # what does not come through the tensor: later offsets, and paths around it
    cut: bool  # whether every path from the inputs passes the tensor, so that rest is offsets alone

    @property
    def total(self) -> float:
        """All of it: the row's output at x."""
        return float(self.contribution.sum()) + self.others + self.rest

    def __repr__(self) -> str:
        return f"Units({self.tensor!r}, {len(self.value):,} carry {self.total:.6g})"

    def __str__(self) -> str:
        lines = [f"{clipped(self.tensor, 27):<28}{'value':>12}{'slope':>14}{'contribution':>14}"]
        listed = zip(self.index, self.value, self.slope, self.contribution, strict=True)
        for index, *numbers in islice(listed, _LINES):
            value, slope, part = map(float, numbers)
            where = clipped(str(list(map(int, index))), 25)
            lines.append(f"  {where:<26}{value:>12.6g}{slope:>+14.6g}{part:>+14.6g}")
        others = float(self.contribution[_LINES:].sum()) + self.others
        held = "offsets behind it" if self.cut else "around it, and offsets behind it"
        for name, number in (("other units", others), (held, self.rest), ("sum", self.total)):
            lines.append(f"  {name:<52}{number:>+14.6g}")
        return "\n".join(lines)


def upto(affine: Linearization, step: str | Layer, memory_limit: Limit) -> LayerView:
    """The view from the inputs to a tensor; `AffineMap.upto` documents it."""
    program = network_of(affine)
    name, shape = tensor_at(program, step)
    part, rows = program.upstream([name]), np.arange(math.prod(shape))
    with overflow_refused_later():
        b = bias_of(part, rows, affine.b.dtype)
    _require_finite(b, f"offsets of the view up to {name!r}")
    return LayerView(name, tangent(part), rows, b, is_cut(program, name), memory_limit)


def onward(affine: Linearization, step: str | Layer, memory_limit: Limit) -> LayerView:
    """The view from a tensor to the map's rows; `AffineMap.onward` documents it."""
    program = network_of(affine)
    name, shape = tensor_at(program, step)
    others = tuple(one for one in program.steps if one.output != name)
    beside = LinearProgram((*_but(program.inputs, name), (name, shape)), program.outputs, others)
    without = {**_block(affine), name: np.zeros((1, *shape), affine.b.dtype)}
    ends = [given for given, _ in program.outputs]
    with overflow_refused_later():
        b = walked(beside.upstream(ends), without, weight=1.0)[0, affine.rows]
    _require_finite(b, f"offsets of the view onward from {name!r}")
    constant = tuple(_zero(*put) for put in _but(program.inputs, name) if put[0] in ends)
    part = tangent(LinearProgram(((name, shape),), program.outputs, (*constant, *others)))
    return LayerView(name, part, affine.rows, b, is_cut(program, name), memory_limit)


def trace_feature(affine: Linearization, feature: Any, tensors: bool) -> FeatureTrace:
    """How a feature is carried through the network; `AffineMap.trace_feature` documents it."""
    program = network_of(affine)
    name, index = _feature(affine, feature)
    block = {given: np.zeros_like(value) for given, value in _block(affine).items()}
    block[name][(0, *index)] = affine.inputs[name][index]
    found = []
    for step, values in program.walk(block, [0.0]):
        tensor = np.asarray(values[step.output][0])
        sizes = np.abs(tensor)
        reached = int(np.count_nonzero(tensor))
        most = tuple(map(int, np.unravel_index(sizes.argmax(), step.shape))) if reached else None
        found.append(
            Carried(
                step.node,
                step.op_type,
                step.output,
                step.shape,
                float(np.linalg.norm(tensor.ravel().astype(np.float64))),
                reached,
                most,
                0.0 if most is None else float(tensor[most]),
                tensor.copy() if tensors else None,
            )
        )
    return FeatureTrace(name, index, float(block[name][(0, *index)]), tuple(found))


def units(affine: Linearization, row: int, step: str | Layer, k: int | None) -> Units:
    """What units carry to a row; `AffineMap.units` documents it. Row is a position in the map's rows."""
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1):
        raise OptionError(f"k is how many units to list: a positive integer or None, not {k!r}")
    view = onward(affine, step, None)
    ((name, shape),) = view.program.inputs
    unit = np.zeros(len(view.rows), view.b.dtype)
    unit[row] = 1
    slope = view.operator.rmatvec(unit).astype(np.float64)
    value = walked(network_of(affine).upstream([name]), _block(affine), weight=1.0)[0]
    parts = slope * value
    order = np.argsort(-np.abs(parts), kind="stable")
    shown, rest = order[:k], order[len(order) if k is None else k :]
    index = np.stack(np.unravel_index(shown, shape), axis=1) if shape else np.zeros((len(shown), 0), int)
    listed = (value[shown].astype(np.float64), slope[shown], parts[shown])
    return Units(name, row, index, *listed, float(parts[rest].sum()), float(view.b[row]), view.cut)


def network_of(affine: Linearization) -> LinearProgram:
    """The network at x behind a map.

    Raises:
        InputError: the map was loaded from a file, or unpickled.
    """
    if affine.program is None:
        raise InputError(
            "this map was loaded from a file, which holds W and b but not the network at x; linearize again"
        )
    return affine.program


def tensor_at(program: LinearProgram, step: str | Layer) -> tuple[str, Shape]:
    """Name and shape of the tensor that is meant by its own name, by its node's, or by its layer.

    Raises:
        UnknownTensorError: nothing of that name depends on x, or a node of that name makes several tensors.
    """
    name = getattr(step, "output", None) or str(step)
    shapes = dict(program.inputs) | {one.output: one.shape for one in program.steps}
    if name in shapes:
        return name, shapes[name]
    made = [one.output for one in program.steps if one.node == name]
    if len(made) == 1:
        return made[0], shapes[made[0]]
    if made:
        raise UnknownTensorError(f"node {name!r} makes several tensors; name one: {', '.join(made)}")
    known = [*shapes, *(one.node for one in program.steps)]
    near = difflib.get_close_matches(name, known, 1)
    raise UnknownTensorError(
        f"no tensor or node {name!r} depends on x here; "
        + (f"did you mean {near[0]!r}? " if near else "")
        + "`layers` lists them all"
    )


def is_cut(program: LinearProgram, tensor: str) -> bool:
    """Whether every path from the inputs to the outputs passes a tensor.

    Paths are the graph's: one whose units are all dead at x counts too.
    """
    around = {name for name, _ in program.inputs} - {tensor}
    for step in program.steps:
        if step.output != tensor and any(name in around for name, _ in step.terms):
            around.add(step.output)
    return not any(name in around for name, _ in program.outputs)


def clipped(text: str, width: int) -> str:
    """The text, or its end behind an ellipsis where it is longer: names differ at their ends."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _require_finite(array: Array, what: str) -> None:
    if not np.isfinite(array).all():
        raise NonFiniteError(
            f"{what} leave the range of {array.dtype}; float64 has a wider one (dtype='float64')"
        )


def _but(puts: Iterable[tuple[str, Shape]], left_out: str) -> tuple[tuple[str, Shape], ...]:
    return tuple((name, shape) for name, shape in puts if name != left_out)


def _zero(name: str, shape: Shape) -> Step:
    """An input that is held, where it is an output too: nothing of it comes from the tensor."""
    return Step(name, shape, name, "(held)", Kind.AFFINE, ())


def _block(affine: Linearization) -> dict[str, Array]:
    """The point x as a block, input name to (1, *shape), in the map's type."""
    return {name: value[None].astype(affine.b.dtype) for name, value in affine.inputs.items()}


def _feature(affine: Linearization, feature: Any) -> tuple[str, tuple[int, ...]]:
    """Input name and index of a feature that is given by position, or by input and position or index."""
    sizes = {name: value.size for name, value in affine.inputs.items()}
    if isinstance(feature, tuple) and len(feature) == 2 and isinstance(feature[0], str):
        name, position = feature
        if name not in sizes:
            raise InputError(f"this map takes the inputs {', '.join(sizes)}; given: {name!r}")
        shape = affine.inputs[name].shape
        if isinstance(position, tuple):
            if len(position) == len(shape) and all(map(_within, position, shape)):
                return name, tuple(int(i) % size for i, size in zip(position, shape, strict=True))
        elif _within(position, sizes[name]):
            return name, _index(int(position) % sizes[name], shape)
        raise InputError(f"{position!r} is no index into input {name!r}, which has shape {list(shape)}")
    total = sum(sizes.values())
    if not _within(feature, total):
        raise InputError(
            f"feature {feature!r} is none of the {total} input entries; give a flat index, 0 to {total - 1}, "
            "or (input name, index)"
        )
    ends = np.cumsum(list(sizes.values()))
    position = int(feature) % total
    which = int(np.searchsorted(ends, position, side="right"))
    name = list(sizes)[which]
    return name, _index(position - int(ends[which]) + sizes[name], affine.inputs[name].shape)


def _within(position: Any, size: int) -> bool:
    whole = isinstance(position, int | np.integer) and not isinstance(position, bool)
    return whole and -size <= position < size


def _index(position: int, shape: Shape) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(position, shape)))
