"""Around the commands: real processes, streams, terminals, signals, and what is imported."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from onnx import helper

from ilin import __version__
from ilin.command_line import _progress
from ilin.command_line._progress import Meter, telling
from ilin.compiler.pipeline import CompiledModel

from .models import X, save, tensor, write

pty = pytest.importorskip("pty", reason="needs POSIX terminals")

ROOT = Path(__file__).parents[2]
COMPILE = "from ilin.command_line import compile_main; compile_main()"
MAIN = "from ilin.command_line import main; main()"


def process(code, *arguments, **options):
    """Run a command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, text=True, timeout=120, **options)


def on_a_terminal(code, *arguments, env=None):
    """The same with both streams on a terminal; returns the exit code and what it shows."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80", **(env or {})}
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return child.wait(timeout=120), shown.decode()


def test_a_real_run(model, x):
    result = process(COMPILE, model, x, capture_output=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("model      model.onnx: by hand, opset 17, 3 nodes\n")


def test_errors_of_a_real_run(model, tmp_path):
    result = process(COMPILE, model, tmp_path / "none.npy", capture_output=True)
    expected = (2, "", f"error: no such file: {tmp_path / 'none.npy'}\n")
    assert (result.returncode, result.stdout, result.stderr) == expected


@pytest.mark.parametrize(
    ("code", "name"), [(COMPILE, "ilin-compile"), (MAIN, "ilin")], ids=["ilin-compile", "ilin"]
)
def test_help(code, name):
    result = process(code, "--help", capture_output=True)
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: {name} ")
    assert max(map(len, result.stdout.split("\n"))) <= 80


def test_version(ilin, ilin_compile):
    assert ilin("--version").stdout == f"ilin {__version__}\n"
    assert ilin_compile("--version").stdout == f"ilin-compile {__version__}\n"


def test_help_teaches(ilin_compile):
    text = ilin_compile("--help").stdout
    for part in ("Examples:", "Exit codes:", "What -o holds:", "--rows top5", "0  done and verified"):
        assert part in text


def test_messages_of_c_libraries_stay_away(tmp_path):
    """onnx.checker prints a warning for these from C++, and on standard output."""
    nodes = [helper.make_node("ParametricSoftplus", ["x"], ["y"], "soft")]
    path = save(tmp_path / "old.onnx", nodes, [tensor("x", [1, 3, 2, 2])], [tensor("y", [1, 3, 2, 2])])
    result = process(COMPILE, path, write(tmp_path / "x.npy", X), capture_output=True)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("error: node 'soft' (ParametricSoftplus")
    assert result.stderr.count("\n") == 1


def test_the_reader_goes_away(model, x):
    """Standard output is a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    result = process(COMPILE, model, x, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_is_full(model, x):
    with Path("/dev/full").open("w") as full:
        result = process(COMPILE, model, x, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 2
    assert result.stderr == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="needs /dev/stdin")
@pytest.mark.parametrize("piped", ["model", "x"])
def test_one_of_the_inputs_from_standard_input(model, x, piped):
    given = {"model": model, "x": x, piped: "/dev/stdin"}
    content = (model if piped == "model" else x).read_bytes()
    command = [sys.executable, "-c", COMPILE, str(given["model"]), str(given["x"])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, env=environment, input=content, capture_output=True, timeout=120, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"prediction" in result.stdout or b"output" in result.stdout


def test_a_narrow_encoding_is_no_error(model, x, tmp_path):
    path = model.rename(tmp_path / ("long" * 30 + ".onnx"))  # shown with an ellipsis, which Latin-1 lacks
    options = {"encoding": "latin-1", "env": {"PYTHONIOENCODING": "latin-1"}}
    result = process(COMPILE, path, x, capture_output=True, **options)
    assert (result.returncode, result.stderr) == (0, "")
    assert "lo?g" in result.stdout and "input      x 1×4 float32" in result.stdout


def test_colours_on_terminals_only(model, x):
    code, shown = on_a_terminal(COMPILE, model, x, env={"NO_COLOR": None})
    assert code == 0
    assert "\x1b[32m\x1b[1mverified" in shown
    code, shown = on_a_terminal(COMPILE, model, x, env={"NO_COLOR": "1"})
    assert code == 0
    assert "\x1b" not in shown


def test_messages_are_folded_on_terminals_only(model, x):
    arguments = (model, x, "--memory-limit", "1")
    code, shown = on_a_terminal(COMPILE, *arguments, env={"NO_COLOR": "1"})
    lines = shown.replace("\r", "").rstrip("\n").split("\n")
    assert code == 2
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("       ")
    piped = process(COMPILE, *arguments, capture_output=True).stderr
    assert piped.count("\n") == 1
    assert " ".join(shown.split()) == piped.strip()


@pytest.mark.parametrize("command", ["compile", "inspect", "plan", "verify"])
def test_every_command_shows_examples_within_a_terminal(ilin, command):
    text = ilin(command, "--help").stdout
    assert "Examples:" in text and "Exit codes:" in text
    assert "-h, --help" in text
    assert max(map(len, text.split("\n"))) <= 80


def test_a_table_on_a_terminal(model):
    code, shown = on_a_terminal(MAIN, "inspect", model, env={"NO_COLOR": "1"})
    assert code == 0
    lines = [line.split() for line in shown.replace("\r", "").split("\n")]
    assert ["node", "operator", "opset", "verdict"] in lines
    assert ["relu", "Relu", "17", "piecewise-linear"] in lines


def test_rich_is_imported_only_where_it_is_needed(model, x):
    code = (
        f"import sys\ntry:\n    {COMPILE}\nfinally:\n    print(sorted(m for m in sys.modules if m == 'rich'))"
    )
    result = process(code.replace("; ", "\n    "), model, x, "-q", capture_output=True)
    assert result.stdout == "[]\n"


def test_cold_start():
    """`ilin-compile --version` against the imports that no such tool can do without."""

    def seconds(code, *arguments):
        started = time.perf_counter()
        process(code, *arguments, capture_output=True)
        return time.perf_counter() - started

    pairs = [
        (seconds(COMPILE, "--version"), seconds("import onnx, onnxruntime, scipy.sparse")) for _ in range(3)
    ]
    ours, theirs = (min(column) for column in zip(*pairs, strict=True))
    assert ours < 2.5 * theirs


# -- what may happen in between -------------------------------------------------------------------------


def raising(monkeypatch, error):
    def compose(*_arguments, **_options):
        raise error

    monkeypatch.setattr(CompiledModel, "_compose", compose)


@pytest.mark.parametrize("name", ["main", "compile_main"])
def test_interrupted_during_the_imports(name, tmp_path):
    """In place of onnx something that says that it is being imported, and takes its time."""
    (tmp_path / "onnx.py").write_text("import time; print('here', flush=True); time.sleep(60)")
    code = f"from ilin.__main__ import {name}; {name}()"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes) as child:
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=60)
    assert (child.returncode, stdout, stderr) == (130, "", "error: interrupted\n")


