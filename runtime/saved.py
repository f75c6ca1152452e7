"""A map as its saved form holds it: a header of plain data beside arrays with names; and back.

docs/file-format.md tells what they are. archive.py keeps them in one .npz file, folder.py in a folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from .archive import DAMAGE, FORMAT, plain, read_archive, typed
from .arrays import Array
from .certificate import Certificate
from .errors import MemoryLimitError, OutputError
from .layer import Layer
from .linearization import Linearization, constantly, known_certificate
from .program import Kind
from .record import Interior, Record
from .ties import Ties

Map = TypeVar("Map", bound=Linearization)

# -- to be written -----------------------------------------------------------------------------------


def to_members(affine: Linearization, shares: Array | None = None) -> dict[str, Array]:
    """The arrays by name, each of a type that every reader of .npy files has.

    Args:
        affine: the map.
        shares: its `bias_shares`, where they lie on disk.

    Raises:
        MemoryLimitError: W was not made.
    """
    if not isinstance(affine.W, np.ndarray | sparse.csr_array):
        raise MemoryLimitError(
            "this map was asked for with materialize=False, so there is no W to save; ask without it, "
            "for fewer rows, or let ilin-compile --out-dir write W in blocks"
        )
    shares = affine.bias_shares if shares is None else shares
    arrays: dict[str, Array] = {"b": affine.b, "rows": affine.rows, "bias_shares": shares}
    if isinstance(affine.W, np.ndarray):
        arrays["W"] = affine.W
    else:
        arrays |= {"W_data": affine.W.data, "W_indices": affine.W.indices, "W_indptr": affine.W.indptr}
    if affine.record is not None:
        arrays["bounds"] = affine.record.bounds
        if affine.record.interior is not None:
            arrays["inside_bounds"] = affine.record.interior.bounds
    return arrays | {name: plain(value) for name, value in _numbered(affine)}


def to_header(affine: Linearization) -> dict[str, Any]:
    """All but the arrays and their hashes, as the saved file holds it: plain data for JSON."""
    if affine.program is not None:
        _ = affine.region.pattern_sha256  # known from here on, to be compared by whoever reads the file
    return {
        "format": FORMAT,
        "kind": str(affine.kind),
        "model": affine.model,
        "model_sha256": affine.model_sha256,
        "inputs": list(affine.inputs),
        "outputs": list(affine.outputs),
        "held": list(affine.held),
        "leading": affine.leading,
        "dtypes": {name: value.dtype.name for name, value in _numbered(affine)},
        "convex": affine.record is not None and affine.record.convex,
        **_interior(affine.record),
        "shape": [len(affine.b), sum(value.size for value in affine.inputs.values())],
        "layers": [
            {"name": a.name, "op": a.op, "output": a.output, "shape": list(a.shape), "kind": str(a.kind)}
            for a in affine.layers
        ],
        "certificate": affine.certificate.as_dict(),
        "region": affine.region.as_dict(),
        **({"ties": affine.ties.as_dict()} if "ties" in vars(affine) else {}),
        "provenance": dict(affine.provenance),
        "notes": list(affine.notes),
    }


def _interior(record: Record | None) -> dict[str, Any]:
    """The header's `inside`, where the map has it."""
    if record is None or record.interior is None:
        return {}
    kept = record.interior
    return {"inside": {"products": kept.products, "windows": kept.windows, "left_out": kept.left_out}}


def _numbered(affine: Linearization) -> Iterator[tuple[str, Array]]:
    """The tensors among the members: x0, x1, …, y0, …, held0, …, and the points z0, …, inside0, …"""
    points = {} if affine.record is None else affine.record.points
    interior = None if affine.record is None else affine.record.interior
    inside = {} if interior is None else interior.points
    members = {"x": affine.inputs, "y": affine.outputs, "held": affine.held, "z": points, "inside": inside}
    for letter, values in members.items():
        yield from ((f"{letter}{i}", value) for i, value in enumerate(values.values()))


# -- to be read --------------------------------------------------------------------------------------


def damaged(path: str | os.PathLike[str], error: Exception) -> OutputError:
    """The error for a file that cannot be read as a map."""
    return OutputError(f"{path} is not a map saved by ilin, or it is truncated or corrupt: {error}")


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a file or a folder, as they stand there.

    Raises:
        OutputError: no such file, not a saved map, one of a newer format, or a folder that is not finished.
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


def _certificate(data: Mapping[str, Any]) -> Certificate:
    """The certificate in a header.

    Raises:
        ValueError: fields are missing, or its verdict is not that of its reason.
    """
    try:
        certificate = Certificate.from_dict(data)
    except TypeError as error:
        raise ValueError("the certificate in its header lacks fields") from error
    if data.get("verified", certificate.verified) is not certificate.verified:
        raise ValueError("the certificate in its header says one thing by `verified`, another by `reason`")
    return certificate


def map_of(made: type[Map], header: Mapping[str, Any], stored: Mapping[str, Array]) -> Map:
    """The map that a header and arrays stand for.

    Args:
        made: its class.
        header: as `to_header` gives it.
        stored: as `to_members` gives them.

    Raises:
        DAMAGE: they do not belong together.
    """
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
    for what, value in {"W": W, **{name: arrays[name] for name in ("b", "bias_shares")}}.items():
        if value.dtype.kind != "f":
            raise ValueError(f"{what} holds {value.dtype}, which are no real numbers")
    layers = tuple(
        Layer(a["name"], a["op"], a["output"], tuple(a["shape"]), Kind(a["kind"]), share)
        for a, share in zip(header["layers"], arrays["bias_shares"], strict=True)
    )
    certificate = _certificate(header["certificate"])
    affine = made(
        W,
        arrays["b"],
        arrays["rows"],
        Kind(header["kind"]),
        {name: arrays[f"x{i}"] for i, name in enumerate(header["inputs"])},
        {name: arrays[f"y{i}"] for i, name in enumerate(header["outputs"])},
        partial(constantly, layers),
        partial(known_certificate, certificate),
        header["model"],
        header["model_sha256"],
        header["provenance"],
        tuple(header["notes"]),
        held={name: arrays[f"held{i}"] for i, name in enumerate(header.get("held", ()))},
        leading=header.get("leading", ""),
    )
    if "bounds" in arrays:
        points = {name: arrays[f"z{i}"] for i, name in enumerate(header["inputs"])}
        interior = None
        if "inside" in header:
            inside = {name: arrays[f"inside{i}"] for i, name in enumerate(header["inputs"])}
            interior = Interior(inside, arrays["inside_bounds"], **header["inside"])
        vars(affine)["record"] = Record(points, arrays["bounds"], header["convex"], interior)
    vars(affine)["certificate"] = certificate  # known already: nothing is left to be made
    affine.region.keep(header.get("region", {}))
    if "ties" in header:
        vars(affine)["ties"] = Ties.from_dict(header["ties"])
    return affine
