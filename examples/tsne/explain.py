"""Explain where a parametric t-SNE places an image: which pixels push it along each axis.

    python examples/tsne/explain.py                                 # trustworthiness, and four images
    python examples/tsne/explain.py --picture docs/images/tsne.png  # also the picture; needs matplotlib
    python examples/tsne/explain.py --compare                       # also beside scikit-learn's TSNE and PCA

The network has two outputs, so W has two rows: W[0] * x and W[1] * x are the pixels' pushes along the two
axes. Beside them stands the push along the line between two clusters. Every number is read from the map that
`ilin.compile(...).at(x)` returns.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from images import Digits, class_centres, read_digits
from numpy.typing import NDArray
from sklearn.manifold import trustworthiness

import ilin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
NEIGHBOURS = (5, 12)

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Push:
    """A coordinate of an image's place, as a sum over pixels and what the biases add."""

    name: str
    back: str  # where a negative push goes
    on: str  # where a positive one does
    pixels: Floats  # (8, 8)
    bias: float
    observed: float  # the same coordinate as onnxruntime computes it

    @property
    def total(self) -> float:
        """What the sum comes to."""
        return float(self.pixels.sum()) + self.bias


@dataclass(frozen=True)
class Explained:
    """One image, where it is placed, and why there."""

    title: str
    image: Floats  # (8, 8)
    place: Floats  # (2,)
    pushes: tuple[Push, Push, Push]
    radius: float  # of the linear region, in L2
    verified: bool


def explain(affine: ilin.AffineMap, title: str, pair: tuple[int, int], centres: Floats) -> Explained:
    """Read the pushes off the map: along both axes, and from the one centre of the pair to the other.

    The axes of a t-SNE have no meaning of their own: its objective is the same however the plane is turned.
    The coordinate along a line with direction u, ‖u‖ = 1, counted from the middle m between two centres, is
    uᵀ(W x + b - m), so uᵀW takes the place of a row of W.
    """
    place = affine.y.ravel()
    along_axes = np.stack([affine.contributions(axis)[0, 0] for axis in (0, 1)])  # (2, 8, 8)
    a, b = pair
    u, middle = centres[b] - centres[a], (centres[a] + centres[b]) / 2
    u /= np.linalg.norm(u)
    return Explained(
        title,
        affine.x[0, 0],
        place,
        (
            Push("first axis", "left", "right", along_axes[0], float(affine.b[0]), float(place[0])),
            Push("second axis", "down", "up", along_axes[1], float(affine.b[1]), float(place[1])),
            Push(
                f"from {a} to {b}",
                f"to {a}",
                f"to {b}",
                np.tensordot(u, along_axes, axes=1),
                float(u @ (affine.b - middle)),
                float(u @ (place - middle)),
            ),
        ),
        affine.region.radius(2).distance,
        affine.certificate.verified,
    )


def explain_all(digits: Digits, centres: Floats) -> list[Explained]:
    """Explain the images of several.npy."""
    images = np.load(HERE / "several.npy")
    chosen = json.loads((HERE / "tsne.json").read_text(encoding="utf-8"))["several.npy"]
    maps = ilin.compile(HERE / "model.onnx").at_many(images)
    found = []
    for letter, affine, one in zip("ABCD", maps, chosen, strict=True):
        a, b = one["pair"]
        where = f"between {a} and {b}" if one["where"] == "between" else "inside its cluster"
        digit = f"an {one['label']}" if one["label"] == 8 else f"a {one['label']}"
        found.append(explain(affine, f"{letter}: {digit}, {where}", (a, b), centres))
    return found


