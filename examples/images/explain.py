"""Why an image classifier sees what it sees: any ONNX model, any picture.

The picture is cut to the sides' proportion and resized to what the model takes;
an .npy is taken as it stands. Printed are the five largest outputs, each as what
the input's channels add to it and b; drawn are the input, what its pixels add to
the largest output, and what speaks for that one against the runner-up.

How a picture has to be prepared stands nowhere in an ONNX file. The values that
the model's makers used belong into --scale, --mean and --std: the input is
(pixel / scale - mean) / std, pixels being 0 to 255. With other values the
answer is as exact, but about an input that the model was not made for.

    python -m pip install '.[plot]'
    python examples/images/explain.py model.onnx cat.jpg --labels names.txt
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

import ilin

mpl.use("Agg")
import matplotlib.pyplot as plt

LARGEST = 5  # outputs that are told
CHANNELS = {1: ["grey"], 3: ["red", "green", "blue"]}
MODES = {1: "L", 3: "RGB"}  # Pillow's names

Array = NDArray[Any]


class Prepared(NamedTuple):
    """What the model is asked about, and what of it is shown."""

    x: Array  # as the model takes it, of four axes
    layout: str  # "nchw" or "nhwc"
    shown: Array  # (H, W, C) in [0, 1]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"error: {message}\n")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a .png, .jpg, …, or an .npy")
    parser.add_argument(
        "--size", type=sides, metavar="HxW", help="of the input, where the model leaves it open"
    )
    parser.add_argument("--scale", type=float, metavar="S", help="what a pixel is divided by (default: 255)")
    parser.add_argument("--mean", type=numbers, metavar="M,…", help="one, or one for each channel")
    parser.add_argument("--std", type=numbers, metavar="D,…", help="likewise")
    parser.add_argument("--layout", choices=["nchw", "nhwc"], help="where it cannot be told from the shape")
    parser.add_argument("--output", metavar="TENSOR", help="such as the one before a Softmax")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="a name a line, one for each output")
    parser.add_argument("--plot", type=Path, default=Path("map.png"), metavar="PNG", help="(map.png)")
    parser.add_argument("--report", type=Path, metavar="HTML", help="a page as well (needs ilin[report])")
    options = parser.parse_args()
    try:
        sys.exit(explain(options))
    except ilin.IlinError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def explain(options: argparse.Namespace) -> int:
    """Print the largest outputs, and write the pictures; 0 where the map is verified, else 1."""
    compiled = ilin.compile(options.model, outputs=[options.output] if options.output else None)
    prepared = prepare(compiled, options)
    scores = compiled.at(prepared.x, materialize=False).y  # W waits until the labels fit
    if isinstance(scores, dict):
        raise ilin.OptionError(f"the model has several outputs; say --output, one of: {', '.join(scores)}")
    labels = labels_of(options.labels, scores.size)
    affine = compiled.at(prepared.x, rows=min(LARGEST, scores.size))  # the largest first
    tell(affine, prepared, labels)
    draw(affine, prepared, labels, options.plot)
    print(f"wrote      {options.plot}")
    if options.report:
        affine.report(options.report, class_names=labels, layout=prepared.layout)
        print(f"wrote      {options.report}")
    return 0 if affine.certificate.verified else 1


def prepare(compiled: ilin.CompiledModel, options: argparse.Namespace) -> Prepared:
    """The input that the picture makes.

    Raises:
        InputError: a file that cannot be read, or a model that takes no picture.
        OptionError: options that do not go together, or one that is missing.
    """
    put, *others = compiled.graph.inputs
    if others or put.shape is None or len(put.shape) != 4:
        told = ", ".join(f"{each.name!r} {list(each.shape or ())}" for each in compiled.graph.inputs)
        raise ilin.InputError(f"the model takes no single picture of four axes; its inputs: {told}")
    if options.picture.suffix == ".npy":
        return taken(options, put.shape)
    layout = options.layout or layout_of(put.shape)
    channels, height, width = (
        put.shape["nchw".index(c) if layout == "nchw" else "nhwc".index(c)] for c in "chw"
    )
    if channels is None or isinstance(channels, str):
        channels = 3
    if channels not in CHANNELS:
        raise ilin.InputError(
            f"as {layout} the model's input has {channels} channels, a picture 1 or 3; say another --layout, "
            "or give an .npy"
        )
    size = options.size or (height, width)
    if not all(isinstance(side, int) for side in size):
        raise ilin.OptionError("the model leaves the sides of its input open; say --size HxW")
    pixels = read_picture(options.picture, channels, size)  # (H, W, C)
    x = standardised(pixels, options).astype(put.dtype)[np.newaxis]
    return Prepared(x if layout == "nhwc" else x.transpose(0, 3, 1, 2), layout, pixels / 255)


def taken(options: argparse.Namespace, shape: tuple[int | str | None, ...]) -> Prepared:
    """An .npy as it stands, shown from its least to its largest value."""
    given = [name for name in ("size", "scale", "mean", "std") if getattr(options, name) is not None]
    if given:
        raise ilin.OptionError(f"--{given[0]} prepares a picture; an .npy is taken as it stands")
    try:
        x = np.load(options.picture, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ilin.InputError(f"{options.picture} cannot be read as an array: {error}") from error
    x = x[np.newaxis] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[0] != 1:
        raise ilin.InputError(
            f"{options.picture} has shape {list(x.shape)}; one picture has three axes, or four with N = 1"
        )
    layout = options.layout or layout_of(x.shape)
    shown = (x if layout == "nhwc" else x.transpose(0, 2, 3, 1))[0].astype(np.float64)
    shown = shown if shown.shape[2] == 3 else shown.mean(axis=2, keepdims=True)
    spread = np.ptp(shown) or 1.0
    return Prepared(x, layout, (shown - shown.min()) / spread)


def layout_of(shape: tuple[int | str | None, ...]) -> str:
    """Which axis holds the channels: the one of 1 or 3 entries.

    Raises:
        OptionError: both, or neither.
    """
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first == last:
        raise ilin.OptionError(
            f"the input's shape {list(shape)} does not tell where its channels are; say --layout"
        )
    return "nchw" if first else "nhwc"


def read_picture(path: Path, channels: int, size: tuple[int, int]) -> Array:
    """(H, W, C), 0 to 255: the picture's largest middle part of these proportions, resized."""
    height, width = size
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert(MODES[channels])
    except (OSError, Image.DecompressionBombError) as error:
        raise ilin.InputError(f"{path} cannot be read as a picture: {error}") from error
    fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted, np.float64).reshape(height, width, channels)


