"""A map written to a folder: in pieces, after every kind of interruption, and never mixed with another."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import ilin
from ilin.runtime import folder as module
from ilin.runtime.folder import Plan, entries_of_map, finish, opened, settings_of, write_rows

RANDOM = np.random.default_rng(3)
K, N, LAYERS = 11, 5, 3
W = RANDOM.standard_normal((40, N)).astype(np.float32)
W[6, 2:] = 0
SHARES = RANDOM.standard_normal((LAYERS, 40))
NUMBERS = RANDOM.standard_normal((40, 2)) ** 2
ROWS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 35, 39, 0])
FLOAT32 = np.dtype(np.float32)
PLAN = Plan({"dtype": "float32", "x": "a" * 64}, ROWS, entries_of_map(N, LAYERS, FLOAT32))


def rows_of_w(rows):
    """Computed elsewhere: rows of W, shares, and numbers of which the largest counts."""
    return blocks_of(W[rows], SHARES[:, rows]), NUMBERS[rows].max(axis=0)


def blocks_of(W, shares):
    return {"W": W, "b": shares.sum(axis=0), "bias_shares": shares.T}


class Stop:
    """Progress that raises after so many rows."""

    def __init__(self, at, error):
        self.at, self.error = at, error

    def __call__(self, done, total):
        assert total == K
        if done >= self.at:
            raise self.error


def assert_whole(folder, written):
    found, b, shares = opened(folder)
    np.testing.assert_array_equal(found, W[ROWS])
    np.testing.assert_array_equal(shares, SHARES[:, ROWS])
    np.testing.assert_allclose(b, SHARES[:, ROWS].sum(axis=0), rtol=1e-6)
    assert b.dtype == np.float32
    assert written.rows_done == K
    assert written.nonzero == np.count_nonzero(W[ROWS])
    np.testing.assert_array_equal(written.worst, NUMBERS[ROWS].max(axis=0))


@pytest.mark.parametrize("block", [1, 2, 4, 11, 100])
def test_blocks_of_any_size_make_the_same_files(tmp_path, block):
    calls = []
    written = write_rows(
        tmp_path / "map", PLAN, rows_of_w, block=block, progress=lambda *done: calls.append(done)
    )
    assert_whole(tmp_path / "map", written)
    assert calls == [(min(K, first + block), K) for first in range(0, K, block)]
    assert isinstance(opened(tmp_path / "map")[0], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened(tmp_path / "map")[0][0] = 1


@pytest.mark.parametrize("at", [1, 4, 8, 11])
def test_goes_on_after_an_interruption_with_blocks_of_another_size(tmp_path, at):
    asked = []

    def counted(rows):
        asked.extend(rows)
        return rows_of_w(rows)

    with pytest.raises(
        KeyboardInterrupt, match=r"\d+ of 11 rows are finished in .*map, and the same command"
    ):
        write_rows(tmp_path / "map", PLAN, counted, block=3, progress=Stop(at, KeyboardInterrupt()))
    written = write_rows(tmp_path / "map", PLAN, counted, block=2)
    assert asked == ROWS.tolist()  # every row once
    assert_whole(tmp_path / "map", written)
    assert write_rows(tmp_path / "map", PLAN, counted, block=2) == written
    assert len(asked) == K


def test_a_block_counts_only_when_all_its_files_are_written(tmp_path, monkeypatch):
    put = module._File.put

    def failing(self, first, block):
        if self.path.name == "bias_shares.npy" and first == 6:
            raise OSError(28, "No space left on device")
        put(self, first, block)

    monkeypatch.setattr(module._File, "put", failing)
    with pytest.raises(ilin.OutputError, match=r"cannot write to .*map: No space left on device"):
        write_rows(tmp_path / "map", PLAN, rows_of_w, block=3)
    assert json.loads((tmp_path / "map" / "progress.json").read_text())["rows_done"] == 6
    monkeypatch.setattr(module._File, "put", put)
    assert_whole(tmp_path / "map", write_rows(tmp_path / "map", PLAN, rows_of_w, block=3))


def test_another_map_is_refused_by_what_differs(tmp_path):
    folder = tmp_path / "map"
    with pytest.raises(KeyboardInterrupt):
        write_rows(folder, PLAN, rows_of_w, block=3, progress=Stop(3, KeyboardInterrupt()))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = replace(PLAN, identity={"dtype": "float64", "x": "b" * 64})
    with pytest.raises(ilin.OutputError) as caught:
        write_rows(folder, other, rows_of_w, block=3)
    assert str(caught.value) == (
        f"{folder} holds 3 of 11 rows of another map: dtype is float32 there and float64 here; x is "
        "aaaaaaaaaaaa… there and bbbbbbbbbbbb… here; choose another folder, or delete this one to start over"
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ilin.OutputError, match="is not empty, and holds no map that was begun"):
        write_rows(tmp_path, PLAN, rows_of_w, block=3)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_damaged_progress_is_told(tmp_path):
    write_rows(tmp_path / "map", PLAN, rows_of_w, block=3)
    (tmp_path / "map" / "progress.json").write_text('{"rows": 3}')
    with pytest.raises(ilin.OutputError, match=r"progress.json is damaged: .*; delete .*map to start over"):
        write_rows(tmp_path / "map", PLAN, rows_of_w, block=3)
    with pytest.raises(ilin.OutputError, match=r"progress.json is damaged"):
        ilin.load(tmp_path / "map")


def test_the_space_on_disk_is_checked_before_anything_is_computed(tmp_path, monkeypatch):
    needed = K * (N * 4 + 4 + LAYERS * 8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(ilin.OutputError, match=r"the rows need 528 B on disk, but .*map has 527 B free; ask"):
        write_rows(tmp_path / "map", PLAN, lambda _: pytest.fail("computed"), block=3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "map", PLAN, rows_of_w, block=3, progress=Stop(6, KeyboardInterrupt()))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed * 5 // 11))
    assert_whole(tmp_path / "map", write_rows(tmp_path / "map", PLAN, rows_of_w, block=3))


def test_two_runs_do_not_write_at_once(tmp_path):
    pytest.importorskip("fcntl", reason="no file locks")

    def second(done, total):
        with pytest.raises(ilin.OutputError, match=r"another run is writing to .*map"):
            write_rows(tmp_path / "map", PLAN, rows_of_w, block=3)

    assert_whole(tmp_path / "map", write_rows(tmp_path / "map", PLAN, rows_of_w, block=3, progress=second))


def test_where_it_cannot_write(tmp_path):
    with pytest.raises(ilin.OutputError, match="No such file or directory"):
        write_rows(tmp_path / "missing" / "map", PLAN, rows_of_w, block=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(ilin.OutputError, match=r"cannot write to .*file: "):
        write_rows(tmp_path / "file", PLAN, rows_of_w, block=3)
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.access(tmp_path / "closed", os.W_OK):
        return  # root may write anywhere
    with pytest.raises(ilin.OutputError, match="Permission denied"):
        write_rows(tmp_path / "closed", PLAN, rows_of_w, block=3)


def test_a_number_that_is_no_number_is_not_forgotten(tmp_path):
    def odd(rows):
        return blocks_of(W[rows], SHARES[:, rows]), np.array([np.nan if 5 in rows else 1.0, 2.0])

    written = write_rows(tmp_path / "map", PLAN, odd, block=2)
    assert np.isnan(written.worst[0])
    assert written.worst[1] == 2
    assert np.isnan(write_rows(tmp_path / "map", PLAN, odd, block=2).worst[0])


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 0), (0, 0)])
def test_maps_without_rows_or_columns(tmp_path, k, n):
    plan = Plan({}, np.arange(k), entries_of_map(n, LAYERS, FLOAT32))
    write_rows(tmp_path, plan, lambda rows: (blocks_of(W[rows, :n], SHARES[:, rows]), np.zeros(1)), block=2)
    finish(tmp_path, {}, {})
    found, b, shares = opened(tmp_path)
    assert (found.shape, b.shape, shares.shape) == ((k, n), (k,), (LAYERS, k))


def test_loading_what_is_no_finished_map(tmp_path):
    with pytest.raises(ilin.OutputError, match="is a folder without a map saved by ilin"):
        ilin.load(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "map", PLAN, rows_of_w, block=3, progress=Stop(6, KeyboardInterrupt()))
    with pytest.raises(ilin.OutputError, match="holds 6 of 11 rows; the command that wrote them goes on"):
        ilin.load(tmp_path / "map")


def test_those_that_go_on_learn_how_it_was_begun(tmp_path):
    assert settings_of(tmp_path / "map") == {}
    with pytest.raises(KeyboardInterrupt):
        write_rows(
            tmp_path / "map",
            replace(PLAN, settings={"budget": 7}),
            rows_of_w,
            block=3,
            progress=Stop(6, KeyboardInterrupt()),
        )
    assert settings_of(tmp_path / "map") == {"budget": 7}


def test_an_interruption_of_what_the_rows_are_made_of_is_told_as_such(tmp_path):
    def rows_of(rows):
        write_rows(
            tmp_path / "map" / "inner", PLAN, rows_of_w, block=3, progress=Stop(6, KeyboardInterrupt())
        )

    with pytest.raises(KeyboardInterrupt, match=r"6 of 11 rows are finished in .*map/inner"):
        write_rows(tmp_path / "map", PLAN, rows_of, block=3)
