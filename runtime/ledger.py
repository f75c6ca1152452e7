"""Ledger: one output of the network as a sum in which every term has a name, and what the sum leaves over.

y = Σⱼ W[k, j] x[j] + Σ over steps and channels of bias shares. A step s adds an offset c_s to what it
computes, and output k depends on that tensor by its adjoint a_s = ∂F_k/∂s (slopes as at x), so the step's
share in b[k] is Σ a_s ⊙ c_s, and a channel's is the part of the sum that lies in the channel. One row carried
back through the network gives all a_s: a ledger costs about one gradient, whether or not W was ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from .arrays import Array, Shape, alone, located, overflow_refused_later, unstack
from .decision import DecisionBoundary
from .errors import InputError, NonFiniteError, OptionError
from .groups import Grouping, grouping, has_channels, shaped
from .ledger_text import html_of, text_of
from .linearization import Linearization
from .program import LinearProgram

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Share:
    """What the offset of one step adds to the output.

    A channel is axis 1 of the step's output where that has a batch axis of 1 before it: a convolution's
    channel, a dense layer's unit, a sequence's position. Steps of other shapes are not split.
    """

    step: int  # position among the map's layers
    node: str
    op: str
    output: str  # tensor name
    value: float
    channels: Array | None = None  # (C,) float64; they sum to the value. None where it is not split

    @property
    def parts(self) -> list[tuple[int | None, float]]:
        """Channel and value of each term: one for each channel, or a single one of the whole step."""
        if self.channels is None:
            return [(None, self.value)]
        return list(enumerate(self.channels.tolist()))

    def __sub__(self, other: Share) -> Share:
        """The share in the difference of two outputs."""
        channels = None
        if self.channels is not None and other.channels is not None:
            channels = self.channels - other.channels
        return replace(self, value=self.value - other.value, channels=channels)


@dataclass(frozen=True, eq=False)
class Ledger:
    """One output at x, or the difference of two, as a sum. All in float64.

    The terms are `contributions`, and the channels of all `shares`, or `base` instead of those.
    """

    row: int  # position in the map's rows
    output: str  # tensor name
    index: tuple[int, ...]  # in the output's shape
    value: float  # of the output, as onnxruntime computes it
    slopes: Array  # (N,): W[row]
    x: Array  # (N,) what they are multiplied by: x, or x - x0 where a baseline x0 was given
    shapes: Mapping[str, Shape]  # of the inputs
    shares: tuple[Share, ...]  # of the steps that have an offset; () where a base stands for them
    base: float | None  # F(x0) of the map, where a baseline x0 was given
    slack: float | None  # how large the residual may be by design (`quantized`); None on a loaded map
    grouped: Grouping | None = None
    sides: tuple[Ledger, Ledger] | None = None  # of a difference: the ledgers of both outputs
    boundary: DecisionBoundary | None = None  # of a difference: where the map gives both the same value

    @property
    def contributions(self) -> Any:
        """W[row] ⊙ x, or W[row] ⊙ (x - x0), in the input's shape; by input name where there are several."""
        return alone(unstack(self.flat, self.shapes))

    @cached_property
    def flat(self) -> Array:
        """The contributions, flattened and stacked, (N,)."""
        with overflow_refused_later():
            return self.slopes * self.x

    @cached_property
    def groups(self) -> dict[str, float]:
        """Group to the sum of its contributions, those of no group under "others"; empty without groups."""
        return {} if self.grouped is None else self.grouped.sums(self.flat)

    @cached_property
    def terms(self) -> Array:
        """All terms, (n,): contributions, then the channels of the shares, then the base."""
        shares = [value for share in self.shares for _, value in share.parts]
        return np.concatenate([self.flat, shares, [] if self.base is None else [self.base]])

    @cached_property
    def sum(self) -> float:
        """The sum of all terms, correctly rounded."""
        return math.fsum(self.terms)

    @cached_property
    def residual(self) -> float:
        """The output minus the sum: rounding, and `slack` if there is any."""
        return math.fsum([self.value, *(-self.terms)])

    @property
    def relative_residual(self) -> float:
        """|residual| / Σ |terms|: by what rounding errors of a sum are measured, as |sum| may cancel."""
        if self.residual == 0:
            return 0.0
        size = float(np.abs(self.terms).sum())
        return abs(self.residual) / size if size else math.inf

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON; infinities are null. Arrays are nested lists."""
        relative = self.relative_residual
        return {
            "row": self.row,
            "output": self.output,
            "index": list(self.index),
            "value": self.value,
            "sum": self.sum,
            "residual": self.residual,
            "relative_residual": relative if math.isfinite(relative) else None,
            "slack": self.slack,
            "contributions": {name: part.tolist() for name, part in unstack(self.flat, self.shapes).items()},
            "groups": self.groups,
            "shares": [
                {
                    "step": share.step,
                    "node": share.node,
                    "op": share.op,
                    "output": share.output,
                    "value": share.value,
                    "channels": None if share.channels is None else share.channels.tolist(),
                }
                for share in self.shares
            ],
            "base": self.base,
            "sides": None if self.sides is None else [side.as_dict() for side in self.sides],
            "boundary": None if self.boundary is None else self.boundary.as_dict(),
        }

    def table(self) -> pandas.DataFrame:
        """All terms as a pandas DataFrame, one a line; its column `value` sums to `sum`.

        Columns: `part` (contribution, bias share or base), `tensor` (the input, or the step's output),
        `index` (in the input), `group`, `node`, `op`, `channel`, `x`, `weight`, `value`.

        Raises:
            OptionError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise OptionError(
                "a ledger's table needs pandas, which is not installed: pip install 'ilin[table]'"
            ) from error
        return pandas.DataFrame(list(self._lines()), columns=_COLUMNS).astype({"channel": "Int64"})

    def _lines(self) -> Iterator[tuple[Any, ...]]:
        group: Sequence[str | None] = [None] * len(self.flat)
        if self.grouped is not None:
            group = [self.grouped.names[code] for code in self.grouped.codes.tolist()]
        entries = ((name, index) for name, shape in self.shapes.items() for index in np.ndindex(shape))
        columns = (group, self.x.tolist(), self.slopes.tolist(), self.flat.tolist())
        for (name, index), of, x, weight, value in zip(entries, *columns, strict=True):
            yield "contribution", name, index, of, None, None, None, x, weight, value
        for share in self.shares:
            for channel, value in share.parts:
                about = (share.output, None, None, share.node, share.op, channel)
                yield "bias share", *about, None, None, value
        if self.base is not None:
            yield "base", *[None] * 8, self.base

    def text(self, largest: int = 10) -> str:
        """The ledger as a table of at most 80 columns: the largest terms, the others added up, and the sum.

        Args:
            largest: contributions (or groups), and shares, that have a line of their own.
        """
        return text_of(self, largest)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return html_of(self, 10)

    def __repr__(self) -> str:
        of = f"{self.output}{list(self.index)}"
        if self.sides is not None:
            against = self.sides[1]
            of += f" - {against.output}{list(against.index)}"
        return f"Ledger({of} = {self.value:.6g}, relative residual {self.relative_residual:.1e})"


_COLUMNS = ["part", "tensor", "index", "group", "node", "op", "channel", "x", "weight", "value"]


def ledger_of(
    affine: Linearization, row: int, *, against: int | None = None, groups: Any = None, baseline: Any = None
) -> Ledger:
    """See `AffineMap.ledger`."""
    grouped = None if groups is None else grouping(groups, affine.input_shapes)
    start = None if baseline is None else _baseline(baseline, affine.input_shapes)
    first = _one(affine, row, grouped, start)
    if against is None:
        return first
    second = _one(affine, against, grouped, start)
    return _difference(affine, first, second)


def _one(affine: Linearization, row: int, grouped: Grouping | None, start: Array | None) -> Ledger:
    slopes = _stacked(affine.weights(row))
    position = int(affine.rows[row])
    output, index = located(position, affine.output_shapes)
    value = float(affine.outputs[output][index])
    x, base = affine.region.x, None
    shares, slack = _shares(affine, row)
    if start is not None:
        base = _total([*_products(slopes, start), float(affine.b[row])])
        x, shares = x - start, ()
    ledger = Ledger(
        row % len(affine.b),
        output,
        index,
        value,
        slopes,
        x,
        affine.input_shapes,
        shares,
        base,
        slack,
        grouped,
    )
    _total(ledger.terms)
    return ledger


def _difference(affine: Linearization, a: Ledger, b: Ledger) -> Ledger:
    slopes = a.slopes - b.slopes
    margin = _total([*_products(slopes, affine.region.x), float(affine.b[a.row]), -float(affine.b[b.row])])
    ledger = replace(
        a,
        value=a.value - b.value,
        slopes=slopes,
        shares=tuple(one - other for one, other in zip(a.shares, b.shares, strict=True)),
        base=None if a.base is None or b.base is None else a.base - b.base,
        slack=None if a.slack is None or b.slack is None else a.slack + b.slack,
        sides=(a, b),
        boundary=DecisionBoundary(margin, slopes, affine.region),
    )
    _total(ledger.terms)
    return ledger


def _shares(affine: Linearization, row: int) -> tuple[tuple[Share, ...], float | None]:
    """What each step adds to b[row], by channel where the network at x is there; and the slack."""
    if affine.program is None:
        shares = affine.bias_shares.astype(np.float64)
        return tuple(
            Share(step, layer.name, layer.op, layer.output, float(own[row]))
            for step, (layer, own) in enumerate(zip(affine.layers, shares, strict=True))
            if own.any()  # in whichever row, so that all rows have the same steps
        ), None
    return shares_back(affine.program, int(affine.rows[row]), affine.b.dtype)


@overflow_refused_later()
def shares_back(program: LinearProgram, element: int, dtype: DTypeLike) -> tuple[tuple[Share, ...], float]:
    """Split the offset of one output by steps and channels, in one sweep back.

    Args:
        program: the network at x.
        element: flat index into the stacked, flattened outputs.
        dtype: floating type of the adjoints; products and sums are in float64.

    Returns:
        The shares of all steps that have an offset and that the outputs depend on, in execution order; and
        the sum of |adjoint| ⊙ slack, how far the network's output may be from the map's by design.
    """
    shares: list[Share] = []
    slack = 0.0
    for position, adjoint in _adjoints(program, element, dtype):
        step = program.steps[position]
        if step.slack is not None:
            slack += float((np.abs(adjoint) * step.slack).sum(dtype=np.float64))
        offset = step.offset_block()
        if offset is None:
            continue
        products = adjoint * offset.astype(np.float64)
        channels = None
        if has_channels(step.shape):
            channels = products.sum(axis=(0, *range(2, products.ndim)))
        value = _total(products.ravel() if channels is None else channels)
        shares.append(Share(position, step.node, step.op_type, step.output, value, channels))
    return tuple(reversed(shares)), slack


def _adjoints(program: LinearProgram, element: int, dtype: DTypeLike) -> Iterator[tuple[int, Array]]:
    """Each step that the outputs depend on, last to first, with its adjoint, (*shape) float64."""
    unit = np.zeros(program.out_size, dtype)
    unit[element] = 1
    adjoints: dict[str, Array] = {}
    start = 0
    for name, shape in program.outputs:
        size = math.prod(shape)
        seed = unit[start : start + size].reshape(1, *shape)
        adjoints[name] = adjoints[name] + seed if name in adjoints else seed
        start += size
    for position in range(len(program.steps) - 1, -1, -1):
        step = program.steps[position]
        block = adjoints.pop(step.output, None)
        if block is None:
            continue
        yield position, block[0].astype(np.float64)
        for name, L in step.terms:
            part = L.T.apply(block)
            adjoints[name] = adjoints[name] + part if name in adjoints else part


def _baseline(baseline: Any, shapes: Mapping[str, Shape]) -> Array:
    """x0 flattened and stacked, (N,) float64."""
    N = sum(math.prod(shape) for shape in shapes.values())
    if isinstance(baseline, Mapping):
        if set(baseline) != set(shapes):
            given = ", ".join(map(str, baseline))
            raise InputError(f"the baseline takes the inputs {', '.join(shapes)}; given: {given}")
        parts = [
            np.ravel(shaped(baseline[name], shape, f"the baseline of input {name!r}"))
            for name, shape in shapes.items()
        ]
        flat = np.concatenate(parts)
    elif np.ndim(baseline) == 0:
        flat = np.full(N, baseline)
    elif len(shapes) == 1:
        flat = np.ravel(shaped(baseline, next(iter(shapes.values())), "the baseline"))
    else:
        raise InputError(f"the map has the inputs {', '.join(shapes)}: give the baseline by input name")
    if flat.dtype.kind not in "biuf":
        raise InputError(f"the baseline must be numbers, not {flat.dtype}")
    if not np.isfinite(flat).all():
        raise NonFiniteError("the baseline holds NaN or infinity")
    return flat.astype(np.float64)


def _stacked(values: Any) -> Array:
    """An array, or name to array, flattened and stacked, (N,) float64."""
    parts = values.values() if isinstance(values, Mapping) else [values]
    return np.concatenate([np.ravel(part).astype(np.float64) for part in parts])


@overflow_refused_later()
def _products(slopes: Array, x: Array) -> Array:
    return slopes * x


def _total(terms: Sequence[float] | Array) -> float:
    """The sum, correctly rounded.

    Raises:
        NonFiniteError: a term, or the sum, is outside the range of float64.
    """
    try:
        total = math.fsum(terms)
    except (OverflowError, ValueError):  # of finite terms; of infinities of both signs
        total = math.inf
    if not math.isfinite(total):
        raise NonFiniteError("terms of the ledger leave the range of float64, though W, b and x do not")
    return total
