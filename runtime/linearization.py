"""Linearization: the network at x as F(z) = W z + b, with x, F(x) and what was found out on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import sparse

from .arrays import alone, overflow_refused_later, stack, unstack
from .certificate import Certificate, Level
from .errors import InputError, MemoryLimitError, NonFiniteError, OptionError, RowsError
from .html import facts
from .largest import by_size, entries_of, rivals
from .layer import Layer
from .primitives import Array, Shape
from .program import Kind, LinearProgram
from .record import Record
from .region import Geometry, Region, region_of
from .ties import Ties

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Linearization:
    """W, b, and all that belongs to them. `AffineMap` adds what is worked out from these.

    Rows are flattened, stacked outputs; columns are flattened, stacked inputs; both in C order.
    """

    W: Array | sparse.csr_array | LinearOperator  # (K, N)
    b: Array  # (K,)
    rows: Array  # (K,) flat output indices behind the rows
    kind: Kind
    inputs: Mapping[str, Array]  # x, by input name
    outputs: Mapping[str, Array]  # F(x) as onnxruntime computes it, by output name
    _layers_of: Callable[[], tuple[Layer, ...]] = field(repr=False)  # `layers`, when they are first read
    _certify: Callable[[Level], Certificate] = field(repr=False)  # `certificate`, when it is first read
    model: str  # file name
    model_sha256: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _survey: Callable[[], Geometry] | None = field(default=None, repr=False)  # what `region` works with
    program: LinearProgram | None = field(default=None, repr=False)  # the network at x; None if loaded
    held: Mapping[str, Array] = field(default_factory=dict)  # graph inputs that it is no function of
    _recorder: Callable[[], Record | None] | None = field(
        default=None, repr=False
    )  # `record`, when it is first read
    _examine: Callable[[], Ties] | None = field(default=None, repr=False)  # `ties`, when it is first read
    leading: str = ""  # the output explained where nobody names one: the first that depends on x

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The steps of the network at x, in execution order, with what each adds to b."""
        return self._layers_of()

    @cached_property
    def certificate(self) -> Certificate:
        """The verification against onnxruntime, made when it is first read and then kept.

        Raises:
            ModelError: onnxruntime fails.
            NonFiniteError: a tensor that depends on x is NaN or infinite.
        """
        return _with_ties(self._certify("default"), vars(self).get("ties"))

    def certify_deeply(self) -> Certificate:
        """Verify as deeply as ilin can; what comes out takes the place of `certificate`.

        Every step by itself, every row against its own bound, more fresh points, the model in float64 inside
        the region, the units whose side of a kink rounding may decide, and for a map in float32 the same
        composed in float64.

        Returns:
            The certificate of level "deep".

        Raises:
            As `certificate`; MemoryLimitError where W in float64 does not fit; OptionError on a map that was
            loaded or copied, unless the certificate that it came with is deep.
        """
        found = _with_ties(self._certify("deep"), vars(self).get("ties"))
        vars(self)["certificate"] = found
        return found

    @cached_property
    def record(self) -> Record | None:
        """Fresh points and bounds, to compare the map with its model again; made when it is first read.

        None where W was not made, where what rounding may do leaves the range of float64, and on maps
        loaded from a file of format 1.
        """
        if self._recorder is None:
            return None
        _ = self.certificate  # before, as the record goes on with the fresh points that it has found
        return self._recorder()

    @cached_property
    def region(self) -> Region:
        """How far the map holds, and what limits it. Nothing of it is computed before it is asked for."""
        return region_of(self.kind, self.inputs, self._survey, self.program)

    @cached_property
    def ties(self) -> Ties:
        """Units exactly on a kink at x, which of them matter, and the maps that meet there.

        Examined when it is first read; the certificate says so from then on.

        Raises:
            OptionError: a map loaded from a file that was saved without them.
            UnsupportedError: x decides which way it takes through the model.
        """
        if self._examine is None:
            raise OptionError(
                "this map was loaded from a file that was saved before its ties were examined; "
                "linearize again, and read ties before saving"
            )
        found = self._examine()
        if "certificate" in vars(self):
            vars(self)["certificate"] = _with_ties(self.certificate, found)
        return found

    @property
    def x(self) -> Any:
        """The point: an array where there is one input, else input name to array."""
        return alone(self.inputs)

    @property
    def y(self) -> Any:
        """F(x), all rows: an array where there is one output, else output name to array."""
        return alone(self.outputs)

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """Input name to shape."""
        return {name: value.shape for name, value in self.inputs.items()}

    @property
    def output_shapes(self) -> dict[str, Shape]:
        """Output name to shape."""
        return {name: value.shape for name, value in self.outputs.items()}

    @property
    def operator(self) -> LinearOperator:
        """W as a scipy LinearOperator: for products, lsqr, svds, whether or not W was ever made."""
        from scipy.sparse.linalg import aslinearoperator

        return aslinearoperator(self.W)  # type: ignore[arg-type]

    @property
    def bias_shares(self) -> Array:
        """(layers, K): what each layer's offset adds to b; they sum to b.

        Raises:
            MemoryLimitError: W was not made, and the shares come with it.
        """
        if not isinstance(self.W, np.ndarray | sparse.csr_array):
            raise MemoryLimitError(
                "this map was asked for with materialize=False, so W was not made, nor its layers' shares "
                "in b; ask without it, for fewer rows where W does not fit"
            )
        return np.array([layer.bias_share for layer in self.layers]).reshape(len(self.layers), len(self.b))

    @cached_property
    def _flat_x(self) -> Array:
        return stack(self.inputs).astype(self.b.dtype)

    def __call__(self, z: Any) -> Any:
        """W z + b.

        Args:
            z: shaped as the input (a missing leading axis of 1 is added), or input name to array.

        Returns:
            In the output's own shape where the map has all rows (output name to array where there are
            several outputs), else (K,).

        Raises:
            InputError: z does not have the inputs' shapes.
        """
        value = self.W @ self._flatten(z) + self.b
        total = sum(out.size for out in self.outputs.values())
        if len(self.rows) != total or not np.array_equal(self.rows, np.arange(total)):
            return value
        return alone(unstack(value, self.output_shapes))

    def row_of(self, index: int) -> int:
        """The position in `rows` of an output: what methods take as `row` and `against`.

        Args:
            index: flat output index, as the command line takes it; negative ones count from the end.

        Raises:
            RowsError: it is not among the rows that were asked for.
        """
        total = sum(value.size for value in self.outputs.values())
        found = np.flatnonzero(self.rows == (index + total if index < 0 else index))
        if not len(found):
            raise RowsError(
                f"output {index} is none of the {len(self.rows)} rows of this map; the model has {total} "
                "outputs, and `rows` lists those that were asked for"
            )
        return int(found[0])

    def weights(self, row: int | None = None) -> Any:
        """W[row] in the input's shape: the slope of that output in each input entry.

        Args:
            row: position in `rows`; None for the largest output.
        """
        return self._as_inputs(self._row(row))

    def contributions(self, row: int | None = None) -> Any:
        """W[row] ⊙ x: what each input entry adds to that output at x.

        They sum, with b[row], to the output itself.

        Args:
            row: position in `rows`; None for the largest output.

        Returns:
            In the input's shape; input name to array where there are several inputs.

        Raises:
            NonFiniteError: a contribution outside the range of W's type.
        """
        return self._times_x(self._row(row))

    def contrast(self, row: int | None = None, against: int | None = None) -> Any:
        """(W[row] - W[against]) ⊙ x: what speaks for one output against another, as `contributions`.

        Args:
            row: position in `rows`; None for the largest output.
            against: position of the other; None for the largest other.

        Raises:
            RowsError: no such row, or no other one.
            NonFiniteError: as `contributions`.
        """
        row = self._position(row)
        if against is None:
            against = self._rival(row)
            if against is None:
                raise RowsError("this map has one row of that output, so there is none to set it against")
        with overflow_refused_later():
            difference = self._row(row) - self._row(against)
        return self._times_x(difference)

    @overflow_refused_later()
    def _times_x(self, slopes: Array) -> Any:
        parts = slopes * self._flat_x
        if not np.isfinite(parts).all():
            raise NonFiniteError(
                f"contributions leave the range of {parts.dtype}, though W and x do not; float64 has a "
                "wider one (dtype='float64', --dtype float64)"
            )
        return self._as_inputs(parts)

    def _as_inputs(self, flat: Array) -> Any:
        return alone(unstack(flat, self.input_shapes))

    @property
    def _leading(self) -> str:
        """The leading output; the first, where a file does not tell."""
        return self.leading or next(iter(self.outputs))

    def _leading_entries(self) -> range:
        """Flat output indices of the leading output's entries."""
        return entries_of(self._leading, self.output_shapes)

    def _rival(self, position: int) -> int | None:
        """Position in `rows` of the largest other entry of the same output; None where there is none."""
        return next(iter(rivals(position, stack(self.outputs), self.rows, self.output_shapes)), None)

    def _position(self, row: int | None) -> int:
        if row is None:
            return by_size(stack(self.outputs), self.rows, self._leading_entries())[0]
        if isinstance(row, bool) or not isinstance(row, int | np.integer):
            raise RowsError(f"row {row!r} is no position in `rows`: an integer")
        if not -len(self.b) <= row < len(self.b):
            raise RowsError(
                f"row {row} is outside the map's {len(self.b)} rows (positions in `rows`, not output indices)"
            )
        return int(row)

    def _positions(self, *rows: int | None) -> list[int | None]:
        return [None if row is None else self._position(row) for row in rows]

    def _row(self, row: int | None) -> Array:
        row = self._position(row)
        if isinstance(self.W, np.ndarray):
            return np.asarray(self.W[row])
        unit = np.zeros(len(self.b), self.b.dtype)
        unit[row] = 1
        return np.asarray(self.W.T @ unit)

    def _flatten(self, z: Any) -> Array:
        given = z if isinstance(z, Mapping) else {next(iter(self.inputs)): z}
        if set(given) != set(self.inputs):
            raise InputError(
                f"this map takes the inputs {', '.join(self.inputs)}; given: {', '.join(map(str, given))}"
            )
        parts = []
        for name, own in self.inputs.items():
            value = np.asarray(given[name])
            if value.dtype.kind not in "fiubV":  # V: bfloat16 and the like
                raise InputError(f"input {name!r} takes real numbers, but z holds {value.dtype}")
            if value.shape not in (own.shape, own.shape[1:]) or value.size != own.size:
                raise InputError(
                    f"input {name!r} has shape {list(own.shape)}, but z has shape {list(value.shape)}"
                )
            parts.append(value.ravel())
        return np.concatenate(parts).astype(self.b.dtype)

    def _repr_html_(self) -> str:
        K, N = self.W.shape
        shapes = {
            f"{side} {name}": f"{'×'.join(map(str, value.shape)) or 'scalar'} {value.dtype}"
            for side, values in (("input", self.inputs), ("output", self.outputs))
            for name, value in values.items()
        }
        about = {**shapes, "W": f"{K:,} × {N:,} {self.b.dtype}", "kind": self.kind}
        checked = vars(self).get("certificate", "not yet verified: read .certificate")
        return facts(f"AffineMap of {self.model}", {**about, "certificate": checked})

    def __repr__(self) -> str:
        K, N = self.W.shape
        checked = vars(self).get("certificate", "not yet verified: read .certificate")
        return f"AffineMap({self.model!r}, W {K}×{N}, {self.kind}, {checked})"

    def __getstate__(self) -> dict[str, Any]:
        """Pickled and copied with its certificate made, as sessions cannot travel."""
        known: dict[str, Any] = {
            "_layers_of": partial(constantly, self.layers),
            "_certify": partial(known_certificate, self.certificate),
            "record": self.record,
            "region": self.region.facts(),
        }
        if "ties" in vars(self):
            known["ties"] = self.ties.facts()
        gone = {"_survey": None, "program": None, "_recorder": None, "_examine": None}
        return {**vars(self), **gone, **known}


def constantly(value: T, *_: object) -> T:
    """The value, whatever is asked: in place of a function that is done with, or cannot be pickled."""
    return value


def known_certificate(certificate: Certificate, level: Level) -> Certificate:
    """The certificate that a map was loaded or copied with, where it is as deep as what is asked for.

    Raises:
        OptionError: it is not.
    """
    if level == "deep" and certificate.level != "deep":
        raise OptionError(
            "this map was loaded or copied with its default certificate, and holds no network to verify "
            "deeply; linearize again, and call certify_deeply before saving"
        )
    return certificate


def _with_ties(certificate: Certificate, ties: Ties | None) -> Certificate:
    """The certificate with how the ties came out, where they have been examined."""
    if ties is None:
        return certificate
    return replace(certificate, ties_that_matter=ties.matter, ties_genuine=ties.genuine)
