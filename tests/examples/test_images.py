"""The image example on a small classifier, against the same by hand: both layouts, and wrong usage."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Image = pytest.importorskip("PIL.Image", reason="the example needs ilin[plot]")
pytest.importorskip("matplotlib", reason="the example needs ilin[plot]")

SCRIPT = Path(__file__).parents[2] / "examples" / "images" / "explain.py"
SIDE, CLASSES = 8, 4
random = np.random.default_rng(0)
KERNEL = random.standard_normal((5, 3, 3, 3)).astype(np.float32)
DENSE = random.standard_normal((5, CLASSES)).astype(np.float32)
OFFSET = random.standard_normal(CLASSES).astype(np.float32)
PIXELS = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def classifier(layout="nchw", sides=(SIDE, SIDE)):
    """Convolution, Relu, the mean of each channel, and a dense layer, as an ONNX model of scores."""
    shape = [1, 3, *sides] if layout == "nchw" else [1, *sides, 3]
    nodes = [
        helper.make_node("Conv", ["image" if layout == "nchw" else "planes", "kernel"], ["features"]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "offset"], ["scores"]),
    ]
    if layout == "nhwc":
        nodes.insert(0, helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        [
            numpy_helper.from_array(value, name)
            for name, value in (("kernel", KERNEL), ("dense", DENSE), ("offset", OFFSET))
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def by_hand(x):
    """Scores (4,), and what each channel adds to them (4, 3), of x (3, H, W), in float64."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # (3, H - 2, W - 2, 3, 3)
    by_channel = np.einsum("chwij,ocij->cohw", windows, KERNEL.astype(np.float64))
    open_ = by_channel.sum(axis=0) > 0  # (5, H - 2, W - 2)
    means = (by_channel * open_).mean(axis=(2, 3))  # (3, 5)
    adds = means @ DENSE.astype(np.float64)  # (3, 4)
    return adds.sum(axis=0) + OFFSET, adds.T


@pytest.fixture
def folder(tmp_path):
    for layout in ("nchw", "nhwc"):
        onnx.save(classifier(layout), tmp_path / f"{layout}.onnx")
    Image.fromarray(PIXELS).save(tmp_path / "picture.png")
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    return tmp_path


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


def told(printed):
    """Name to score and the terms that make it."""
    lines = re.findall(r"^(ant|bee|cat|dog) +(\S+) {3,}(\S.*)$", printed, re.MULTILINE)
    return {name: (float(score), [float(term) for term in terms.split()]) for name, score, terms in lines}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_channels_and_b_make_each_score(folder, layout):
    done = run(
        folder, f"{layout}.onnx", "picture.png", "--labels", "labels.txt", "--mean", ".5,.4,.3", "--std", ".2"
    )
    assert done.returncode == 0, done.stderr
    x = (PIXELS.transpose(2, 0, 1) / 255 - np.array([0.5, 0.4, 0.3])[:, None, None]) / 0.2
    scores, adds = by_hand(x)
    found = told(done.stdout)
    names = np.array(["ant", "bee", "cat", "dog"])
    assert list(found) == list(names[np.argsort(-scores)])
    for k, name in enumerate(names):  # printed in four digits
        score, terms = found[name]
        assert score == pytest.approx(scores[k], rel=1e-3)
        assert terms == pytest.approx([*adds[k], OFFSET[k]], rel=1e-3)
    assert f"8 × 8 pixels, {layout}\n" in done.stdout
    assert "piecewise-linear, verified" in done.stdout
    with Image.open(folder / "map.png") as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 2 * drawn.height  # three panels


def test_an_array_is_taken_as_it_stands(folder):
    x = random.standard_normal((3, SIDE, SIDE)).astype(np.float32)
    np.save(folder / "x.npy", x)
    done = run(folder, "nchw.onnx", "x.npy", "--labels", "labels.txt")
    assert done.returncode == 0, done.stderr
    scores, _ = by_hand(x)
    assert [score for score, _ in told(done.stdout).values()] == pytest.approx(-np.sort(-scores), rel=1e-3)


def test_open_sides_take_the_middle_of_the_picture(folder):
    """A picture wider than asked for loses both margins and, at its own height, no detail."""
    onnx.save(classifier(sides=("h", "w")), folder / "open.onnx")
    wide = np.pad(PIXELS, ((0, 0), (4, 4), (0, 0)))
    Image.fromarray(wide).save(folder / "wide.png")
    done = run(folder, "open.onnx", "wide.png", "--size", "8x8", "--labels", "labels.txt")
    assert done.returncode == 0, done.stderr
    scores, _ = by_hand(PIXELS.transpose(2, 0, 1) / 255)
    assert [score for score, _ in told(done.stdout).values()] == pytest.approx(-np.sort(-scores), rel=1e-3)


def test_a_report_tells_the_names(folder):
    pytest.importorskip("jinja2", reason="the report needs ilin[report]")
    done = run(folder, "nchw.onnx", "picture.png", "--labels", "labels.txt", "--report", "page.html")
    assert done.returncode == 0, done.stderr
    best = next(iter(told(done.stdout)))
    assert best in (folder / "page.html").read_text()


WRONG = {
    "no such picture": ("nchw.onnx", "nothing.png"),
    "not a picture": ("nchw.onnx", "labels.txt"),
    "no such model": ("nothing.onnx", "picture.png"),
    "too few labels": ("nchw.onnx", "picture.png", "--labels", "two.txt"),
    "no such labels": ("nchw.onnx", "picture.png", "--labels", "nothing.txt"),
    "another layout": ("nchw.onnx", "picture.png", "--layout", "nhwc"),
    "no layout to be told": ("threes.onnx", "picture.png"),
    "open sides": ("open.onnx", "picture.png"),
    "another size": ("nchw.onnx", "picture.png", "--size", "9"),
    "no size": ("nchw.onnx", "picture.png", "--size", "8x"),
    "two means": ("nchw.onnx", "picture.png", "--mean", "1,2"),
    "no mean": ("nchw.onnx", "picture.png", "--mean", "grey"),
    "a deviation of 0": ("nchw.onnx", "picture.png", "--std", "0"),
    "a prepared array": ("nchw.onnx", "x.npy", "--scale", "1"),
    "not an array": ("nchw.onnx", "text.npy"),
    "an array of two axes": ("nchw.onnx", "flat.npy"),
    "no such tensor": ("nchw.onnx", "picture.png", "--output", "nothing"),
    "no place for the map": ("nchw.onnx", "picture.png", "--plot", "nowhere/map.png"),
    "no picture": ("nchw.onnx",),
}
REMEDIES = {  # what the line has to tell
    "too few labels": "two.txt has 2 lines, and the model 4 outputs",
    "another layout": "say another --layout",
    "no layout to be told": "say --layout",
    "open sides": "say --size HxW",
    "no size": "write HxW, such as 224x224",
    "two means": "--mean has 2 numbers, the input 3 channels",
    "a prepared array": "--scale prepares a picture",
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_told_in_one_line(folder, case):
    onnx.save(classifier(sides=("h", "w")), folder / "open.onnx")
    onnx.save(classifier(sides=(3, 3)), folder / "threes.onnx")
    (folder / "two.txt").write_text("ant\nbee\n")
    (folder / "text.npy").write_text("no array")
    np.save(folder / "x.npy", np.zeros((3, SIDE, SIDE), np.float32))
    np.save(folder / "flat.npy", np.zeros((3, SIDE * SIDE), np.float32))
    done = run(folder, *WRONG[case])
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(r"error: .+\n", done.stderr)
    assert REMEDIES.get(case, "") in done.stderr
