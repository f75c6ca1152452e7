"""Draw the README's picture: the slope map and the contribution map of one digit, from a real run.

    python -m pip install '.[plot]'
    python examples/digits/picture.py            # writes docs/images/digits.png

Nothing in the picture is typed in: every number is read from the map that `ilin.linearize` returns.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

import ilin

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
DESTINATION = HERE.parents[1] / "docs" / "images" / "digits.png"


def main(destination: Path = DESTINATION) -> None:
    """Linearise the network at x.npy and draw its largest two outputs."""
    affine = ilin.linearize(HERE / "model.onnx", np.load(HERE / "x.npy"))
    logits = affine.y.ravel()
    first, second = (int(k) for k in np.argsort(-logits)[:2])
    panels = [
        ("input x", affine.x[0, 0], "gray_r", None),
        (f"slopes W[{first}]", affine.weights(first)[0, 0], "RdBu_r", None),
        (f"contributions W[{first}]·x to “{first}”", affine.contributions(first)[0, 0], "RdBu_r", "shared"),
        (f"contrast: “{first}” against “{second}”", affine.contrast(first, second)[0, 0], "RdBu_r", "shared"),
    ]
    shared = max(float(np.abs(image).max()) for _, image, _, scale in panels if scale)
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.5), layout="constrained")
    for axis, (title, image, colours, scale) in zip(axes, panels, strict=True):
        limit = shared if scale else float(np.abs(image).max())
        low = -limit if colours == "RdBu_r" else 0.0
        shown = axis.imshow(image, cmap=colours, vmin=low, vmax=limit)
        axis.set_title(title, fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(shown, ax=axis, shrink=0.75, pad=0.03)
    figure.suptitle(_caption(affine, first), fontsize=11, y=0.02, va="bottom")
    destination.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(destination, dpi=120)
    print(f"wrote {destination}")


def _caption(affine: ilin.AffineMap, row: int) -> str:
    total, bias = float(affine.contributions(row).sum()), float(affine.b[row])
    output = float(affine.y.ravel()[row])
    return (
        f"logit “{row}”: {total:.3f} from the pixels and {bias:.3f} from the biases make {total + bias:.3f}; "
        f"onnxruntime computes {output:.3f}"
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
