"""Everything a page says of one map, as plain values: read from the map and its ledger."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.affine_map import AffineMap
from ..runtime.arrays import Array
from ..runtime.certificate import Certificate
from ..runtime.decision import DecisionBoundary, Nearest
from ..runtime.errors import IlinError, RowsError
from ..runtime.largest import by_size
from ..runtime.ledger import Ledger
from ..runtime.program import Kind
from ..runtime.region import NORMS, Radius
from ..runtime.text import one_line
from .names import Names
from .yardstick import Yardstick

LISTED = 15  # entries of a table
LAYERS = 25
PREDICTED = 5
_SHOWN = 1e-4  # of the largest number, below which a layer's share does not get a line of its own
_UNITS = 20_000  # that choose; with more of them, what takes the region takes long
_SWEEPS = 256  # through the network, after which the search for the nearest boundary is given up


@dataclass(frozen=True)
class Output:
    """One entry of the output."""

    name: str
    row: int  # flat index
    value: float  # as onnxruntime computes it


@dataclass(frozen=True)
class Entry:
    """One line of an account."""

    name: str
    x: float
    weight: float
    amount: float  # weight · x


@dataclass(frozen=True)
class Share:
    """What one layer adds to the constant."""

    name: str
    op: str
    amount: float


@dataclass(frozen=True)
class Layers:
    """The constant by layers: shares + others = constant, to rounding."""

    shares: tuple[Share, ...]  # those that are not zero, in the order of the network; the largest if many
    others: int
    others_amount: float
    largest: float


@dataclass(frozen=True)
class Account:
    """How one output adds up, or the difference of two: inputs + constant = value, to rounding."""

    contributions: Array  # (N,) float64
    entries: tuple[Entry, ...]  # the largest of them
    others: int  # entries that are not listed and not zero
    others_amount: float
    inputs: float  # all contributions
    constant: float  # b
    value: float  # as onnxruntime computes it
    layers: Layers

    @property
    def total(self) -> float:
        """What the account comes to."""
        return self.inputs + self.constant

    @property
    def scale(self) -> float:
        """The largest number of the account."""
        amounts = [each.amount for each in self.entries] + [each.amount for each in self.layers.shares]
        return max(map(abs, [*amounts, self.others_amount, self.inputs, self.constant, self.total]))

    @property
    def largest(self) -> float:
        """The longest bar."""
        return max((abs(each.amount) for each in self.entries), default=0.0) or 1.0


@dataclass(frozen=True)
class Extent:
    """How far the map holds."""

    radii: tuple[Radius, ...]
    left_out: str  # why there are none, if so


@dataclass(frozen=True)
class Content:
    """What there is to say."""

    model: str
    kind: Kind
    frozen: bool
    held: bool  # whether some inputs of the model are no part of x, and so of the constant
    outputs: int  # entries of all outputs
    leading: str  # the output whose entries the prediction is of, where there are several
    candidates: int  # its entries
    rows: tuple[int, ...]  # of them that were asked for
    prediction: tuple[Output, ...]
    explained: Output
    size: float  # of the largest output, without its sign
    against: Output | None
    account: Account
    contrast: Account | None
    nearest: tuple[Nearest, ...]  # where the map makes the two equal, in each norm
    boundary: DecisionBoundary | None
    slopes: Array  # (N,) W's row of the explained output
    yardstick: Yardstick  # for distances from the input
    certificate: Certificate
    extent: Extent
    notes: tuple[str, ...]
    provenance: Mapping[str, str]
    command: str
    in_python: bool  # whether the command is Python's

    @property
    def what(self) -> str:
        """What is explained, within a sentence."""
        return self.explained.name if self.outputs > 1 else "the output"


def content_of(
    affine: AffineMap, names: Names, row: int | None, against: int | None, command: str | None
) -> Content:
    """Read a map.

    Args:
        affine: the map.
        names: of its outputs and entries.
        row: position in `rows` of the output to explain; None for the largest.
        against: position of the one to set it against; None for the largest other.
        command: that repeats the answer; None for lines of Python.

    Raises:
        RowsError: one output against itself.
    """
    y = np.concatenate([np.ravel(value) for value in affine.outputs.values()]).astype(np.float64)
    top, other = chosen(affine, row, against)

    def output(flat: int) -> Output:
        return Output(names.output(flat), flat, float(y[flat]))

    ledger = affine.ledger(top, against=other)
    own = ledger if ledger.sides is None else ledger.sides[0]
    constant = float(affine.b[top])
    contrast, boundary = None, ledger.boundary
    if boundary is not None and affine.certificate.guards > _UNITS:  # the distances alone
        boundary = DecisionBoundary(boundary.margin, boundary.slopes, affine.region.facts())
    if other is not None:
        contrast = _account(names, ledger, constant - float(affine.b[other]))
    leading = affine._leading_entries()
    largest = by_size(y, np.arange(len(y)), leading)[:PREDICTED]
    return Content(
        model=one_line(affine.model) or "(a model without a file)",
        kind=affine.kind,
        frozen=affine.provenance.get("mode") == "frozen",
        held=bool(affine.held),
        outputs=len(y),
        leading=one_line(affine._leading) if len(affine.outputs) > 1 else "",
        candidates=len(leading),
        rows=tuple(affine.rows.tolist()),
        prediction=tuple(output(int(flat)) for flat in largest),
        explained=output(int(affine.rows[top])),
        size=float(np.abs(y).max()),
        against=None if other is None else output(int(affine.rows[other])),
        account=_account(names, own, constant),
        contrast=contrast,
        nearest=() if boundary is None else tuple(boundary.nearest(norm) for norm in NORMS),
        boundary=boundary,
        slopes=own.slopes,
        yardstick=Yardstick(own.x, names.entry, names.alike),
        certificate=affine.certificate,
        extent=extent_of(affine),
        notes=tuple(map(one_line, affine.notes)),
        provenance=_provenance(affine),
        command=in_python(affine) if command is None else command,
        in_python=command is None,
    )


def chosen(affine: AffineMap, row: int | None, against: int | None) -> tuple[int, int | None]:
    """Positions of the entry to explain, the largest by default, and of its rival, the largest other.

    Args:
        affine: the map.
        row: position in `rows`, or None.
        against: likewise.

    Raises:
        RowsError: one output against itself.
    """
    top = affine._position(row)
    if against is None:
        return top, affine._rival(top)
    if against == top:
        raise RowsError(f"an output is set against another one, not against itself: both are row {top}")
    return top, against


def extent_of(affine: AffineMap) -> Extent:
    """The radii that are known; where none are and that is cheap, worked out here."""
    region = affine.region
    known = tuple(region.found[norm] for norm in NORMS if norm in region.found)
    if known or affine.kind in (Kind.SMOOTH, Kind.AFFINE):
        return Extent(known, "")
    if region.survey is None:
        return Extent((), "the map was saved without it; --region has it worked out")
    if affine.certificate.guards > _UNITS:
        units = f"{affine.certificate.guards:,}"
        return Extent((), f"with {units} units that choose, this takes long; --region has it done")
    try:
        return Extent(tuple(region.radius(norm, seconds=None, rows=_SWEEPS) for norm in NORMS), "")
    except IlinError as error:  # no region is known, or too little memory to measure it
        return Extent((), one_line(str(error)))


def in_python(affine: AffineMap) -> str:
    """Lines of Python that give the same map again; x is the reader's to bring."""
    settings = {
        "inputs": list(affine.inputs),
        "outputs": list(affine.outputs),
        **{
            name: affine.provenance[name]
            for name in ("dtype", "engine", "direction", "mode", "quantized")
            if name in affine.provenance
        },
    }
    everything = len(affine.rows) == sum(value.size for value in affine.outputs.values())
    rows = "" if everything else f", rows={affine.rows.tolist()}"
    options = "".join(f",\n    {name}={value!r}" for name, value in settings.items())
    return f"compiled = ilin.compile(\n    {affine.model!r}{options},\n)\naffine = compiled.at(x{rows})"