def test_interrupted(monkeypatch, ilin_compile, model, x):
    raising(monkeypatch, KeyboardInterrupt())
    result = ilin_compile(model, x)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "error: interrupted\n")


def test_out_of_memory(monkeypatch, refused, model, x):
    raising(monkeypatch, MemoryError("Unable to allocate 437. TiB"))
    expected = "out of memory; ask for fewer rows (--rows top5), or lower --memory-limit"
    assert refused(model, x) == expected


def test_a_bug_shows_its_traceback_where_it_is_asked_for(monkeypatch, ilin_compile, model, x):
    raising(monkeypatch, ZeroDivisionError("a bug"))
    monkeypatch.setenv("ILIN_DEBUG", "1")
    result = ilin_compile(model, x)
    assert result.exit_code == 70
    assert "Traceback (most recent call last)" in result.stderr
    assert "internal error: ZeroDivisionError: a bug" in result.stderr


# -- what the library tells ----------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path):
    """A machine on which no kernel was compiled yet, as numba sees it."""
    return {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}


COMPILING = "note: compiling the kernels for this machine, once: about half a minute\n"


@pytest.mark.slow
def test_compiling_is_told_while_it_happens_and_only_then(model, x, fresh):
    run = partial(process, COMPILE, model, x, "--engine", "fused", capture_output=True, env=fresh)
    assert run().stderr == COMPILING
    assert run().stderr == ""