def place_all(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The place of each image, (n, 2), by onnxruntime."""
    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["place"], {"image": images})[0])


def print_trustworthiness(digits: Digits, places: Floats, name: str) -> None:
    """One line for each part: how many of the neighbours in the plane are so among the images, too."""
    for part, rows in (("trained on", digits.train), ("held out", digits.test)):
        shown = (trustworthiness(digits.pixels[rows], places[rows], n_neighbors=k) for k in NEIGHBOURS)
        print(f"{name:<18}{part:<12}{len(rows):>7,}" + "".join(f"{value:>12.4f}" for value in shown))


def print_comparison(digits: Digits) -> None:
    """The same of scikit-learn's TSNE of the images trained on, which cannot place others, and of PCA."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    pixels = digits.pixels
    print_trustworthiness(digits, PCA(2).fit(pixels[digits.train]).transform(pixels), "PCA")
    free = TSNE(perplexity=30, init="pca", random_state=0).fit_transform(pixels[digits.train])
    shown = (trustworthiness(pixels[digits.train], free, n_neighbors=k) for k in NEIGHBOURS)
    print(f"{'TSNE':<18}{'trained on':<12}{len(free):>7,}" + "".join(f"{value:>12.4f}" for value in shown))


def print_explained(one: Explained) -> None:
    """The coordinates as sums."""
    checked = "verified" if one.verified else "NOT verified"
    print(f"\n{one.title}; its region has radius {one.radius:.3g} in L2, {checked}")
    print(f"  {'':<14}{'pixels':>10}{'biases':>10}{'sum':>10}{'onnxruntime':>14}")
    for push in one.pushes:
        print(
            f"  {push.name:<14}{push.pixels.sum():>10.4f}{push.bias:>10.4f}{push.total:>10.4f}"
            f"{push.observed:>14.4f}"
        )


def draw(path: Path, digits: Digits, places: Floats, centres: Floats, explained: list[Explained]) -> None:
    """The plane with the images marked, and beside it their pushes as images."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 8.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1])
    draw_plane(left.subplots(), digits, places, centres, explained)
    for axes, one in zip(right.subplots(len(explained), 4), explained, strict=True):
        draw_row(axes, one)
    right.suptitle("Why there: the pushes W x of the pixels, and W x + b = coordinate", fontsize=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=95)
    print(f"\nwrote {path}")


def draw_plane(
    axis: Axes, digits: Digits, places: Floats, centres: Floats, explained: list[Explained]
) -> None:
    """Every image as a dot in the colour of its label, the explained ones with their letters."""
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke

    outlined = {"weight": "bold", "path_effects": [withStroke(linewidth=3, foreground="white")]}
    axis.scatter(*places.T, c=digits.labels, cmap="tab10", s=5, linewidths=0)
    for digit, centre in enumerate(centres):
        axis.annotate(
            str(digit), centre, xytext=(-7, 21), textcoords="offset points", fontsize=22,
            color=colormaps["tab10"](digit), **outlined,
        )  # fmt: skip
    for one in explained:
        axis.plot(*one.place, "o", markersize=8, markerfacecolor="white", markeredgecolor="black")
        axis.annotate(
            one.title[0], one.place, xytext=(7, 5), textcoords="offset points", fontsize=15, **outlined
        )
    axis.set(xlabel="first axis", ylabel="second axis", aspect="equal")
    axis.set_title(f"Where the network places {len(places):,} digits\n(colour: label, never trained on)")


def draw_row(axes: NDArray[np.object_], one: Explained) -> None:
    """The image and its three pushes, red for a push on, blue for one back, white for none."""
    axes[0].imshow(one.image, cmap="gray_r", vmin=0, vmax=1)
    axes[0].set_title(one.title.replace(", ", ",\n"), fontsize=10)
    axes[0].set_xlabel(f"region radius {one.radius:.1g}", fontsize=9)
    limit = max(float(np.abs(push.pixels).max()) for push in one.pushes)
    for axis, push in zip(axes[1:], one.pushes, strict=True):
        shown = axis.imshow(push.pixels, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(f"{push.name}\nblue: {push.back}, red: {push.on}", fontsize=10)
        sign = "−" if push.bias < 0 else "+"
        equation = f"{push.pixels.sum():.1f} {sign} {abs(push.bias):.1f} = {push.total:.1f}"
        axis.set_xlabel(equation.replace("-", "−"), fontsize=9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    axes[-1].figure.colorbar(shown, ax=axes[-1], fraction=0.05)


def main() -> None:
    """Print the figures, and draw the picture if asked for."""
    parser = argparse.ArgumentParser(description="Explain a parametric t-SNE of handwritten digits.")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the plane and the pushes")
    parser.add_argument(
        "--compare", action="store_true", help="measure scikit-learn's TSNE and PCA, too (half a minute)"
    )
    options = parser.parse_args()

    digits = read_digits()
    places = place_all(digits.images)
    centres = class_centres(places[digits.train], digits.labels[digits.train])
    print(f"{'trustworthiness':<30}{'images':>7}" + "".join(f"{f'at {k}':>12}" for k in NEIGHBOURS))
    print_trustworthiness(digits, places, "parametric t-SNE")
    if options.compare:
        print_comparison(digits)
    explained = explain_all(digits, centres)
    for one in explained:
        print_explained(one)
    if options.picture is not None:
        draw(options.picture, digits, places, centres, explained)


if __name__ == "__main__":
    main()
