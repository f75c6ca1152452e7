"""A folder of published networks: INDEX.json, models, and an input for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

DEFAULT = Path(__file__).parents[2].parent / "shared" / "models"


def published(folder: Path = DEFAULT) -> list[dict[str, Any]]:
    """The affine and piecewise linear networks of the folder that onnxruntime runs; none without a folder."""
    index = folder / "INDEX.json"
    models = json.loads(index.read_text()) if index.exists() else []
    return [m for m in models if m["kind"] in ("affine", "piecewise linear") and m["ort"].get("runs")]


def given(folder: Path, model: dict[str, Any]) -> Any:
    """The input that lies beside a model."""
    stacked = [name for name in model["input_files"] if name.endswith(".npz")]
    if not stacked:
        return np.load(folder / model["input_files"][0])
    proto = onnx.load(folder / model["file"], load_external_data=False)
    weights = {tensor.name for tensor in proto.graph.initializer}
    names = [put.name for put in proto.graph.input if put.name not in weights]
    with np.load(folder / stacked[0]) as values:
        return {name: values[f"in{i}"] for i, name in enumerate(names)}
