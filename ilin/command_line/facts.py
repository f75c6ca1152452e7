"""What there is to say of one map, as plain data: the JSON document, and what the summary is written from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from .._version import __version__
from ..compiler.graph import Graph, TensorInfo
from ..compiler.pipeline import CompiledModel
from ..runtime.affine_map import AffineMap
from ..runtime.arrays import located
from ..runtime.largest import by_size
from ..runtime.primitives import Array, Shape

Facts = dict[str, Any]
LARGEST = 5  # outputs and contributions that are listed
_SETTINGS = ("engine", "direction", "dtype", "mode", "quantized")


def facts_of(
    affine: AffineMap,
    explained: int,
    seconds: float,
    *,
    layers: bool = False,
    region: bool = False,
    ties: bool = False,
) -> Facts:
    """Everything the summary shows of one instance.

    Args:
        affine: the map.
        explained: position among its rows of the output that is.
        seconds: that it took.
        layers: what each layer adds to b too.
        region: what is known of the region too.
        ties: which of the ties matter too.
    """
    y = flat(affine.outputs)
    largest = by_size(y, np.arange(len(y)), affine._leading_entries())[:LARGEST]
    facts: Facts = strict(
        {
            "inputs": _tensors(affine.inputs),
            "outputs": _tensors(affine.outputs),
            "prediction": [_output(affine, row, y) for row in largest],
            "map": _map(affine, len(y)),
            "explained": _explained(affine, explained, y),
            **({"layers": _layers(affine, explained)} if layers else {}),
            "certificate": affine.certificate.as_dict(),
            **({"region": affine.region.as_dict()} if region else {}),
            **({"ties": affine.ties.as_dict()} if ties else {}),
            "notes": list(affine.notes),
            "seconds": seconds,
            "settings": {name: affine.provenance.get(name) for name in _SETTINGS},
        }
    )
    return facts


def model_facts(compiled: CompiledModel) -> Facts:
    """What is the same for every instance."""
    graph, scope = compiled.graph, compiled.scope
    held = [put_facts(put) for put in graph.inputs if put.name not in scope.inputs]
    return {"ilin": __version__, "model": {**graph_facts(graph), "held_inputs": held}}


def graph_facts(graph: Graph) -> Facts:
    """A model, whatever is done with it."""
    return {
        "file": graph.name,
        "sha256": graph.sha256,
        "producer": graph.producer,
        "opsets": {domain or "ai.onnx": version for domain, version in graph.opsets.items()},
        "nodes": len(graph.nodes),
    }


def put_facts(put: TensorInfo) -> Facts:
    """A declared graph input or output."""
    shape = None if put.shape is None else list(put.shape)
    return {"name": put.name, "dtype": None if put.dtype is None else str(put.dtype), "shape": shape}


def strict(value: Any) -> Any:
    """The same as strict JSON has it: plain numbers, and null where they are not finite."""
    if isinstance(value, Mapping):
        return {str(name): strict(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _tensors(values: Mapping[str, Array]) -> list[Facts]:
    return [
        {"name": name, "dtype": str(value.dtype), "shape": list(value.shape)}
        for name, value in values.items()
    ]


def _map(affine: AffineMap, outputs: int) -> Facts:
    W: Any = affine.W
    K, N = W.shape
    known = affine.provenance.get("nonzero")  # counted while W was written to disk
    parts: list[Array] = [W] if isinstance(W, np.ndarray) else [W.data, W.indices, W.indptr]
    nnz = int(np.count_nonzero(parts[0])) if known is None else int(known)
    size = sum(part.nbytes for part in parts)
    everything = outputs == K and bool(np.array_equal(affine.rows, np.arange(outputs)))
    return {
        "K": K,
        "N": N,
        "rows": "all" if everything else affine.rows.tolist(),
        "dtype": str(W.dtype),
        "sparse": bool(sparse.issparse(W)),
        "nnz": nnz,
        "bytes": int(size),
        "kind": str(affine.kind),
        "smooth": _smooth(affine),
    }


def _smooth(affine: AffineMap) -> Facts | None:
    """The steps that make a map smooth: the first, and how many there are."""
    found = [layer for layer in affine.layers if layer.kind == "smooth"]
    return {"node": found[0].name, "op": found[0].op, "count": len(found)} if found else None


def _output(affine: AffineMap, row: int, y: Array) -> Facts:
    name, index = _place(row, affine.output_shapes)
    return {"row": row, "output": name, "index": index, "value": float(y[row])}


def _explained(affine: AffineMap, position: int, y: Array) -> Facts:
    """The ledger of one row: Σ W[k, j] x[j] + b[k] = y[k], with its largest terms."""
    row = int(affine.rows[position])
    x, weights = flat(affine.inputs), flat(affine.weights(position))
    contributions = flat(affine.contributions(position))
    total, b = float(contributions.sum()), float(affine.b[position])
    largest = [j for j in np.argsort(-np.abs(contributions), kind="stable")[:LARGEST] if contributions[j]]
    return {
        **_output(affine, row, y),
        "largest": by_size(y, affine.rows, affine._leading_entries())[0] == position,
        "b": b,
        "b_share": b / float(y[row]) if y[row] else None,
        "contributions_sum": total,
        "sum": total + b,
        "others": {
            "count": int(np.count_nonzero(contributions)) - len(largest),
            "contribution": total - float(contributions[largest].sum()),
        },
        "contributions": [
            {
                **dict(zip(("input", "index"), _place(int(j), affine.input_shapes), strict=True)),
                "x": float(x[j]),
                "weight": float(weights[j]),
                "contribution": float(contributions[j]),
            }
            for j in largest
        ],
    }


def _layers(affine: AffineMap, position: int) -> list[Facts]:
    return [
        {
            "name": layer.name,
            "op": layer.op,
            "output": layer.output,
            "shape": list(layer.shape),
            "kind": str(layer.kind),
            "bias_share": float(share[position]),
        }
        for layer, share in zip(affine.layers, affine.bias_shares, strict=True)
    ]


def flat(values: Any) -> Array:
    """One array, or name to array, flattened and stacked in float64."""
    parts = values.values() if isinstance(values, Mapping) else [values]
    return np.concatenate([np.ravel(part).astype(np.float64) for part in parts])


def _place(position: int, shapes: Mapping[str, Shape]) -> tuple[str, list[int]]:
    """The tensor that a stacked, flat position lies in, and the index there, as JSON has it."""
    name, index = located(position, shapes)
    return name, list(index)
