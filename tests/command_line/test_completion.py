"""Completion in the shell, switched on as docs/reference/command-line.md says: the words that are offered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "ilin-compile": "from ilin.__main__ import compile_main; compile_main()",
    "ilin": "from ilin.__main__ import main; main()",
}


def completing(name, instruction, words="", cursor=""):
    """What a command writes when its completion variable is set."""
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    asked = {variable: instruction, "COMP_WORDS": words, "COMP_CWORD": cursor, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", COMMANDS[name]],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def offered(name, words):
    """(kind, word) pairs that bash is offered for the last word."""
    lines = completing(name, "bash_complete", words, str(words.count(" "))).splitlines()
    return [tuple(line.split(",", 1)) for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("shell", "registers"), [("bash", "complete "), ("zsh", "compdef "), ("fish", "complete ")]
)
def test_each_shell_has_its_script(name, shell, registers):
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version, and there is none here")
    script = completing(name, f"{shell}_source")
    assert registers in script
    assert f"{shell}_complete" in script
    assert name in script


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("ilin-compile", "ilin-compile --lay", [("plain", "--layout")]),
        ("ilin-compile", "ilin-compile --mode ", [("plain", "tangent"), ("plain", "frozen")]),
        ("ilin-compile", "ilin-compile --dtype float6", [("plain", "float64")]),
        ("ilin-compile", "ilin-compile mod", [("file", "mod")]),
        ("ilin-compile", "ilin-compile model.onnx x.npy --report pa", [("file", "pa")]),
        ("ilin", "ilin ins", [("plain", "inspect")]),
        ("ilin", "ilin compile --again", [("plain", "--against")]),
        ("ilin", "ilin inspect --mark", [("plain", "--markdown")]),
        ("ilin", "ilin plan --direction forw", [("plain", "forward")]),
        ("ilin", "ilin verify map", [("file", "map")]),
    ],
)
def test_words_are_completed(name, words, expected):
    assert offered(name, words) == expected


def test_zsh_and_fish_are_offered_the_same():
    zsh = completing("ilin-compile", "zsh_complete", "ilin-compile --lay", "1").splitlines()
    assert zsh[:2] == ["plain", "--layout"]
    fish = completing("ilin-compile", "fish_complete", "ilin-compile --lay", "--lay")
    assert fish.startswith("plain,--layout")
