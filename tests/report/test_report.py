"""The page, the picture, and what notebooks show: what they say is what the map holds."""

import json
import math
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper, save

import ilin
from ilin.command_line import compile_main
from ilin.compiler.pipeline import CompiledModel
from ilin.report.layouts import layouts_of
from ilin.report.numbers import number, part, written_out
from ilin.report.page import TEMPLATES
from ilin.report.spots import spot_of

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
HOSTILE = '</script><script>alert(1)</script><img src="https://example.org/x" onerror=alert(2)>&'
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)


class Page(HTMLParser):
    """Elements with their attributes, the text of data elements, the JSON, and the ids."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.values, self.document = [], [], None
        self._json = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "data":
            self.values.append(float(dict(attrs)["value"]))
        self._json = tag == "script"

    def handle_data(self, data):
        if self._json:
            self.document = json.loads(data)
            self._json = False

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def command(*arguments):
    return CliRunner().invoke(compile_main, [str(each) for each in arguments])


def dense(path, shape, W, name="dense"):
    """y = x W over the flattened input, saved as a model."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "W"], ["y"], name),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, W.shape[1]])],
        [numpy_helper.from_array(W.astype(np.float32), "W")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def digits():
    return ilin.compile(DIGITS / "model.onnx").at(np.load(DIGITS / "x.npy"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page, the picture and the saved map of one run of the command."""
    folder = tmp_path_factory.mktemp("digits")
    result = command(
        *(DIGITS / "model.onnx", DIGITS / "x.npy", "-o", folder / "map.npz"),
        *("--report", folder / "page.html", "--plot", folder / "map.png", "-q"),
    )
    assert result.exit_code == 0, result.output
    return folder


def test_the_page_says_what_the_file_holds(written):
    page = Page((written / "page.html").read_text())
    held = np.load(written / "map.npz")
    W, b, x, y = (held[name].astype(np.float64) for name in ("W", "b", "x0", "y0"))
    x, y = x.ravel(), y.ravel()
    top, second = np.argsort(-y)[:2]
    document = page.document
    assert document["explained"] == {"name": f"output {top}", "row": top, "value": y[top]}
    assert document["against"]["row"] == second
    np.testing.assert_array_equal(document["account"]["contributions"], W[top] * x)
    assert document["account"]["constant"] == b[top]
    np.testing.assert_array_equal(document["contrast"]["contributions"], (W[top] - W[second]) * x)
    largest = np.argsort(-np.abs(W[top] * x), kind="stable")[:15]
    for j in largest:  # as numbers of the tables, too
        assert {x[j], W[top, j], W[top, j] * x[j]} <= set(page.values)
    # Layers, in the file's own order, sum to b.
    shares = held["bias_shares"][:, top]
    told = [each["amount"] for each in document["account"]["layers"]]
    np.testing.assert_allclose(told, shares[shares != 0], rtol=1e-4, atol=1e-6)
    # |F_a - F_b| / ‖W_a - W_b‖
    margin = (W[top] - W[second]) @ x + b[top] - b[second]
    l2 = next(each for each in document["decision_boundary"]["nearest"] if each["norm"] == "2")
    assert l2["distance"] == pytest.approx(margin / np.linalg.norm(W[top] - W[second]), rel=1e-12)
    header = json.loads(bytes(held["header"]).decode())
    assert document["certificate"] == header["certificate"]


@pytest.mark.parametrize(
    ("op_type", "mode", "held", "origin", "word"),
    [
        ("Identity", "tangent", False, "numbers of the layers’ own (biases). Each", "values are: b."),
        ("Relu", "tangent", False, "only jump (trees, comparisons, rounding). Each", "switches as here: b."),
        ("Relu", "tangent", True, "inputs of the model that are held at their values. Each", "as here: b."),
        ("Tanh", "tangent", False, "and from the bends", "It is of this input."),
        ("Silu", "frozen", False, "such as gates", "It is of this input."),
        ("Floor", "tangent", False, "is the whole output", "switches as here: b."),
    ],
)
def test_the_page_says_where_the_constant_comes_from(tmp_path, op_type, mode, held, origin, word):
    gate = [helper.make_node("Sigmoid", ["h"], ["g"]), helper.make_node("Mul", ["h", "g"], ["y"])]
    last = gate if op_type == "Silu" else [helper.make_node(op_type, ["h"], ["y"])]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "s"], ["h"]), *last],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xs"[: 1 + held]],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [] if held else [numpy_helper.from_array(np.full((1, 2), 0.25, np.float32), "s")],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    point = {name: np.full((1, 2), 0.3, np.float32) for name in "xs"[: 1 + held]}
    compiled = ilin.compile(tmp_path / "m.onnx", inputs=["x"], mode=mode)
    compiled.at(point).report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert origin in page
    assert page.count("held at their values.") == held
    assert f"{word}</dd>" in page


def test_the_command_on_the_page_repeats_it(written):
    page = Page((written / "page.html").read_text())
    assert page.document["command"].startswith("ilin-compile ")
    assert f"--report {written / 'page.html'}" in page.document["command"]


def test_the_page_is_whole_accessible_and_asks_for_nothing(written):
    text = (written / "page.html").read_text()
    page = Page(text)
    (html,) = page.all("html")
    assert html["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    skip = page.all("a")[0]
    targets = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert skip["class"] == "skip"
    assert {a["href"].removeprefix("#") for a in page.all("a")} <= targets
    images = page.all("img")
    assert all("alt" in image and image["src"].startswith("data:image/png;base64,") for image in images)
    assert sum(bool(image["alt"]) for image in images) >= 4  # the colour bars repeat their captions
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in head for head in page.all("th"))
    assert [script["type"] for script in page.all("script")] == ["application/json"]
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)|url\(|@import""", text)


def test_the_same_map_gives_the_same_bytes(tmp_path, digits):
    again = ilin.compile(DIGITS / "model.onnx").at(np.load(DIGITS / "x.npy"))
    for name, affine in (("a", digits), ("b", again)):
        affine.report(tmp_path / f"{name}.html", row=3, against=5)
        for suffix in ("png", "svg", "pdf"):
            result = command(
                *(DIGITS / "model.onnx", DIGITS / "x.npy", "-q", "--plot", tmp_path / f"{name}.{suffix}")
            )
            assert result.exit_code == 0, result.output
    for suffix in ("html", "png", "svg", "pdf"):
        first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
        assert first == second, suffix


def test_hostile_names_stay_text(tmp_path):
    path = dense(tmp_path / "evil.onnx", [1, 3], np.eye(3), name=HOSTILE)
    affine = ilin.compile(path).at(np.array([[1, 2, 3]], np.float32))
    affine.report(tmp_path / "p.html", class_names=[HOSTILE] * 3, feature_names=[HOSTILE, "$a_b$", "c"])
    page = Page((tmp_path / "p.html").read_text())
    assert page.document["explained"]["name"] == HOSTILE
    assert len(page.all("script")) == 1
    assert not page.all("img") or all(img["src"].startswith("data:") for img in page.all("img"))
    for value in (affine, affine.certificate, affine.ledger(0), ilin.compile(path)):
        shown = Page(value._repr_html_())
        assert not shown.all("script")
        assert not shown.all("img")


def test_a_failed_page_leaves_the_old_one(tmp_path, digits):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(ilin.OptionError, match="fits no input"):
        digits.report(path, layout="NCL")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_map_that_is_not_verified_says_so_first(tmp_path):
    affine = ilin.compile(DIGITS / "model.onnx").at(np.load(DIGITS / "x.npy"))
    affine.__dict__["certificate"] = replace(affine.certificate, reason="node <b> is off")
    affine.report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    alarm = text.index('role="alert"')
    assert "NOT verified, so do not rely on this page: node &lt;b&gt; is off." in text[alarm:]
    assert alarm < text.index("<nav")


def test_ties_that_were_examined_are_told(tmp_path):
    affine = ilin.compile(DIGITS / "model.onnx").at(np.load(DIGITS / "x.npy"))
    affine.report(tmp_path / "before.html")
    matter, count = affine.ties.matter, affine.ties.count
    affine.report(tmp_path / "after.html")
    before, after = ((tmp_path / f"{name}.html").read_text() for name in ("before", "after"))
    assert f"{count:,} of the" in before
    assert "--ties examines them" in before
    told = f"For {matter:,} of them another choice may" if matter else "another choice would change nothing"
    assert told in after


def test_a_region_that_takes_long_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("ilin.report.content._UNITS", 100)
    affine = ilin.compile(DIGITS / "model.onnx").at(np.load(DIGITS / "x.npy"))
    affine.report(tmp_path / "page.html")
    document = Page((tmp_path / "page.html").read_text()).document
    assert document["region"]["radii"] == []
    assert "this takes long" in document["region"]["left_out"]
    assert {each["inside"] for each in document["decision_boundary"]["nearest"]} == {None}
    affine.region.radius(2)  # asked for: it is told
    affine.report(tmp_path / "page.html")
    (radius,) = Page((tmp_path / "page.html").read_text()).document["region"]["radii"]
    assert radius["distance"] == affine.region.radius(2).distance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "nchw"], "--layout belongs to --report or --plot"),
        (["--class-names", "two.txt"], "--class-names belongs to --report or --plot"),
        (["--report", "p.html", "--layout", "XYZ"], "layout 'XYZ' is not understood"),
        (["--report", "p.html", "--layout", "nlc"], "layout 'nlc' fits no input"),
        (["--report", "p.html", "--class-names", "none.txt"], "no such file: none.txt"),
        (
            ["--report", "p.html", "--class-names", "two.txt"],
            "2 class names are given, but the output takes",
        ),
        (["--report", "no/p.html"], "no such folder"),
        (["--report", "x.npy"], "refusing to overwrite the input"),
        (["--plot", "p.bmp"], "a plot is written as .png, .svg, .pdf"),
        (["--report", "p.html", "--feature-names", "two.txt"], "2 feature names are given, but the input"),
        (["--report", "p.html", "--rows", "3,4", "--against", "5"], "--against 5 is not among --rows"),
        (["--report", "p.html", "--explain", "10"], "--explain 10: the outputs are 0 to 9; -1 is the last"),
    ],
)
def test_refusals(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(CompiledModel, "_compose", lambda *_: pytest.fail("W was composed"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIGITS / "x.npy", "x.npy")
    Path("two.txt").write_text("one\ntwo\n")
    result = command(DIGITS / "model.onnx", "x.npy", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert len(result.stderr.replace(str(tmp_path), "")) <= 81
    assert not Path("p.html").exists()


@pytest.mark.parametrize(
    ("library", "option", "extra"), [("jinja2", "--report", "report"), ("matplotlib", "--plot", "plot")]
)
def test_a_missing_library_is_one_line(tmp_path, monkeypatch, library, option, extra):
    monkeypatch.setitem(sys.modules, library, None)
    result = command(DIGITS / "model.onnx", DIGITS / "x.npy", option, tmp_path / "p.png")
    assert result.exit_code == 2
    assert f"needs {library}, which is not installed: pip install 'ilin[{extra}]'" in result.stderr


def test_several_instances_have_a_page_each(tmp_path):
    several = np.concatenate([np.load(DIGITS / "x.npy").reshape(1, 1, 8, 8)] * 2)
    np.save(tmp_path / "s.npy", several)
    result = command(DIGITS / "model.onnx", tmp_path / "s.npy", "--report", tmp_path / "p.html")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["p.0.html", "p.1.html"]


def contrast_of(a, b):
    """WCAG 2.2's contrast ratio of two colours such as #a0b1c2."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_colours_have_contrast(theme):
    assert contrast_of("#ffffff", "#000000") == pytest.approx(21)
    css = (TEMPLATES / "style.css").read_text()
    start = {"light": 0, "dark": css.index("prefers-color-scheme: dark"), "print": css.index("@media print")}
    block = css[start[theme] : css.index("}", start[theme])]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    texts = [
        (text, ground) for text in ("ink", "soft", "link", "good", "bad") for ground in ("ground", "panel")
    ]
    for text, ground in [*texts, ("bad", "bad-ground")]:
        assert contrast_of(colours[text], colours[ground]) >= 4.5, (text, ground)  # AA for text
    for shape in ("up", "down"):
        assert contrast_of(colours[shape], colours["ground"]) >= 3, shape  # AA for graphics
        assert contrast_of(colours[shape], colours["panel"]) >= 3, shape


def test_what_scrolls_can_be_reached_and_shows_it(written):
    page = Page((written / "page.html").read_text())
    regions = [attrs for attrs in page.all("div") if attrs.get("class") == "scroll"]
    assert regions
    assert all(
        each["tabindex"] == "0" and each["role"] == "region" and each["aria-label"] for each in regions
    )
    css = (TEMPLATES / "style.css").read_text()
    assert re.search(r"a:focus-visible, \[tabindex\]:focus-visible \{ outline: \d+px solid", css)
    assert "outline: none" not in css


def spotted(tmp_path, shape, rows, columns):
    """A map of an image that is 0 but for a box of ones, with one small entry far away."""
    W = np.zeros((*shape, 2))
    W[rows, columns, 0] = 1
    W[0, 0, 0] = 0.5
    path = dense(tmp_path / "spot.onnx", [1, 1, *shape], W.reshape(-1, 2))
    return ilin.compile(path).at(np.ones((1, 1, *shape), np.float32))


def test_a_small_place_is_framed_and_shown_larger(tmp_path):
    affine = spotted(tmp_path, (224, 224), slice(100, 120), slice(150, 180))
    affine.report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    found = re.search(r"rows (\d+) to (\d+), columns (\d+) to (\d+)", text)
    top, bottom, left, right = map(int, found.groups())
    assert top <= 100 and bottom >= 117 and left <= 150 and right >= 177  # nine tenths of its rows at least
    assert bottom - top < 40 and right - left < 50
    larger = [image for image in page.all("img") if "larger" in image["alt"]]
    assert {(image["width"], image["height"]) for image in larger} == {
        (str(right - left + 1), str(bottom - top + 1))
    }
    assert all(found[0] in image["alt"] for image in larger)
    frames = [rect for rect in page.all("rect") if rect.get("class") == "over"]
    sides = {tuple(float(rect[side]) for side in ("x", "y", "width", "height")) for rect in frames}
    assert sides == {(left, top, right - left + 1, bottom - top + 1)}
    assert [script["type"] for script in page.all("script")] == ["application/json"]


@pytest.mark.parametrize(
    ("shape", "box"),
    [((32, 32), (slice(3, 5), slice(3, 5))), ((224, 224), (slice(None), slice(10, 200)))],
    ids=["small", "spread out"],
)
def test_no_place_is_framed(tmp_path, shape, box):
    spotted(tmp_path, shape, *box).report(tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert not [rect for rect in page.all("rect") if rect.get("class") == "over"]


@pytest.mark.parametrize("length", [64, 1000, 44_100])
def test_the_place_holds_what_it_says(length):
    rng = np.random.default_rng(length)
    values = 1e-6 * rng.normal(size=(1, length))
    values[0, length // 2 : length // 2 + 9] += 5
    spot = spot_of(values)
    share = np.abs(values[0, spot.left : spot.right]).sum() / np.abs(values).sum()
    assert spot.share == pytest.approx(share, rel=1e-12)
    assert share > 0.8
    assert length // 2 - spot.left <= 9 and spot.right - length // 2 <= 18
    np.testing.assert_array_equal(spot.of(values), values[:, spot.left : spot.right])
    assert spot_of(np.zeros((1, length))) is None


def test_entries_without_order_are_no_curve(tmp_path):
    W = np.random.default_rng(0).normal(size=(191, 2))
    affine = ilin.compile(dense(tmp_path / "m.onnx", [1, 191], W)).at(np.ones((1, 191), np.float32))
    affine.report(tmp_path / "entries.html")
    affine.report(tmp_path / "steps.html", layout="nl")
    entries, steps = ((tmp_path / f"{name}.html").read_text() for name in ("entries", "steps"))
    assert 'class="chart"' not in entries and 'class="curve"' not in entries
    assert 'class="curve"' in steps and "<span>step 0</span><span>190</span>" in steps
    from matplotlib.figure import Figure

    axes = affine.plot(0, ax=Figure().subplots())
    want = np.sort(np.abs(W[:, 0].astype(np.float32)))[::-1][:20]
    np.testing.assert_allclose([abs(bar.get_width()) for bar in axes.patches], want)


def test_a_curve_tells_its_range_once(tmp_path):
    rng = np.random.default_rng(1)
    path = dense(tmp_path / "m.onnx", [1, 2, 90], rng.normal(size=(180, 2)))
    x = rng.normal(size=(1, 2, 90)).astype(np.float32)
    ilin.compile(path).at(x).report(tmp_path / "page.html")
    body = re.sub(r'aria-label="[^"]*"|<data value="[^"]*">', "", (tmp_path / "page.html").read_text())
    for channel in x[0]:
        low, high = (number(float(each)) for each in (channel.min(), channel.max()))
        assert body.count(f"from {low}, at the bottom, to {high}") == 1
        assert f"{low} to {high}" not in body


@pytest.mark.parametrize(
    ("value", "text", "sentence"),
    [
        (1.251e-8, "1.251×10⁻⁸", "0.000\u202f000\u202f013"),
        (1.2e-13, "1.200×10⁻¹³", "1.200×10⁻¹³"),
        (0.0001202, "0.0001202", "0.000\u202f12"),
        (27.754, "27.75", "27.75"),
        (1.5e7, "1.500×10⁷", "1.500×10⁷"),
        (0.0, "0", "0"),
    ],
)
def test_numbers(value, text, sentence):
    assert (number(value), written_out(value)) == (text, sentence)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.25e-8, "about one part in 80 million"),
        (1 / 8319, "about one part in 8,300"),
        (0.0316, "3.2 %"),
        (2.53, "253 %"),
        (1e-17, "less than one part in a million billion"),
    ],
)
def test_parts(share, text):
    assert part(share) == text


def test_a_number_too_small_for_its_column_is_no_zero():
    assert number(2.5e-5, 0.9, signed=True) == "+2.500×10⁻⁵"
    assert number(-1e-17, 0.9, signed=True) == "0.0000"  # rounding


def test_distances_stand_beside_something_known(tmp_path, digits):
    digits.report(tmp_path / "a.html", row=4, against=7)
    text = (tmp_path / "a.html").read_text()
    radius, span = digits.region.radius(2).distance, float(np.ptp(digits.x))
    assert (
        f"{written_out(radius)} (about one part in {float(f'{span / radius:.2g}'):,.0f} of the input’s"
        in text
    )
    W = np.array([[1.0, -1], [0, 2], [3, 1]])
    affine = ilin.compile(dense(tmp_path / "m.onnx", [1, 3], W)).at(np.array([[100, 2, 5]], np.float32))
    affine.report(tmp_path / "b.html", feature_names=["age", "dose", "time"])  # in three units: no range
    text = (tmp_path / "b.html").read_text()
    shares = np.abs(affine.ledger(0, against=1).boundary.nearest(2).step) / np.abs([100, 2, 5])
    name = ["age", "dose", "time"][int(np.argmax(shares))]
    assert f"(most of all {name} by {part(float(shares.max()))})" in text
    assert "the input’s range" not in text


def test_the_command_explains_the_output_that_is_named(tmp_path):
    result = command(
        *(DIGITS / "model.onnx", DIGITS / "x.npy", "--explain", "3", "--against", "-1", "-q"),
        *("--report", tmp_path / "p.html", "--plot", tmp_path / "p.svg"),
    )
    assert result.exit_code == 0, result.output
    document = Page((tmp_path / "p.html").read_text()).document
    assert (document["explained"]["row"], document["against"]["row"]) == (3, 9)


@pytest.mark.parametrize(
    ("shape", "asked", "form", "ordered"),
    [
        ((1, 3, 32, 32), "auto", "image", (3, 32, 32)),
        ((1, 32, 32, 3), "auto", "image", (3, 32, 32)),
        ((1, 64, 8, 8), "nhwc", "image", (8, 64, 8)),
        ((1, 2, 100), "auto", "sequence", (2, 100)),
        ((1, 100, 2), "auto", "sequence", (2, 100)),
        ((1, 784), "HW=28x28", "image", (1, 28, 28)),
        ((1, 30), "auto", "entries", (30,)),
        ((1, 3, 32, 32), "entries", "entries", (3072,)),
    ],
)
def test_layouts(shape, asked, form, ordered):
    layout = layouts_of({"x": shape}, asked)["x"]
    values = np.arange(math.prod(shape)).reshape(shape)
    assert layout.form == form
    assert layout.ordered(values).shape == ordered


def test_images_of_both_layouts_show_the_same_map(tmp_path):
    rng = np.random.default_rng(0)
    W, x = rng.normal(size=(3, 6, 5, 2)), rng.normal(size=(1, 3, 6, 5)).astype(np.float32)
    first = dense(tmp_path / "a.onnx", [1, 3, 6, 5], W.reshape(90, 2))
    last = dense(tmp_path / "b.onnx", [1, 6, 5, 3], W.transpose(1, 2, 0, 3).reshape(90, 2))
    drawn = []
    for path, point in ((first, x), (last, x.transpose(0, 2, 3, 1).copy())):
        affine = ilin.compile(path).at(point)
        axes = affine.plot(0)
        drawn.append(axes.images[0].get_array())
        assert -axes.images[0].norm.vmin == axes.images[0].norm.vmax  # zero is in the middle
    want = (W[..., 0] * x[0]).sum(axis=0)
    np.testing.assert_allclose(drawn[0], want, rtol=1e-5)
    np.testing.assert_allclose(drawn[1], want, rtol=1e-5)


def test_bars_are_named_and_sorted(tmp_path):
    W = np.array([[1.0, 0], [-5, 0], [2, 0]])
    affine = ilin.compile(dense(tmp_path / "m.onnx", [1, 3], W)).at(np.ones((1, 3), np.float32))
    from matplotlib.figure import Figure

    own = Figure().subplots()
    axes = affine.plot(0, feature_names=["age", "dose", "$x$"], ax=own)
    assert axes is own
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dose", r"\$x\$", "age"]
    assert [bar.get_width() for bar in axes.patches] == [-5, 2, 1]


def test_notebooks_show_the_facts(digits):
    ledger = digits.ledger(4, against=7)
    assert f"{ledger.sum:+.3f}" in ledger._repr_html_()
    assert "verified against onnxruntime" in digits.certificate._repr_html_()
    assert "10 × 64" in digits._repr_html_()
    assert "logits" in ilin.compile(DIGITS / "model.onnx")._repr_html_()


def test_xarray_holds_the_map(digits):
    pytest.importorskip("xarray")
    (name,) = digits.inputs
    data = digits.to_xarray()
    parts = data[f"contributions:{name}"]
    assert parts.dims == ("row", *(f"{name}_{axis}" for axis in range(4)))
    sums = parts.sum([dim for dim in parts.dims if dim != "row"]) + data["b"]
    np.testing.assert_allclose(sums, data["value"], atol=1e-4)
    np.testing.assert_array_equal(data[f"W:{name}"].values.reshape(10, 64), digits.W)


@pytest.fixture
def asked():
    """Paths that anybody asked a server on this machine for, and its address."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield paths, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def browse(page, width, profile):
    """The page's elements as Chromium has them, and what it logs."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    run = subprocess.run(
        [CHROMIUM, *options, f"--user-data-dir={profile}", f"--window-size={width},800", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr[-1000:]
    return Page(run.stdout), run.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [360, 1000])
def test_in_a_browser(written, tmp_path, width):
    source = Page((written / "page.html").read_text())
    rendered, log = browse(written / "page.html", width, tmp_path / "profile")
    assert "CONSOLE" not in log  # where it would say of a refused request, too
    assert rendered.values == source.values
    assert rendered.document == source.document


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_asks_for_nothing(tmp_path, asked):
    paths, address = asked
    image = f'<img src="{address}/x.png">'
    (tmp_path / "control.html").write_text(f"<!doctype html><title>control</title>{image}")
    browse(tmp_path / "control.html", 800, tmp_path / "profile")
    assert "/x.png" in paths  # as a request would be seen
    paths.clear()
    model = dense(tmp_path / "m.onnx", [1, 3], np.eye(3), name=image)
    affine = ilin.compile(model).at(np.ones((1, 3), np.float32))
    affine.report(tmp_path / "page.html", class_names=[image, image + "1", image + "2"])
    _, log = browse(tmp_path / "page.html", 800, tmp_path / "profile")
    assert "CONSOLE" not in log
    assert not paths