@pytest.mark.slow
def test_compiling_quietly(model, x, fresh):
    result = process(COMPILE, model, x, "--engine", "fused", "--quiet", capture_output=True, env=fresh)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("module", "told"), [("ilin.runtime.kernels.units", 1), ("somebody.elses", 0)], ids=["ours", "another's"]
)
def test_who_is_compiled_is_told_once(module, told, caplog):
    event = pytest.importorskip("numba.core.event")
    from ilin.runtime.kernels import compiling

    def kernel():
        pass

    kernel.__module__ = module
    teller = compiling._Teller()
    happened = event.Event(
        "numba:compile", event.EventStatus.START, {"dispatcher": SimpleNamespace(py_func=kernel)}
    )
    with caplog.at_level(logging.INFO, logger="ilin"):
        teller.notify(happened)
        teller.notify(happened)
    assert len(caplog.messages) == told


def test_what_is_told_reaches_standard_error_past_all_that_holds_it_back(monkeypatch, capfd):
    from ilin.command_line._guard import native_messages

    with Meter(1, quiet=False) as meter, telling(meter, quiet=False), native_messages(shown=False):
        logging.getLogger("ilin").info("one\nline")
    logging.getLogger("ilin").info("nobody listens now")
    assert capfd.readouterr().err == "note: one line\n"
    with Meter(1, quiet=True) as meter, telling(meter, quiet=True):
        logging.getLogger("ilin").info("nobody listens here either")
    assert capfd.readouterr().err == ""


# -- progress -------------------------------------------------------------------------------------------


class Terminal:
    """A terminal as standard error."""

    def __init__(self, monkeypatch):
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        monkeypatch.setattr(sys, "stderr", os.fdopen(theirs, "w"))
        monkeypatch.setenv("TERM", "xterm")

    def shown(self) -> str:
        try:
            return os.read(self._ours, 65536).decode()
        except BlockingIOError:
            return ""


def test_no_bar_for_short_work(monkeypatch):
    terminal = Terminal(monkeypatch)
    with Meter(1, quiet=False) as meter:
        meter(1, 2)
    assert terminal.shown() == ""


def test_a_bar_for_long_work(monkeypatch):
    monkeypatch.setattr(_progress, "PATIENCE", 0.01)
    terminal = Terminal(monkeypatch)
    with Meter(4, quiet=False) as meter:
        meter.next_instance()
        meter(1, 2)
        deadline, text = time.monotonic() + 20, ""
        while "38%" not in text and time.monotonic() < deadline:
            time.sleep(0.05)
            text += terminal.shown()
        with meter.aside():
            pass
    assert "linearising 2 of 4" in text
    assert "38%" in text


def test_no_bar_where_nobody_looks(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "PATIENCE", 0.0)
    with Meter(1, quiet=False):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


# -- how deeply it verifies ----------------------------------------------------------------------------

DIGITS = [Path(__file__).parents[2] / "examples" / "digits" / name for name in ("model.onnx", "x.npy")]
_MADE_UP = """
import ilin, numpy as np
from ilin import primitives

@ilin.lowers("Relu", kind=ilin.Kind.PIECEWISE_LINEAR, observes=(0,), replace=True)
def relu(site):
    x = site.value()
    on, off = (x > 0).astype(x.dtype), np.zeros_like(x)
    if site.name == "/relu2/Relu":
        on, off = off, np.maximum(x, 0)
    return ilin.Local(primitives.Scale(x.shape, on), off, (ilin.threshold(x),))
"""


def test_where_float32_does_not_test_w_float64_does_by_itself(ilin_compile):
    assert " points in float64 " in ilin_compile(*DIGITS).stdout
    kept = ilin_compile(*DIGITS, "--no-deep").stdout
    assert "W untested: the region is narrower than rounding; --deep tests it" in kept


def test_a_rule_that_makes_up_its_offset_is_found(tmp_path):
    (tmp_path / "made_up.py").write_text(_MADE_UP)
    command = [sys.executable, "-m", "ilin", "compile", *map(str, DIGITS), "--rules", "made_up"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert "W (z - x) differs from the model in float64" in result.stderr
