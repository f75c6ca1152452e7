"""Everything a page says of one map, as plain values: read from the map, nothing worked out twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.affine_map import AffineMap
from ..runtime.arrays import Array
from ..runtime.certificate import Certificate
from ..runtime.errors import IlinError, MemoryLimitError, RowsError
from ..runtime.program import Kind
from ..runtime.region import NORMS, Radius
from ..runtime.text import one_line
from .names import Names

LISTED = 15  # entries of a table
LAYERS = 40
PREDICTED = 5
_UNITS = 20_000  # that choose; with more of them a region is measured only where that is asked for
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
class Account:
    """How one output adds up, or the difference of two: inputs + constant = value."""

    contributions: Array  # (N,) float64
    entries: tuple[Entry, ...]  # the largest of them
    others: int  # entries that are not listed and not zero
    others_amount: float
    inputs: float  # all contributions
    constant: float  # b
    value: float  # as onnxruntime computes it

    @property
    def total(self) -> float:
        """What the account comes to."""
        return self.inputs + self.constant

    @property
    def scale(self) -> float:
        """The largest number of the account."""
        amounts = [each.amount for each in self.entries]
        return max(map(abs, [*amounts, self.others_amount, self.inputs, self.constant, self.total]))

    @property
    def largest(self) -> float:
        """The longest bar."""
        return max((abs(each.amount) for each in self.entries), default=0.0) or 1.0


@dataclass(frozen=True)
class Share:
    """What one layer adds to the constant."""

    name: str
    op: str
    amount: float


@dataclass(frozen=True)
class Ledger:
    """The constant by layers: shares + others = constant."""

    shares: tuple[Share, ...]  # those that are not zero, in the order of the network; the largest if many
    others: int
    others_amount: float
    silent: int  # layers that add nothing
    largest: float


@dataclass(frozen=True)
class Extent:
    """How far the map holds."""

    radii: tuple[Radius, ...]
    left_out: str  # why there are none, if so


@dataclass(frozen=True)
class Content:
    """What there is to say."""

    model: str
    sha256: str
    kind: Kind
    frozen: bool
    outputs: int  # entries of the output
    rows: int  # of them that were asked for
    prediction: tuple[Output, ...]
    explained: Output
    against: Output | None
    account: Account
    contrast: Account | None
    slopes: Array  # (N,) W's row of the explained output
    ledger: Ledger | None
    certificate: Certificate
    extent: Extent
    notes: tuple[str, ...]
    provenance: Mapping[str, str]
    command: str
    in_python: bool  # whether the command is Python's


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
        RowsError: positions outside the map's rows.
    """
    y = np.concatenate([np.ravel(value) for value in affine.outputs.values()]).astype(np.float64)
    asked = y[affine.rows]
    top = int(np.argmax(asked)) if row is None else _position(affine, row)
    other = _runner_up(asked, top) if against is None else _position(affine, against)
    if other == top:
        raise RowsError(f"an output is set against another one, not against itself: both are row {top}")
    explained, rival = (
        None if at is None else Output(names.output(int(affine.rows[at])), int(affine.rows[at]), float(asked[at]))
        for at in (top, other)
    )
    assert explained is not None
    largest = np.argsort(-y, kind="stable")[:PREDICTED]
    contrast = None if other is None else _contrast(affine, names, top, other, asked)
    return Content(
        one_line(affine.model) or "(a model without a file)",
        affine.model_sha256,
        affine.kind,
        affine.provenance.get("mode") == "frozen",
        len(y),
        len(affine.rows),
        tuple(Output(names.output(int(k)), int(k), float(y[k])) for k in largest),
        explained,
        rival,
        _account(names, affine, _flat(affine.weights(top)), float(affine.b[top]), float(asked[top])),
        contrast,
        _flat(affine.weights(top)),
        _ledger(affine, top),
        affine.certificate,
        extent_of(affine),
        tuple(map(one_line, affine.notes)),
        _provenance(affine),
        in_python(affine) if command is None else command,
        command is None,
    )


