"""What importing costs and what it claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
