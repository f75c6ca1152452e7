"""AffineMap: F(z) = W z + b around x, as a value; saved to and loaded from one .npz file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import sparse

from .archive import DAMAGE, FORMAT, plain, read_archive, sealed, typed, write_archive
from .arrays import overflow_refused_later, unstack
from .certificate import Certificate, Level
from .errors import InputError, MemoryLimitError, NonFiniteError, OptionError, OutputError, RowsError
from .files import write_whole
from .html import facts
from .pattern import pattern_sha256
from .primitives import Array, Primitive, Shape
from .program import Kind, LinearProgram
from .record import Record
from .region import Geometry, Region
from .ties import Ties

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from scipy.sparse.linalg import LinearOperator
    from xarray import Dataset

    from .ledger import Ledger
    from .spectrum import Spectrum
    from .views import FeatureTrace, LayerView, Units

T = TypeVar("T")


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


@dataclass(frozen=True, eq=False)
class AffineMap:
    """The exact affine map that a network computes at x, and on the linear region around it.

    Rows are flattened, stacked outputs; columns are flattened, stacked inputs; both in C order.
    """

    W: Array | sparse.csr_array | LinearOperator  # (K, N)
    b: Array  # (K,)
    rows: Array  # (K,) flat output indices behind the rows
    kind: Kind
    inputs: Mapping[str, Array]  # x, by input name
    outputs: Mapping[str, Array]  # F(x) as onnxruntime computes it, by output name
    layers_of: Callable[[], tuple[Layer, ...]] = field(repr=False)  # `layers`, when they are first read
    certify: Callable[[Level], Certificate] = field(repr=False)  # `certificate`, when it is first read
    model: str  # file name
    model_sha256: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    survey: Callable[[], Geometry] | None = field(default=None, repr=False)  # what `region` works with
    program: LinearProgram | None = field(default=None, repr=False)  # the network at x; None if loaded
    held: Mapping[str, Array] = field(default_factory=dict)  # graph inputs that it is no function of
    recorder: Callable[[], Record] | None = field(default=None, repr=False)  # `record`, when it is first read
    examine: Callable[[], Ties] | None = field(default=None, repr=False)  # `ties`, when it is first read

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The steps of the network at x, in execution order, with what each adds to b."""
        return self.layers_of()

    @cached_property
    def certificate(self) -> Certificate:
        """The verification against onnxruntime, made when it is first read and then kept.

        Raises:
            ModelError: onnxruntime fails.
            NonFiniteError: a tensor that depends on x is NaN or infinite.
        """
        return _with_ties(self.certify("default"), self.__dict__.get("ties"))

    def certify_deeply(self) -> Certificate:
        """Verify as deeply as ilin can; what comes out takes the place of `certificate`.

        Every step by itself, every row against its own bound, more fresh points, and for a map in float32 the
        same composed in float64, with the units whose side of a kink rounding may decide.

        Returns:
            The certificate of level "deep". A map that was loaded or copied gives the one it came with.

        Raises:
            As `certificate`; MemoryLimitError where W in float64 does not fit.
        """
        found = _with_ties(self.certify("deep"), self.__dict__.get("ties"))
        self.__dict__["certificate"] = found
        return found

    @cached_property
    def record(self) -> Record | None:
        """Fresh points and bounds, to compare the map with its model again; made when it is first read.

        None where W was not made, and on maps loaded from a file of format 1.
        """
        return None if self.recorder is None else self.recorder()

    @cached_property
    def region(self) -> Region:
        """How far the map holds, and what limits it. Nothing of it is computed before it is asked for."""
        x = np.concatenate([np.ravel(value) for value in self.inputs.values()]).astype(np.float64)
        pattern = None if self.program is None else partial(pattern_sha256, self.program)
        return Region(self.kind, self.input_shapes, x, self.survey, pattern)

    @cached_property
    def ties(self) -> Ties:
        """Units exactly on a kink at x, which of them matter, and the maps that meet there.

        Examined when it is first read; the certificate says so from then on.

        Raises:
            OptionError: a map loaded from a file that was saved without them.
            UnsupportedError: x decides which way it takes through the model.
        """
        if self.examine is None:
            raise OptionError(
                "this map was loaded from a file that was saved before its ties were examined; "
                "linearize again, and read ties before saving"
            )
        found = self.examine()
        if "certificate" in self.__dict__:
            self.__dict__["certificate"] = _with_ties(self.certificate, found)
        return found

    @property
    def x(self) -> Any:
        """The point: an array where there is one input, else input name to array."""
        return _alone(self.inputs)

    @property
    def y(self) -> Any:
        """F(x), all rows: an array where there is one output, else output name to array."""
        return _alone(self.outputs)

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
        return np.concatenate([np.ravel(value) for value in self.inputs.values()]).astype(self.b.dtype)

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
        return _alone(unstack(value, self.output_shapes))

    def contributions(self, row: int) -> Any:
        """W[row] ⊙ x: what each input entry adds to that output at x.

        They sum, with b[row], to the output itself.

        Args:
            row: position in `rows`.

        Returns:
            In the input's shape; input name to array where there are several inputs.

        Raises:
            NonFiniteError: a contribution outside the range of W's type.
        """
        return self._times_x(self._row(row))

    def contrast(self, row_a: int, row_b: int) -> Any:
        """(W[row_a] - W[row_b]) ⊙ x: what speaks for output a against output b, as `contributions`."""
        with overflow_refused_later():
            difference = self._row(row_a) - self._row(row_b)
        return self._times_x(difference)

    @overflow_refused_later()
    def _times_x(self, slopes: Array) -> Any:
        parts = slopes * self._flat_x
        if not np.isfinite(parts).all():
            raise NonFiniteError(
                f"contributions leave the range of {parts.dtype}, though W and x do not; float64 has a "
                "wider one (dtype='float64', --dtype float64)"
            )
        return _alone(unstack(parts, self.input_shapes))

    def ledger(
        self, row: int, *, against: int | None = None, groups: Any = None, baseline: Any = None
    ) -> Ledger:
        """An output as a sum in which every term has a name: contributions, and b split by step and channel.

        Args:
            row: position in `rows`.
            against: another row b: the ledger of output a - b, with the ledgers of both and the distance to
                where the map makes them equal.
            groups: which input entries to add up: "channels", an array of labels in the input's shape, or
                group name to mask, flat positions, slice or tuple; by input name where there are several.
            baseline: x0, shaped as the input, or a number: contributions of x - x0, from the map at x0 on.

        Raises:
            RowsError: no such row.
            InputError: groups or a baseline that do not fit the input, or groups that overlap.
            OptionError: groups written in a way that is not understood.
            NonFiniteError: a term outside the range of float64.
        """
        from .ledger import ledger_of

        return ledger_of(self, row, against=against, groups=groups, baseline=baseline)

    def weights(self, row: int) -> Any:
        """W[row] in the input's shape: the slope of that output in each input entry."""
        return _alone(unstack(self._row(row), self.input_shapes))

    def upto(self, step: str | Layer, *, memory_limit: int | str | None = None) -> LayerView:
        """The map from the inputs to a tensor on the way: t(z) = P z + p.

        Args:
            step: a tensor's name, the name of the node that makes it, or a layer of `layers`.
            memory_limit: of the matrix: bytes, or a text such as "4GiB"; None for 80 % of what is available.

        Returns:
            A view whose `matrix()`, `operator` and `b` are P and p, rows being the tensor's entries.

        Raises:
            UnknownTensorError: no such step.
            InputError: a map that was loaded from a file, which holds no network.
            NonFiniteError: an offset outside the range of the map's type.
        """
        from .views import upto

        return upto(self, step, memory_limit)

    def onward(self, step: str | Layer, *, memory_limit: int | str | None = None) -> LayerView:
        """The map from a tensor on the way to the rows, whatever does not come from the tensor held at x.

        Args:
            step: as in `upto`.
            memory_limit: as in `upto`.

        Returns:
            A view M t + r: M is the total derivative of the rows with respect to the tensor, r what arrives
            at x around it or behind it. M t(x) + r = W x + b. Where the tensor is a `cut`, r does not depend
            on x, and the two views compose to the map: W = M P, b = M p + r.

        Raises:
            As `upto`.
        """
        from .views import onward

        return onward(self, step, memory_limit)

    def trace_feature(
        self, feature: int | tuple[str, int | tuple[int, ...]], *, tensors: bool = False
    ) -> FeatureTrace:
        """How an input feature is carried through the network: x_j e_j under each step in turn.

        At a step that is column j of `upto`'s matrix times x_j, at an output what `contributions` says of
        the feature. One sweep forward, of which one line for each step is kept.

        Args:
            feature: j, a flat index into the stacked inputs; or (input name, index), flat or for each axis.
            tensors: keep what arrives at each step as a whole, too.

        Raises:
            InputError: no such feature; or as `upto`.
        """
        from .views import trace_feature

        return trace_feature(self, feature, tensors)

    def units(self, row: int, step: str | Layer, k: int | None = None) -> Units:
        """Which units of a tensor carry an output at x: its slope in each, times the unit's value.

        They sum, with `others` and `rest`, to the output. `rest` is `onward(step).b[row]`: offsets of later
        steps and, where the tensor is no cut, what goes around it. On a tensor that is an input these are
        `contributions`; elsewhere the same for a hidden layer (layer gradient × activation).

        Args:
            row: position in `rows`.
            step: as in `upto`.
            k: units to list, those that carry most; None for all.

        Raises:
            RowsError: no such row.
            OptionError: k is no positive integer.
            As `upto`.
        """
        from .views import units

        return units(self, self._position(row), step, k)

    def spectrum(self, k: int | None = None, *, memory_limit: int | str | None = None) -> Spectrum:
        """Leading singular values and vectors of W, how many directions it really has, and how rows lie.

        All in float64. Where W is small, by LAPACK (`numpy.linalg.svd`); else, or where W was not made, by
        ARPACK (`scipy.sparse.linalg.svds`) on its products, from a start vector that is always the same.

        Args:
            k: singular values, largest first; None for six, or all of them where there are fewer.
            memory_limit: bytes, or a text such as "4GiB"; None for 80 % of what is available.

        Raises:
            OptionError: k is no positive integer, more than min(K, N), or more than ARPACK finds.
            MemoryLimitError: it would take more memory.
        """
        from .spectrum import spectrum_of

        return spectrum_of(self.W, k, lambda v: _alone(unstack(v, self.input_shapes)), memory_limit)

    def to_xarray(self) -> Dataset:
        """The map as an xarray Dataset with named axes.

        Returns:
            For each input NAME of shape (d0, d1, …): `W:NAME` (row, NAME_0, NAME_1, …), `x:NAME` and
            `contributions:NAME`, both without and with the axis `row`; and `b` and `value` (row), the latter
            the output as onnxruntime computes it. The coordinate `row` holds the flat output indices.

        Raises:
            OptionError: xarray is not installed (pip install 'ilin[table]').
            MemoryLimitError: W was not made.
            NonFiniteError: a contribution outside the range of W's type.
        """
        from .labelled import dataset_of

        return dataset_of(self)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        row: int | None = None,
        against: int | None = None,
        class_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        layout: str = "auto",
        command: str | None = None,
    ) -> None:
        """Write one self-contained HTML page about one output, for readers without mathematics.

        The same map gives the same bytes. An existing file is replaced whole or not at all.

        Args:
            path: of the page.
            row: position in `rows` of the output to explain; None for the largest.
            against: position of the one to set it against; None for the largest other.
            class_names: one for each output entry, or for each place along the output's last axis.
            feature_names: one for each input entry, or for each place along the input's last axis.
            layout: how an input's axes are read: "auto"; "entries"; a letter for each axis, such as "NCHW",
                "NHWC", "NCL" or "NLC"; or letters and a shape to read a flat input in, such as "HW=28x28".
            command: that repeats the answer, as the page tells it; None for lines of Python.

        Raises:
            OptionError: jinja2 or pillow is missing (pip install 'ilin[report]'), a layout that is not
                understood or fits no input, or as many names as nothing has.
            RowsError: no such row, or one against itself.
            OutputError: the path cannot be written.
        """
        from ..report.page import write_report

        write_report(
            self,
            path,
            row=None if row is None else self._position(row),
            against=None if against is None else self._position(against),
            class_names=class_names,
            feature_names=feature_names,
            layout=layout,
            command=command,
        )

    def plot(
        self,
        row: int | None = None,
        *,
        against: int | None = None,
        weights: bool = False,
        input: str | None = None,
        largest: int = 20,
        class_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        layout: str = "auto",
        ax: Axes | None = None,
    ) -> Axes:
        """Draw on matplotlib what the input adds to one output: a map, bars, or the largest entries.

        Args:
            row: position in `rows`; None for the largest output.
            against: another position: what speaks for the one against the other.
            weights: draw W's row instead of W's row times x.
            input: name of the input to draw; None for the only one, or the largest entries of all.
            largest: bars, where entries are drawn one by one.
            class_names: as in `report`.
            feature_names: as in `report`.
            layout: as in `report`; an image's channels are added up.
            ax: to draw on; None for a new figure.

        Returns:
            The axes.

        Raises:
            OptionError: matplotlib is missing (pip install 'ilin[plot]'), or as `report`.
            RowsError: as `report`.
            InputError: no such input.
        """
        from ..report.plot import plot

        return plot(
            self,
            None if row is None else self._position(row),
            against=None if against is None else self._position(against),
            weights=weights,
            input=input,
            largest=largest,
            class_names=class_names,
            feature_names=feature_names,
            layout=layout,
            ax=ax,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map to one .npz file, loadable without pickle; `verify` checks it again from there.

        The file is written beside its destination and renamed, so that an existing file is replaced
        whole or not at all. The same map gives the same bytes, at any time and under any name.

        Raises:
            OutputError: the path cannot be written.
            MemoryLimitError: W was not made.
        """
        arrays = self.members()
        header = sealed(self.header(), arrays)
        write_whole(Path(path), lambda file: write_archive(file, header, arrays))

    def members(self, shares: Array | None = None) -> dict[str, Array]:
        """The arrays of the saved map by name, each of a type that every reader of .npy files has.

        Args:
            shares: `bias_shares`, where they lie on disk.

        Raises:
            MemoryLimitError: W was not made.
        """
        if not isinstance(self.W, np.ndarray | sparse.csr_array):
            raise MemoryLimitError(
                "this map was asked for with materialize=False, so there is no W to save; ask without it, "
                "for fewer rows, or let ilin-compile --out-dir write W in blocks"
            )
        shares = self.bias_shares if shares is None else shares
        arrays: dict[str, Array] = {"b": self.b, "rows": self.rows, "bias_shares": shares}
        if isinstance(self.W, np.ndarray):
            arrays["W"] = self.W
        elif isinstance(self.W, sparse.csr_array):
            arrays |= {"W_data": self.W.data, "W_indices": self.W.indices, "W_indptr": self.W.indptr}
        if self.record is not None:
            arrays["bounds"] = self.record.bounds
        return arrays | {name: plain(value) for name, value in self._numbered()}

    def _numbered(self) -> Iterator[tuple[str, Array]]:
        """The tensors among the members: x0, x1, …, y0, …, held0, …, and the fresh points z0, …"""
        points = {} if self.record is None else self.record.points
        for letter, values in (("x", self.inputs), ("y", self.outputs), ("held", self.held), ("z", points)):
            yield from ((f"{letter}{i}", value) for i, value in enumerate(values.values()))

    def header(self) -> dict[str, Any]:
        """All but the arrays and their hashes, as the saved file holds it: plain data for JSON."""
        if self.program is not None:
            _ = self.region.pattern_sha256  # known from here on, to be compared by whoever reads the file
        return {
            "format": FORMAT,
            "kind": str(self.kind),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "held": list(self.held),
            "dtypes": {name: value.dtype.name for name, value in self._numbered()},
            "convex": self.record is not None and self.record.convex,
            "shape": [len(self.b), sum(value.size for value in self.inputs.values())],
            "layers": [
                {"name": a.name, "op": a.op, "output": a.output, "shape": list(a.shape), "kind": str(a.kind)}
                for a in self.layers
            ],
            "certificate": self.certificate.as_dict(),
            "region": self.region.as_dict(),
            **({"ties": self.ties.as_dict()} if "ties" in self.__dict__ else {}),
            "provenance": dict(self.provenance),
            "notes": list(self.notes),
        }

    def _position(self, row: int) -> int:
        if isinstance(row, bool) or not isinstance(row, int | np.integer):
            raise RowsError(f"row {row!r} is no position in `rows`: an integer")
        if not -len(self.b) <= row < len(self.b):
            raise RowsError(
                f"row {row} is outside the map's {len(self.b)} rows (positions in `rows`, not output indices)"
            )
        return int(row)

    def _row(self, row: int) -> Array:
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
        checked = self.__dict__.get("certificate", "not yet verified: read .certificate")
        return facts(f"AffineMap of {self.model}", {**about, "certificate": checked})

    def __repr__(self) -> str:
        K, N = self.W.shape
        checked = self.__dict__.get("certificate", "not yet verified: read .certificate")
        return f"AffineMap({self.model!r}, W {K}×{N}, {self.kind}, {checked})"

    def __getstate__(self) -> dict[str, Any]:
        """Pickled and copied with its certificate made, as sessions cannot travel."""
        known: dict[str, Any] = {
            "layers_of": partial(_same, self.layers),
            "certify": partial(_whatever, self.certificate),
            "record": self.record,
            "region": self.region.facts(),
        }
        if "ties" in self.__dict__:
            known["ties"] = self.ties.facts()
        gone = {"survey": None, "program": None, "recorder": None, "examine": None}
        return {**self.__dict__, **gone, **known}


def load(path: str | os.PathLike[str]) -> AffineMap:
    """Read a saved map. Its layers hold their bias shares but no matrices.

    Args:
        path: a file that `AffineMap.save` wrote; or a folder of blocks, whose W stays on disk: a read-only
            numpy.memmap.

    Raises:
        OutputError: no such file, not a saved map, one of a newer format, or a folder that is not finished.
    """
    header, arrays = read(path)
    try:
        return map_of(header, arrays)
    except DAMAGE as error:
        raise damaged(path, error) from error


def damaged(path: str | os.PathLike[str], error: Exception) -> OutputError:
    """The error for a file that cannot be read as a map."""
    return OutputError(f"{path} is not a map saved by ilin, or it is truncated or corrupt: {error}")


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a file or a folder, as they stand there.

    Raises:
        OutputError: as `load`.
    """
    try:
        if Path(path).is_dir():
            from .folder import read_folder

            return read_folder(Path(path))
        return read_archive(Path(path))
    except FileNotFoundError as error:
        raise OutputError(f"no such file: {error.filename or path}") from None
    except DAMAGE as error:
        raise damaged(path, error) from error


def map_of(header: Mapping[str, Any], stored: Mapping[str, Array]) -> AffineMap:
    """The map that a header and arrays stand for."""
    arrays = {
        name: typed(value, header.get("dtypes", {}).get(name, value.dtype.name))
        for name, value in stored.items()
    }
    if "W" in arrays:
        W: Array | sparse.csr_array = arrays["W"]
    else:
        W = sparse.csr_array(
            (arrays["W_data"], arrays["W_indices"], arrays["W_indptr"]), shape=header["shape"]
        )
    layers = tuple(
        Layer(a["name"], a["op"], a["output"], tuple(a["shape"]), Kind(a["kind"]), share)
        for a, share in zip(header["layers"], arrays["bias_shares"], strict=True)
    )
    certificate = Certificate.from_dict(header["certificate"])
    affine = AffineMap(
        W,
        arrays["b"],
        arrays["rows"],
        Kind(header["kind"]),
        {name: arrays[f"x{i}"] for i, name in enumerate(header["inputs"])},
        {name: arrays[f"y{i}"] for i, name in enumerate(header["outputs"])},
        partial(_same, layers),
        partial(_whatever, certificate),
        header["model"],
        header["model_sha256"],
        header["provenance"],
        tuple(header["notes"]),
        held={name: arrays[f"held{i}"] for i, name in enumerate(header.get("held", ()))},
    )
    if "bounds" in arrays:
        points = {name: arrays[f"z{i}"] for i, name in enumerate(header["inputs"])}
        affine.__dict__["record"] = Record(points, arrays["bounds"], header["convex"])
    affine.__dict__["certificate"] = certificate  # known already: nothing is left to be made
    affine.region.keep(header.get("region", {}))
    if "ties" in header:
        affine.__dict__["ties"] = Ties.from_dict(header["ties"])
    return affine


def _with_ties(certificate: Certificate, ties: Ties | None) -> Certificate:
    """The certificate with how the ties came out, where they have been examined."""
    if ties is None:
        return certificate
    return replace(certificate, ties_that_matter=ties.matter, ties_genuine=ties.genuine)


def _whatever(certificate: Certificate, _: Level) -> Certificate:
    return certificate


def _same(value: T) -> T:
    return value


def _alone(values: Mapping[str, Any]) -> Any:
    return next(iter(values.values())) if len(values) == 1 else dict(values)