def standardised(pixels: Array, options: argparse.Namespace) -> Array:
    """(pixel / scale - mean) / std."""
    scale = 255.0 if options.scale is None else options.scale
    mean = [0.0] if options.mean is None else options.mean
    std = [1.0] if options.std is None else options.std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, pixels.shape[2]):
            raise ilin.OptionError(
                f"--{name} has {len(values)} numbers, the input {pixels.shape[2]} channels"
            )
    if not scale or not all(std):
        raise ilin.OptionError("--scale and --std divide, so none of them can be 0")
    return (pixels / scale - np.array(mean)) / np.array(std)


def labels_of(path: Path | None, count: int) -> list[str]:
    """A name for each output: the file's lines, or "output 3".

    Raises:
        InputError: a file that cannot be read.
        OptionError: too few lines, or too many.
    """
    if path is None:
        return [f"output {k}" for k in range(count)]
    try:
        labels = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ilin.InputError(f"{path} cannot be read: {error}") from error
    if len(labels) != count:
        raise ilin.OptionError(f"{path} has {len(labels)} lines, and the model {count} outputs")
    return labels


def by_channel(affine: ilin.AffineMap, row: int, layout: str) -> Array:
    """(C,): what each of the input's channels adds to a row."""
    axes = (0, 2, 3) if layout == "nchw" else (0, 1, 2)
    return np.asarray(affine.contributions(row).sum(axis=axes, dtype=np.float64))


def tell(affine: ilin.AffineMap, prepared: Prepared, labels: list[str]) -> None:
    """A line for each of the largest outputs: its score, what the channels add to it, and b."""
    height, width, _ = prepared.shown.shape
    print(f"input      {height} × {width} pixels, {prepared.layout}")
    certificate = affine.certificate
    verdict = "verified" if certificate.verified else f"NOT VERIFIED: {certificate.reason}"
    print(f"map        {affine.kind}, {verdict}\n")
    parts = [by_channel(affine, row, prepared.layout) for row in range(len(affine.rows))]
    names = CHANNELS.get(len(parts[0]), [f"channel {c}" for c in range(len(parts[0]))])
    if len(names) > 3:  # no colours: in one sum
        names, parts = ["the input"], [each.sum(keepdims=True) for each in parts]
    print(f"{'':<23}{'score':>9} = {''.join(f'{name:>11}' for name in (*names, 'b'))}")
    scores = affine.y.ravel()[affine.rows]
    for k, score, part, b in zip(affine.rows, scores, parts, affine.b, strict=True):
        print(f"{labels[k][:22]:<23}{score:>9.4g}   {''.join(f'{value:>+11.4g}' for value in (*part, b))}")
    print()


def draw(affine: ilin.AffineMap, prepared: Prepared, labels: list[str], destination: Path) -> None:
    """The input, the contributions to the largest output, and the contrast with the runner-up."""
    names = [f"“{labels[k]}”" for k in affine.rows[:2]]
    titles = ["the input", f"adds to {names[0]}", *(f"{names[0]} against {second}" for second in names[1:])]
    figure, axes = plt.subplots(1, len(titles), figsize=(3.6 * len(titles), 3.1), layout="constrained")
    axes[0].imshow(prepared.shown, cmap="gray", vmin=0, vmax=1)
    for row, axis in enumerate(axes[1:]):
        affine.plot(0, against=row or None, layout=prepared.layout, ax=axis)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(textwrap.fill(title, 30), fontsize=11)
        axis.set_axis_off()
    try:
        figure.savefig(destination, dpi=100, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise ilin.OutputError(f"{destination} cannot be written: {error}") from error


def sides(text: str) -> tuple[int, int]:
    """Height and width: "224x224", or "224"."""
    match = re.fullmatch(r"([1-9]\d*)(?:[x×]([1-9]\d*))?", text.lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HxW, such as 224x224")
    return int(match[1]), int(match[2] or match[1])


def numbers(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"{text!r} is no number, or numbers between commas"
        raise argparse.ArgumentTypeError(message) from None


if __name__ == "__main__":
    main()
