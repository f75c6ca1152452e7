"""Every code block of the README and the docs runs as it stands.

A page's blocks run in order and in one folder, which holds `examples/` and, as `model.onnx` and `x.npy`, the
digits example. Python blocks of a page share their names. A block that cannot run here is preceded by a
comment, `<!-- not run: why -->`; blocks of other languages are shown, not run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>python|sh)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = re.compile(r"<!-- not run: .+? -->\s*$", re.DOTALL)
LEFT_OUT = 12  # blocks that only install something or take minutes: this number does not grow unnoticed


def blocks_of(page):
    """(line, language, code) of the blocks that run, and how many do not."""
    text = page.read_text()
    found, left_out = [], 0
    for match in BLOCK.finditer(text):
        if NOT_RUN.search(text[: match.start()]):
            left_out += 1
            continue
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        found.append((text[: match.start()].count("\n") + 2, match["language"], code))
    return found, left_out


WITH_BLOCKS = [page for page in PAGES if blocks_of(page)[0]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name in ("model.onnx", "x.npy"):
        shutil.copy(ROOT / "examples" / "digits" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs(page, folder):
    script = []
    for line, language, code in blocks_of(page)[0]:
        if language == "sh":
            code = f"__import__('subprocess').run(['bash', '-euo', 'pipefail', '-c', {code!r}], check=True)\n"
        script.append("\n" * (line - 1 - "".join(script).count("\n")) + code)
    # The page's own line numbers stand in a traceback. A process of its own takes the page's rules with it.
    (folder / "page.py").write_text("".join(script))
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(
        [sys.executable, "page.py"],
        env={**os.environ, "PATH": commands, "MPLBACKEND": "Agg", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:] + run.stdout[-1000:]


def test_few_blocks_are_left_out():
    left_out = {str(page.relative_to(ROOT)): blocks_of(page)[1] for page in PAGES}
    assert sum(left_out.values()) <= LEFT_OUT, left_out
    assert sum(len(blocks_of(page)[0]) for page in PAGES) > LEFT_OUT
