"""Why the digits network is right, and what makes it wrong: 4 against 9.

The network reads every image that was kept out of training rightly, but a digit
moved up or down by one pixel, losing its outermost line, may mislead it. Here
are a 4 that is read as 9 when moved up, and a 9 that is read as 4 when moved
down, each with what every pixel adds to “4”, to “9”, and to the difference.

    python -m pip install '.[plot]' scikit-learn
    python examples/digits/mistakes.py --plot mistakes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import ilin

MODEL = Path(__file__).parent / "model.onnx"
Images = NDArray[np.float32]  # (n, 1, 8, 8), grey values in [0, 1]


class Case(NamedTuple):
    """One image, and the map of the network there."""

    title: str
    affine: ilin.AffineMap


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the maps (needs matplotlib)")
    plot = parser.parse_args().plot

    images, labels = held_out()
    print(f"{len(images)} held-out images: {np.sum(read(images) == labels)} read rightly")
    up, down = moved(images, -1), moved(images, 1)
    for where, others in (("up", up), ("down", down)):
        print(f"moved {where} by one pixel: {np.sum(read(others) == labels)} read rightly")

    four = first((labels == 4) & (read(images) == 4) & (read(up) == 9))
    nine = first((labels == 9) & (read(images) == 9) & (read(down) == 4))
    compiled = ilin.compile(MODEL)
    cases = [
        Case("a 4", compiled.at(images[four])),
        Case("the same 4, moved up", compiled.at(up[four])),
        Case("a 9", compiled.at(images[nine])),
        Case("the same 9, moved down", compiled.at(down[nine])),
    ]
    for case in cases:
        describe(case)
    if plot:
        draw(cases, plot)
        print(f"\nwrote {plot}")


def held_out() -> tuple[Images, NDArray[np.int64]]:
    """The images, with their labels, that train.py kept out of training."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, np.newaxis]
    _, rows = train_test_split(np.arange(len(images)), test_size=0.2, random_state=0, stratify=data.target)
    rows.sort()
    return images[rows], data.target[rows]


def read(images: Images) -> NDArray[np.int64]:
    """The digits that the network reads, (n,)."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0].argmax(axis=1)


def moved(images: Images, lines: int) -> Images:
    """The images moved down (or up, where negative), white where nothing moves in; what moves out is lost."""
    padded = np.pad(images, [(0, 0), (0, 0), (abs(lines), abs(lines)), (0, 0)])
    return np.roll(padded, lines, axis=2)[:, :, abs(lines) : -abs(lines)]


def first(mask: NDArray[np.bool_]) -> int:
    """Position of the first true entry."""
    return int(np.flatnonzero(mask)[0])


def describe(case: Case) -> None:
    """Print what the contrast 4 against 9 is made of."""
    affine = case.affine
    logits, contrast = affine.y.ravel(), affine.contrast(4, 9)
    pixels, biases = float(contrast.sum()), float(affine.b[4] - affine.b[9])
    verified = "verified" if affine.certificate.verified else "NOT verified"
    print(f"\n{case.title}: read as {logits.argmax()}, {verified}")
    print(f"  pixels {pixels:+.3f} biases {biases:+.3f} = {pixels + biases:+.3f}")
    print(f"  logit 4 - logit 9 by onnxruntime {logits[4] - logits[9]:+.3f}")
    for line, column in strongest(contrast[0, 0], 3):
        value = contrast[0, 0, line, column]
        print(f"  pixel ({line}, {column}) {value:+.3f}, for {4 if value > 0 else 9}")


def strongest(image: NDArray[np.floating], count: int) -> list[tuple[int, int]]:
    """Where the entries of largest magnitude are."""
    order = np.argsort(-np.abs(image), axis=None, kind="stable")[:count]
    return [(int(i), int(j)) for i, j in np.column_stack(np.unravel_index(order, image.shape))]


def draw(cases: list[Case], destination: Path) -> None:
    """One row for each case, one colour scale for all maps."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9})
    maps = [[c.affine.contributions(4), c.affine.contributions(9), c.affine.contrast(4, 9)] for c in cases]
    limit = max(float(np.abs(image).max()) for row in maps for image in row)
    figure, axes = plt.subplots(len(cases), 4, figsize=(7.6, 8.4), layout="constrained")
    for axis, title in zip(axes[0], ("image", "for 4", "for 9", "for 4 rather than 9"), strict=True):
        axis.set_title(title, weight="bold")
    for case, images, line in zip(cases, maps, axes, strict=True):
        logits, b = case.affine.y.ravel(), case.affine.b
        line[0].imshow(case.affine.x[0, 0], cmap="gray_r", vmin=0, vmax=1)
        line[0].set_xlabel(f"{case.title}\nis read as {logits.argmax()}")
        sums = [
            ("logit 4", logits[4], b[4]),
            ("logit 9", logits[9], b[9]),
            ("difference", logits[4] - logits[9], b[4] - b[9]),
        ]
        for axis, image, (name, value, biases) in zip(line[1:], images, sums, strict=True):
            shown = axis.imshow(image[0, 0], cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.set_xlabel(f"{name} {value:+.1f} =\npixels {image.sum():+.1f}, biases {biases:+.1f}")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    label = "what a pixel adds: red raises the logit or difference, blue lowers it"
    figure.colorbar(shown, ax=axes, location="bottom", shrink=0.6, aspect=40, pad=0.02).set_label(label)
    figure.savefig(destination, dpi=100)


if __name__ == "__main__":
    main()
