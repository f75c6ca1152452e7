"""What importing costs and what it claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ilin

HEAVY = ("onnxruntime", "matplotlib", "rich", "scipy.sparse.linalg", "onnx.reference", "torch", "pandas")


def test_importing_ilin_stays_light():
    code = f"import sys, ilin; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists_and_is_documented():
    for name in ilin.__all__:
        value = getattr(ilin, name)
        assert name == "__version__" or value.__doc__, name


def test_the_package_is_typed():
    assert (Path(ilin.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [("--report=out.html", "pip install 'ilin[report]'"), ("--plot=out.png", "pip install 'ilin[plot]'")],
)
def test_without_the_extras_their_options_are_refused_in_one_line(tmp_path, option, message):
    missing = dict.fromkeys(("jinja2", "markupsafe", "matplotlib", "PIL"))
    digits = Path(__file__).parents[2] / "examples" / "digits"
    command = ["compile", str(digits / "model.onnx"), str(digits / "x.npy"), option]
    code = f"import sys; sys.modules.update({missing}); sys.argv[1:] = {command}\n"
    code += "from ilin.command_line import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
