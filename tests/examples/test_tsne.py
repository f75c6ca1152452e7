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


def by_hand(image):
    """(W, b) in float64 from the file's own weights, dead units struck out, and how far float32 may be off.

    A sum of n products in any order is off by at most γₙ times the sum of their sizes, γₙ = n u / (1 - n u) and
    u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms, 3.1); Relu makes nothing larger.
    """
    weights = {
        w.name: numpy_helper.to_array(w).astype(np.float64)
        for w in onnx.load(EXAMPLE / "model.onnx").graph.initializer
    }
    x = image.astype(np.float64).ravel()
    W, b, off = np.eye(64), np.zeros(64), np.zeros(64)
    for layer in (1, 2, 3, 4):
        A, c = weights[f"dense{layer}.weight"], weights[f"dense{layer}.bias"]
        nu = (A.shape[1] + 1) * 2.0**-24
        off = np.abs(A) @ off + nu / (1 - nu) * (np.abs(A) @ (np.abs(W @ x + b) + off) + np.abs(c))
        W, b = A @ W, A @ b + c
        if layer < 4:
            alive = W @ x + b > 0
            W, b = W * alive[:, np.newaxis], b * alive
    return W, b, off


@pytest.mark.parametrize("which", range(4))
def test_the_map_is_the_product_of_the_layers(which):
    image = np.load(EXAMPLE / "several.npy")[[which]]
    affine = ilin.compile(EXAMPLE / "model.onnx", dtype="float64").at(image)
    W, b, off = by_hand(image)
    np.testing.assert_allclose(affine.W, W, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(affine.b, b, rtol=1e-9, atol=1e-9)
    session = onnxruntime.InferenceSession(EXAMPLE / "model.onnx", providers=["CPUExecutionProvider"])
    (place,) = session.run(None, {"image": image})
    sums = np.array([affine.contributions(axis).sum() + affine.b[axis] for axis in (0, 1)])
    assert (np.abs(sums - place[0]) <= off).all()
    assert off.max() < 0.1  # in a plane 80 wide
    assert affine.certificate.verified


def test_it_draws_its_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib, the extra [plot]")
    picture = tmp_path / "tsne.png"
    explain("--picture", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000
