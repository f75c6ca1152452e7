"""Published networks that nobody here wrote: the map must hold at their input and around it.

They lie outside the project, in ../shared/models; without that folder these tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import ilin

FOLDER = Path(__file__).parents[2].parent / "shared" / "models"
INDEX = json.loads((FOLDER / "INDEX.json").read_text()) if (FOLDER / "INDEX.json").exists() else []
CHOSEN = [m for m in INDEX if m["kind"] in ("affine", "piecewise linear") and m["ort"].get("runs")]
QUICK = 500_000  # activations are unknown beforehand; the size of the file stands for them


def given(model):
    stacked = [name for name in model["input_files"] if name.endswith(".npz")]
    if not stacked:
        return np.load(FOLDER / model["input_files"][0])
    proto = onnx.load(FOLDER / model["file"], load_external_data=False)
    names = [
        put.name for put in proto.graph.input if put.name not in {t.name for t in proto.graph.initializer}
    ]
    with np.load(FOLDER / stacked[0]) as values:
        return {name: values[f"in{i}"] for i, name in enumerate(names)}


def cases():
    if not CHOSEN:
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no models in {FOLDER}"))
    for model in CHOSEN:
        quick = model["size"] < QUICK and model["n_float_inputs"] < 10_000
        yield pytest.param(model, id=model["name"], marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("model", list(cases()))
def test_holds_at_x_and_around_x(model):
    entries = model["n_float_inputs"] * model["n_outputs"]
    rows = "all" if entries <= 2e7 else min(3, model["n_outputs"])
    affine = ilin.linearize(FOLDER / model["file"], given(model), rows=rows)
    assert affine.certificate.verified, affine.certificate.reason
    assert affine.certificate.points_held > 0
    assert affine.kind in ("affine", "piecewise-linear", "locally constant")
