"""The t-SNE example says what its page says, and its pushes sum to where onnxruntime places an image."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import ilin

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tsne"
PAGE = ROOT / "docs" / "examples" / "tsne.md"
TRUSTED = re.compile(
    r"^parametric t-SNE +(trained on|held out) +([\d,]+) +(\d\.\d+) +(\d\.\d+)$", re.MULTILINE
)
SUM = re.compile(r"^  (?:first axis|second axis|from \d to \d)((?: +-?\d+\.\d{4}){4})$", re.MULTILINE)
LEAST = {("trained on", "1,437"): (0.99, 0.98), ("held out", "360"): (0.96, 0.96)}  # as the page has it


def explain(*options):
    command = [sys.executable, EXAMPLE / "explain.py", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.fixture(scope="module")
def printed():
    return explain()


def test_neighbours_are_as_trustworthy_as_the_page_says(printed):
    found = {
        (part, count): (float(at_5), float(at_12)) for part, count, at_5, at_12 in TRUSTED.findall(printed)
    }
    assert found.keys() == LEAST.keys()
    for part, (at_5, at_12) in found.items():
        assert at_5 >= LEAST[part][0], part
        assert at_12 >= LEAST[part][1], part


def test_the_page_shows_what_is_printed(printed):
    page = PAGE.read_text()
    for part in LEAST:
        assert "at least {} and {}".format(*LEAST[part]) in page
    # the last digits depend on the order in which a machine adds up in float32
    shown = SUM.findall(page)
    assert shown
    np.testing.assert_allclose(
        [[float(term) for term in line.split()] for line in shown],
        [[float(term) for term in line.split()] for line in SUM.findall(printed)],
        atol=0.005,
    )


def test_pushes_and_biases_sum_to_the_place(printed):
    lines = [[float(term) for term in line.split()] for line in SUM.findall(printed)]
    assert len(lines) == 4 * 3  # four images; two axes and the line between two clusters
    for pixels, biases, total, observed in lines:
        assert total == pytest.approx(pixels + biases, abs=1.5e-4)  # each of the three is rounded to 1e-4
        assert total == pytest.approx(observed, abs=2e-4)
    assert printed.count(", verified") == 4


def in_double():
    """The example's model with weights, input and output in float64."""
    model = onnx.load(EXAMPLE / "model.onnx")
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight).astype(np.float64)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return model


def by_hand(model, x):
    """(W, b): the product of the layers' matrices, dead units struck out."""
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    W, b = np.eye(64), np.zeros(64)
    for layer in (1, 2, 3, 4):
        A = weights[f"dense{layer}.weight"]
        W, b = A @ W, A @ b + weights[f"dense{layer}.bias"]
        if layer < 4:
            alive = W @ x + b > 0
            W, b = W * alive[:, np.newaxis], b * alive
    return W, b


@pytest.mark.parametrize("which", range(4))
def test_in_float64_contributions_and_b_are_the_place(which):
    image = np.load(EXAMPLE / "several.npy")[[which]]
    affine = ilin.compile(EXAMPLE / "model.onnx", dtype="float64").at(image)
    double = in_double()
    image = image.astype(np.float64)
    session = onnxruntime.InferenceSession(double.SerializeToString(), providers=["CPUExecutionProvider"])
    (place,) = session.run(None, {"image": image})
    sums = [affine.contributions(axis).sum() + affine.b[axis] for axis in (0, 1)]
    np.testing.assert_allclose(sums, place[0], rtol=1e-10)
    W, b = by_hand(double, image.ravel())
    np.testing.assert_allclose(affine.W, W, rtol=0, atol=1e-12 * np.abs(W).max())
    np.testing.assert_allclose(affine.b, b, rtol=1e-10)


def test_it_draws_its_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib, the extra [plot]")
    picture = tmp_path / "tsne.png"
    explain("--picture", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000