def _account(names: Names, ledger: Ledger, constant: float) -> Account:
    amounts = ledger.flat
    order = [int(j) for j in np.argsort(-np.abs(amounts), kind="stable")[:LISTED] if amounts[j]]
    entries = tuple(
        Entry(names.entry(j), float(ledger.x[j]), float(ledger.slopes[j]), float(amounts[j])) for j in order
    )
    total = math.fsum(amounts)
    return Account(
        contributions=amounts,
        entries=entries,
        others=int(np.count_nonzero(amounts)) - len(entries),
        others_amount=math.fsum([total, *(-each.amount for each in entries)]),
        inputs=total,
        constant=constant,
        value=ledger.value,
        layers=_layers(ledger, constant, max(map(abs, (total, constant, *amounts[order[:1]])))),
    )


def _layers(ledger: Ledger, constant: float, scale: float) -> Layers:
    """What layers add to the constant; scale is the largest other number of the account."""
    least = _SHOWN * max(scale, *(abs(share.value) for share in ledger.shares), 0.0)
    speaking = [share for share in ledger.shares if share.value and abs(share.value) >= least]
    largest = sorted(speaking, key=lambda share: -abs(share.value))[:LAYERS]
    kept = [share for share in speaking if any(share is each for each in largest)]
    return Layers(
        tuple(Share(one_line(share.node), share.op, share.value) for share in kept),
        sum(bool(share.value) for share in ledger.shares) - len(kept),
        math.fsum([constant, *(-share.value for share in kept)]),
        max((abs(share.value) for share in kept), default=0.0) or 1.0,
    )


def _provenance(affine: AffineMap) -> dict[str, str]:
    tensors = {
        f"{side} {one_line(name)}": f"{'×'.join(map(str, value.shape)) or 'scalar'} {value.dtype}"
        for side, values in (("input", affine.inputs), ("output", affine.outputs))
        for name, value in values.items()
    }
    numbers = b"".join(np.ascontiguousarray(value).tobytes() for value in affine.inputs.values())
    K, N = affine.W.shape
    return {
        "model": one_line(affine.model),
        "SHA-256 of the model": affine.model_sha256,
        **tensors,
        "SHA-256 of the input's numbers": hashlib.sha256(numbers).hexdigest(),
        "W": f"{K:,} × {N:,} {affine.b.dtype}",
        "kind": str(affine.kind),
        **{name: one_line(_told(value)) for name, value in affine.provenance.items()},
    }


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value)
