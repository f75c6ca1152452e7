"""--out-dir: the same answer in a folder, what is refused, and Ctrl-C in a real process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ilin as library

from .models import C, W, X, write

ROOT = Path(__file__).parents[2]


def test_a_folder_holds_the_map_and_the_summary_is_the_same(model, x, tmp_path, ilin_compile):
    result = ilin_compile(model, x, "--out-dir", tmp_path / "map")
    assert result.exit_code == 0
    assert result.stderr == f"note: wrote {tmp_path / 'map'}\n"
    plain = ilin_compile(model, x)
    # But for the time it took, and for bounds: in a folder each row has its own, in memory all rows have one.
    ours, theirs = (
        [re.sub(r" +[\d.e-]+ %$", "", line) for line in each.stdout.splitlines()[:-1]]
        for each in (result, plain)
    )
    assert ours == theirs
    affine = library.load(tmp_path / "map")
    np.testing.assert_allclose(affine.W, W, atol=1e-5)
    np.testing.assert_allclose(affine.b, C, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "map").iterdir()) == [
        "W.npy",
        "b.npy",
        "bias_shares.npy",
        "bounds.npy",
        "header.json",
        "inside0.npy",
        "inside_bounds.npy",
        "progress.json",
        "rows.npy",
        "x0.npy",
        "y0.npy",
        "z0.npy",
    ]


def test_json_names_the_folder(model, x, tmp_path, ilin_compile):
    document = json.loads(
        ilin_compile(model, x, "--json", "--rows", "top2", "--out-dir", tmp_path / "m").stdout
    )
    assert document["saved"] == str(tmp_path / "m")
    assert document["map"]["rows"] == [2, 1]
    assert document["map"]["nnz"] == np.count_nonzero(W[[2, 1]])


def test_several_instances_go_to_numbered_folders(model, tmp_path, ilin_compile):
    several = write(tmp_path / "several.npy", np.concatenate([X, -X]))
    result = ilin_compile(model, several, "--out-dir", tmp_path / "map")
    assert result.exit_code == 0
    assert f"note: wrote 2 folders, {tmp_path / 'map.0'} to {tmp_path / 'map.1'}\n" in result.stderr
    np.testing.assert_allclose(library.load(tmp_path / "map.0").W, W, atol=1e-5)
    np.testing.assert_array_equal(library.load(tmp_path / "map.1").x, -X)


def test_the_same_command_again_and_another_one(model, x, tmp_path, ilin_compile, refused):
    first = ilin_compile(model, x, "--out-dir", tmp_path / "map")
    again = ilin_compile(model, x, "--out-dir", tmp_path / "map")
    assert again.exit_code == 0
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
    message = refused(model, x, "--out-dir", tmp_path / "map", "--rows", "0")
    assert message.startswith(
        f"{tmp_path / 'map'} holds 3 of 3 rows of another map: rows (their SHA-256) is "
    )
    assert message.endswith("choose another folder, or delete this one to start over")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("file", "cannot write to {0}: it is not a folder"),
        ("nowhere", "cannot make {0}: no such folder: {1}"),
        ("full", "{0} is not empty, and holds no map that was begun; choose another folder, or empty it"),
    ],
)
def test_places_that_cannot_be(made, message, model, x, tmp_path, refused):
    place = tmp_path / "a" / "b" if made == "nowhere" else tmp_path / "a"
    if made == "file":
        place.write_text("")
    if made == "full":
        place.mkdir()
        (place / "notes.txt").write_text("")
    assert refused(model, x, "--out-dir", place) == message.format(place, place.parent)


def test_a_file_and_a_folder_at_once(model, x, tmp_path, refused):
    message = refused(model, x, "--out-dir", tmp_path / "a", "-o", tmp_path / "b.npz")
    assert message.startswith("-o and --out-dir exclude each other: one file, or a folder of blocks")


def test_a_map_too_large_for_memory_names_the_way_out(identity, tmp_path, refused, ilin_compile):
    ones = write(tmp_path / "ones.npy", np.ones((1, 1000), np.float32))
    assert "--out-dir DIR" in refused(identity, ones, "--memory-limit", "1MB")
    result = ilin_compile(identity, ones, "--memory-limit", "1MB", "--out-dir", tmp_path / "map")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(library.load(tmp_path / "map").W, np.eye(1000))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_and_started_again(how, identity, tmp_path):
    ones = write(tmp_path / "ones.npy", np.ones((1, 1000), np.float32))
    code = (
        "from ilin.command_line import compile_main, run; from ilin.compiler import to_folder;"
        "to_folder._BLOCK = 20_000; compile_main()"
    )
    command = [sys.executable, "-c", code, str(identity), str(ones), "--out-dir", str(tmp_path / "map")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    progress = tmp_path / "map" / "progress.json"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (
        progress.exists() and '"rows_done": 0' not in progress.read_text()
    ):
        time.sleep(0.002)
    child.send_signal(how)
    stdout, stderr = child.communicate(timeout=60)
    done = json.loads(progress.read_text())["rows_done"]
    assert 0 < done < 1000, "the process was not stopped in between"
    if how == signal.SIGINT:
        assert (child.returncode, stdout) == (130, "")
        folder = re.escape(str(tmp_path / "map"))
        told = re.fullmatch(
            rf"error: interrupted; (\d+) of 1,000 rows are finished in {folder}, "
            r"and the same command goes on from there\n",
            stderr,
        )
        assert told, stderr
        assert int(told[1]) <= done  # never more than there is
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(library.load(tmp_path / "map").W, np.eye(1000))
