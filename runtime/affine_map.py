"""AffineMap: F(z) = W z + b around x, as a value; saved to and loaded from one .npz file."""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import sparse

from .arrays import overflow_refused_later
from .certificate import Certificate
from .errors import InputError, MemoryLimitError, NonFiniteError, OutputError, RowsError
from .files import write_whole
from .primitives import Array, Primitive, Shape
from .program import Kind, LinearProgram
from .region import Geometry, Region

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from .spectrum import Spectrum
    from .views import FeatureTrace, LayerView, Units

T = TypeVar("T")
FORMAT = 1  # of the saved file; docs/file-format.md


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
    certify: Callable[[], Certificate] = field(repr=False)  # `certificate`, when it is first read
    model: str  # file name
    model_sha256: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    survey: Callable[[], Geometry] | None = field(default=None, repr=False)  # what `region` works with
    program: LinearProgram | None = field(default=None, repr=False)  # the network at x; None if loaded

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
        return self.certify()

    @cached_property
    def region(self) -> Region:
        """How far the map holds, and what limits it. Nothing of it is computed before it is asked for."""
        x = np.concatenate([np.ravel(value) for value in self.inputs.values()]).astype(np.float64)
        return Region(self.kind, self.input_shapes, x, self.survey)

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
        return _alone(_unstack(value, self.output_shapes))

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
        return _alone(_unstack(parts, self.input_shapes))

    def weights(self, row: int) -> Any:
        """W[row] in the input's shape: the slope of that output in each input entry."""
        return _alone(_unstack(self._row(row), self.input_shapes))

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

    def spectrum(self, k: int = 6, *, memory_limit: int | str | None = None) -> Spectrum:
        """Leading singular values and vectors of W, how many directions it really has, and how rows lie.

        All in float64. Where W is small, by LAPACK (`numpy.linalg.svd`); else, or where W was not made, by
        ARPACK (`scipy.sparse.linalg.svds`) on its products, from a start vector that is always the same.

        Args:
            k: singular values, largest first; min(K, N) where that is less.
            memory_limit: bytes, or a text such as "4GiB"; None for 80 % of what is available.

        Raises:
            OptionError: k is no positive integer, or more than ARPACK finds.
            MemoryLimitError: it would take more memory.
        """
        from .spectrum import spectrum_of

        return spectrum_of(self.W, k, lambda v: _alone(_unstack(v, self.input_shapes)), memory_limit)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map to one .npz file, loadable without pickle.

        The file is written beside its destination and renamed, so that an existing file is replaced
        whole or not at all.

        Raises:
            OutputError: the path cannot be written.
            MemoryLimitError: W was not made.
        """
        if not isinstance(self.W, np.ndarray | sparse.csr_array):
            raise MemoryLimitError(
                "this map was asked for with materialize=False, so there is no W to save; ask without it, "
                "for fewer rows, or let ilin-compile --out-dir write W in blocks"
            )
        arrays: dict[str, Array] = {"b": self.b, "rows": self.rows, "bias_shares": self.bias_shares}
        if isinstance(self.W, np.ndarray):
            arrays["W"] = self.W
        elif isinstance(self.W, sparse.csr_array):
            arrays |= {"W_data": self.W.data, "W_indices": self.W.indices, "W_indptr": self.W.indptr}
        arrays |= {f"x{i}": value for i, value in enumerate(self.inputs.values())}
        arrays |= {f"y{i}": value for i, value in enumerate(self.outputs.values())}
        text = json.dumps(self.header(), sort_keys=True)
        arrays["header"] = np.frombuffer(text.encode(), np.uint8)
        write_whole(Path(path), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def header(self) -> dict[str, Any]:
        """All but the arrays, as the saved file holds it: plain data for JSON."""
        return {
            "format": FORMAT,
            "kind": str(self.kind),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "shape": [len(self.b), sum(value.size for value in self.inputs.values())],
            "layers": [
                {"name": a.name, "op": a.op, "output": a.output, "shape": list(a.shape), "kind": str(a.kind)}
                for a in self.layers
            ],
            "certificate": self.certificate.as_dict(),
            "region": self.region.as_dict(),
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

    def __repr__(self) -> str:
        K, N = self.W.shape
        checked = self.__dict__.get("certificate", "not yet verified: read .certificate")
        return f"AffineMap({self.model!r}, W {K}×{N}, {self.kind}, {checked})"

    def __getstate__(self) -> dict[str, Any]:
        """Pickled and copied with its certificate made, as sessions cannot travel."""
        known = {"layers_of": partial(_same, self.layers), "certify": partial(_same, self.certificate)}
        return {**self.__dict__, **known, "survey": None, "program": None, "region": self.region.facts()}


def load(path: str | os.PathLike[str]) -> AffineMap:
    """Read a saved map. Its layers hold their bias shares but no matrices.

    Args:
        path: a file that `AffineMap.save` wrote; or a folder of blocks, whose W stays on disk: a read-only
            numpy.memmap.

    Raises:
        OutputError: no such file, not a saved map, one of a newer format, or a folder that is not finished.
    """
    try:
        return _read(path)
    except FileNotFoundError as error:
        raise OutputError(f"no such file: {error.filename or path}") from None
    except _DAMAGE as error:
        raise OutputError(
            f"{path} is not a map saved by ilin, or it is truncated or corrupt: {error}"
        ) from error


# What numpy, zipfile, zlib and json raise on files that are damaged or something else altogether.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read(path: str | os.PathLike[str]) -> AffineMap:
    if Path(path).is_dir():
        from .folder import read_folder

        header, arrays = read_folder(Path(path))
    else:
        header, arrays = _read_file(path)
    if header["format"] != FORMAT:
        raise OutputError(f"{path} has format {header['format']}; this version reads format {FORMAT}")
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
        partial(_same, certificate),
        header["model"],
        header["model_sha256"],
        header["provenance"],
        tuple(header["notes"]),
    )
    affine.__dict__["certificate"] = certificate  # known already: nothing is left to be made
    affine.region.keep(header.get("region", {}))
    return affine


def _read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a file."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays["header"].tobytes()), arrays


def _same(value: T) -> T:
    return value


def _alone(values: Mapping[str, Any]) -> Any:
    return next(iter(values.values())) if len(values) == 1 else dict(values)


def _unstack(flat: Array, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    parts, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        parts[name] = flat[start : start + size].reshape(shape)
        start += size
    return parts
