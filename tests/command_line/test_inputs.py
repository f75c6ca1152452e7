"""Reading X: which files are refused, in which words, and which hold several instances."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from ilin.command_line.inputs import instances, read
from ilin.compiler.graph import TensorInfo
from ilin.runtime.errors import InputError

from .models import write

FLOAT = np.dtype(np.float32)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    return str(caught.value)


def npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def test_npy_and_npz_are_told_apart_by_content(tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path / "x.npy", np.arange(3))), [0, 1, 2])
    np.savez(tmp_path / "named.npz", a=np.arange(2))
    named = read((tmp_path / "named.npz").rename(tmp_path / "named.npy"))
    assert isinstance(named, dict) and list(named) == ["a"]


def test_no_such_file(tmp_path):
    assert refused(tmp_path / "x.npy") == f"no such file: {tmp_path / 'x.npy'}"


def test_a_folder(tmp_path):
    assert refused(tmp_path) == f"cannot read {tmp_path}: Is a directory"


@pytest.mark.parametrize(
    ("content", "guess"),
    [(b"1.0, 2.0\n", " (it looks like text)"), (b"", " (it is empty)"), (b"\x80\x04\x95\x00\x00\x00", "")],
    ids=["text", "empty", "pickle"],
)
def test_not_a_numpy_file(tmp_path, content, guess):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    expected = f"{path} is not a .npy or .npz file{guess}; write it with numpy.save or numpy.savez"
    assert refused(path) == expected


def test_python_objects_are_not_loaded(tmp_path):
    path = write(tmp_path / "x.npy", np.array([1, None], object), allow_pickle=True)
    assert refused(path) == (
        f"{path} holds Python objects (dtype object), which are not loaded, as they can run code; "
        "save plain numbers: numpy.save(path, numpy.asarray(x, dtype=numpy.float32))"
    )


def test_python_objects_in_an_archive_are_not_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([1, None], object))
    assert "holds Python objects (dtype object)" in refused(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "content",
    [
        npy(np.zeros((3, 4)))[:-5],
        npy(np.zeros((3, 4)))[:40],
        npy(np.zeros((3, 4))).replace(b"(3, 4)", b"(10000000000,1000)"),
        npy(np.zeros((3, 4))).replace(b"(3, 4)", b"(300000000000000000000000,)"),
        npy(np.zeros((3, 4))).replace(b"(3, 4), }", b"(3, 4     "),
        b"PK\x03\x04" + 40 * b"\x00",
    ],
    ids=["cut", "header cut", "huge shape", "shape over 64 bits", "header torn", "archive torn"],
)
def test_damaged_files(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    assert refused(path).startswith(f"{path} is truncated or corrupt: ")


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    expected = f"{tmp_path / 'x.npz'} is truncated or corrupt: its member 'notes.txt' is no array"
    assert refused(tmp_path / "x.npz") == expected


def test_any_damage_is_one_clear_error(tmp_path):
    """Flip bytes anywhere: what is not still readable is an InputError, nothing else."""
    random = np.random.default_rng(0)
    archive = io.BytesIO()
    np.savez(archive, a=np.ones(3))
    for good in (npy(np.zeros((3, 4), np.float32)), archive.getvalue()):
        for _ in range(300):
            bad = bytearray(good)
            for place in random.integers(0, len(bad), random.integers(1, 5)):
                bad[place] = random.integers(256)
            path = tmp_path / "x.npy"
            path.write_bytes(bytes(bad))
            with suppress(InputError):
                read(path)


@pytest.mark.parametrize(
    ("declared", "given", "count"),
    [
        (("batch", 1, 8, 8), (1, 1, 8, 8), None),
        (("batch", 1, 8, 8), (10, 1, 8, 8), 10),
        ((1, 1, 8, 8), (10, 1, 8, 8), 10),
        ((None, 1, 8, 8), (10, 1, 8, 8), 10),
        ((2, 1, 8, 8), (2, 1, 8, 8), None),  # a fixed batch of two is one input
        (("batch", 1, 8, 8), (1, 8, 8), None),  # a missing batch axis is added later
        (("batch", 1, 8, 8), (10, 1, 1, 8, 8), 10),
        (("batch", 1, 8, 8), (10, 2, 1, 8, 8), 10),  # ten batches of two
        ((1, 1, 8, 8), (10, 2, 1, 8, 8), None),  # fits nothing: refused later, as one input
        (("batch", 1, 8, 8), (10, 3, 8, 8), None),
        ((4,), (4,), None),
        ((4,), (10, 4), 10),
        ((1,), (10,), 10),
        (("samples",), (10,), None),  # a vector of any length is one input
        (("samples",), (3, 10), 3),
        ((), (), None),
        ((), (5,), 5),
        (None, (10, 4), None),  # not even the rank is declared
    ],
)
def test_how_many_instances(declared, given, count):
    points = instances(np.zeros(given), [TensorInfo("x", FLOAT, declared)])
    assert points.count == count
    assert instances(np.zeros(given), [TensorInfo("x", FLOAT, declared)], whole=True).count is None


def test_an_instance_keeps_its_rank():
    x = np.arange(6.0).reshape(3, 2)
    points = instances(x, [TensorInfo("x", FLOAT, ("n", 2))])
    np.testing.assert_array_equal(points[1], x[1:2])


def test_named_arrays_are_several_only_where_all_say_so():
    declared = [TensorInfo("a", FLOAT, ("n", 2)), TensorInfo("b", FLOAT, (1, 3))]
    both = {"a": np.zeros((5, 2)), "b": np.zeros((5, 3))}
    points = instances(both, declared)
    assert len(points) == 5
    assert {name: value.shape for name, value in points[4].items()} == {"a": (1, 2), "b": (1, 3)}
    assert instances({**both, "b": np.zeros((1, 3))}, declared).count is None
    assert instances({**both, "b": np.zeros((4, 3))}, declared).count is None


def test_no_instance_at_all():
    with pytest.raises(InputError, match=r"x holds no instance: its shape is \[0, 2\]"):
        instances(np.zeros((0, 2)), [TensorInfo("x", FLOAT, ("n", 2))])