def extent_of(affine: AffineMap) -> Extent:
    """The radii that are known; where none are and that is cheap, worked out here."""
    region, kind = affine.region, affine.kind
    known = tuple(region.found[norm] for norm in NORMS if norm in region.found)
    if known:
        return Extent(known, "")
    if kind in (Kind.SMOOTH, Kind.AFFINE):
        return Extent((), "")
    if region.survey is None:
        return Extent((), "the map was saved without them; --region has them worked out")
    if affine.certificate.guards > _UNITS:
        return Extent(
            (), f"with {affine.certificate.guards:,} units that choose this takes long; --region has it done"
        )
    try:
        return Extent(tuple(region.radius(norm, rows=_SWEEPS) for norm in NORMS), "")
    except IlinError as error:
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


def _position(affine: AffineMap, row: int) -> int:
    affine.weights(row)  # refuses what is no position
    return int(row) % len(affine.b)


def _runner_up(asked: Array, top: int) -> int | None:
    order = [int(k) for k in np.argsort(-asked, kind="stable") if k != top]
    return order[0] if order else None


def _contrast(affine: AffineMap, names: Names, top: int, other: int, asked: Array) -> Account:
    slopes = _flat(affine.weights(top)) - _flat(affine.weights(other))
    constant = float(affine.b[top]) - float(affine.b[other])
    return _account(names, affine, slopes, constant, float(asked[top]) - float(asked[other]))


def _account(names: Names, affine: AffineMap, slopes: Array, constant: float, value: float) -> Account:
    x = _flat(affine.inputs)
    amounts = slopes * x
    order = [int(j) for j in np.argsort(-np.abs(amounts), kind="stable")[:LISTED] if amounts[j]]
    entries = tuple(Entry(names.entry(j), float(x[j]), float(slopes[j]), float(amounts[j])) for j in order)
    total = float(amounts.sum())
    return Account(
        amounts,
        entries,
        int(np.count_nonzero(amounts)) - len(entries),
        total - sum(each.amount for each in entries),
        total,
        constant,
        value,
    )


def _ledger(affine: AffineMap, position: int) -> Ledger | None:
    """The constant by layers; None where W was not made, and the shares with it."""
    try:
        amounts = affine.bias_shares[:, position].astype(np.float64)
    except MemoryLimitError:
        return None
    speaking = [i for i in range(len(amounts)) if amounts[i]]
    kept = sorted(sorted(speaking, key=lambda i: -abs(amounts[i]))[:LAYERS])
    shares = tuple(
        Share(one_line(affine.layers[i].name), affine.layers[i].op, float(amounts[i])) for i in kept
    )
    return Ledger(
        shares,
        len(speaking) - len(kept),
        float(amounts.sum()) - sum(share.amount for share in shares),
        len(amounts) - len(speaking),
        max((abs(share.amount) for share in shares), default=0.0) or 1.0,
    )


def _provenance(affine: AffineMap) -> dict[str, str]:
    tensors = {
        f"{side} {one_line(name)}": f"{'×'.join(map(str, value.shape)) or 'scalar'} {value.dtype}"
        for side, values in (("input", affine.inputs), ("output", affine.outputs))
        for name, value in values.items()
    }
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(value).tobytes() for value in affine.inputs.values()))
    K, N = affine.W.shape
    return {
        "model": one_line(affine.model),
        "SHA-256 of the model": affine.model_sha256,
        **tensors,
        "SHA-256 of the input's numbers": digest.hexdigest(),
        "W": f"{K:,} × {N:,} {affine.b.dtype}",
        "kind": str(affine.kind),
        **{name: one_line(_told(value)) for name, value in affine.provenance.items()},
    }


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value)


def _flat(values: Any) -> Array:
    """One array, or name to array, flattened and stacked in float64."""
    parts = values.values() if isinstance(values, Mapping) else [values]
    return np.concatenate([np.ravel(part).astype(np.float64) for part in parts])
