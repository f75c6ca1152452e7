"""Every example that needs no torch runs as it stands, and the sums it prints hold.

A new script is entered in CHECKS. Pictures are drawn where matplotlib is installed.
"""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ROUNDING = 0.0005  # of a number printed with three decimals


def needs_torch(script):
    nodes = list(ast.walk(ast.parse(script.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return any(name.split(".")[0] in ("torch", "captum") for name in names)


def run(script, folder, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def mistakes(folder, plot):
    printed = run("digits/mistakes.py", folder, *plot)
    cases = re.findall(
        r"read as (\d), verified\n  pixels (\S+) biases (\S+) = (\S+)\n  .* by onnxruntime (\S+)", printed
    )
    assert [case[0] for case in cases] == ["4", "9", "9", "4"]
    for read, *numbers in cases:
        pixels, biases, total, observed = map(float, numbers)
        assert pixels + biases == pytest.approx(total, abs=3 * ROUNDING)
        assert total == pytest.approx(observed, abs=2 * ROUNDING)
        assert (observed > 0) == (read == "4")


def cancer(folder, plot):
    printed = run("cancer/explain.py", folder, *plot)
    assert max(map(len, printed.splitlines())) <= 80
    cases = printed.split("\n\nthe ")[1:]
    assert len(cases) == 2
    for text in cases:
        title, features, kinds = re.split(r"\n  feature .*\n|\n  by kind of measurement\n", text)
        assert title.endswith(", verified")
        lines = features.splitlines()
        *parts, base, total, observed, sklearn = [float(line.split()[-1]) for line in lines]
        assert len(parts) == 9
        for line, amount in zip(lines[:-5], parts[:-1], strict=True):
            value, benign, slope = map(float, line.split()[-4:-1])  # in four digits
            error = 5e-4 * (abs(value) + abs(benign)) * abs(slope) + 5e-4 * abs(amount)
            assert slope * (value - benign) == pytest.approx(amount, abs=error + ROUNDING)
        assert sum(parts) + base == pytest.approx(total, abs=11 * ROUNDING)
        assert total == pytest.approx(observed, abs=2 * ROUNDING)
        assert sklearn == pytest.approx(observed, abs=4 * ROUNDING)  # the model is in float32
        groups = [float(line.split()[-1]) for line in kinds.splitlines() if line.startswith("    ")]
        assert len(groups) == 3
        assert sum(groups) == pytest.approx(sum(parts), abs=12 * ROUNDING)
        assert ("classified malignant" in title) == (observed > 0)


def picture(folder, plot):
    if not plot:
        pytest.skip("matplotlib is not installed")
    run("digits/picture.py", folder, plot[1])


def images(folder, plot):
    if not plot:
        pytest.skip("matplotlib is not installed")
    digits = EXAMPLES / "digits"
    printed = run("images/explain.py", folder, digits / "model.onnx", digits / "x.npy", *plot)
    assert "piecewise-linear, verified" in printed
    rows = re.findall(r"^output \d +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        score, pixels, offset = map(float, row)
        assert score == pytest.approx(pixels + offset, abs=0.01)  # four digits of numbers up to 30


CHECKS = {
    "cancer/explain.py": cancer,
    "digits/mistakes.py": mistakes,
    "digits/picture.py": picture,
    "images/explain.py": images,
}
ELSEWHERE = {"tsne/explain.py", "tsne/images.py"}  # test_tsne.py


@pytest.mark.parametrize("script", CHECKS)
def test_an_example_runs_and_its_sums_hold(script, tmp_path):
    plot = ("--plot", "picture.png") if importlib.util.find_spec("matplotlib") else ()
    CHECKS[script](tmp_path, plot)
    if plot:
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_every_example_without_torch_is_checked():
    scripts = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py") if not needs_torch(path)}
    assert scripts == set(CHECKS) | ELSEWHERE
