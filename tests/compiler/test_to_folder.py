"""A map composed into a folder is the map that is composed in memory, checked as that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin
from ilin.compiler import to_folder
from ilin.compiler.engine import Engine
from ilin.compiler.to_folder import linearize_to

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture
def x():
    return np.load(DIGITS / "x.npy")


@pytest.fixture(autouse=True)
def three_rows_a_block(monkeypatch):
    monkeypatch.setattr(to_folder, "_BLOCK", 3 * 64 * 4)


@pytest.mark.parametrize("engine", ["sparse", "matrix-free", "adjoint"])
@pytest.mark.parametrize("rows", ["all", 4, [7, 7, 0]])
def test_the_same_map(tmp_path, x, engine, rows):
    compiled = ilin.compile(DIGITS / "model.onnx", engine=engine)
    inside, done = compiled.at(x, rows), []
    outside = linearize_to(compiled, tmp_path / "map", x, rows, progress=lambda *at: done.append(at))
    assert done[0] == (3, len(inside.rows))
    for affine in (outside, ilin.load(tmp_path / "map")):
        assert isinstance(affine.W, np.memmap)
        np.testing.assert_allclose(affine.W, inside.W, rtol=0, atol=1e-5)
        np.testing.assert_allclose(affine.b, inside.b, rtol=0, atol=1e-5)
        np.testing.assert_allclose(affine.bias_shares, inside.bias_shares, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(affine.rows, inside.rows)
        np.testing.assert_array_equal(affine.x, inside.x)
        np.testing.assert_array_equal(affine.y, inside.y)
        assert affine.certificate.verified
        assert affine.certificate.points_held == 1
        assert affine.certificate.steps == inside.certificate.steps
        assert affine.certificate.ties == inside.certificate.ties
        assert 0 < affine.certificate.at_x < 1e-4
        assert (affine.kind, affine.model_sha256) == (inside.kind, inside.model_sha256)
        np.testing.assert_allclose(affine(x), inside(x), rtol=0, atol=1e-4)
        np.testing.assert_allclose(affine.contributions(1), inside.contributions(1), rtol=0, atol=1e-5)
        assert affine.provenance["nonzero"] == np.count_nonzero(inside.W)


def test_a_wrong_row_is_found_in_whichever_block_it_is(tmp_path, x, monkeypatch):
    right = Engine.rows

    def wrong(self, *arguments):
        sweep = right(self, *arguments)

        def back(rows):
            found = sweep(rows)
            return replace(found, W=found.W + 0.01 * (rows == 4)[:, None])

        return back

    monkeypatch.setattr(Engine, "rows", wrong)
    affine = linearize_to(ilin.compile(DIGITS / "model.onnx"), tmp_path / "map", x)
    assert not affine.certificate.verified
    assert "W x + b differs from onnxruntime's output at x" in affine.certificate.reason
    again = ilin.load(tmp_path / "map")
    assert again.certificate == affine.certificate
    monkeypatch.setattr(Engine, "rows", right)
    resumed = linearize_to(ilin.compile(DIGITS / "model.onnx"), tmp_path / "map", x)
    assert not resumed.certificate.verified  # what was found stays with the rows


def test_an_interrupted_run_goes_on_and_only_with_the_same_question(tmp_path, x):
    def stop(done, _):
        if done == 6:
            raise KeyboardInterrupt

    compiled = ilin.compile(DIGITS / "model.onnx")
    with pytest.raises(KeyboardInterrupt, match=r"6 of 10 rows are finished"):
        linearize_to(compiled, tmp_path / "map", x, progress=stop)
    for words, model, point, rows in [
        ("x ", compiled, x + 1, "all"),
        (
            "dtype is float32 there and float64 here",
            ilin.compile(DIGITS / "model.onnx", dtype="float64"),
            x,
            "all",
        ),
        (
            "engine is auto there and sparse here",
            ilin.compile(DIGITS / "model.onnx", engine="sparse"),
            x,
            "all",
        ),
        ("rows ", compiled, x, 3),
    ]:
        with pytest.raises(ilin.OutputError, match=f"6 of 10 rows of another map: .*{words}"):
            linearize_to(model, tmp_path / "map", point, rows)
    done = []
    affine = linearize_to(compiled, tmp_path / "map", x, progress=lambda *at: done.append(at))
    assert done == [(9, 10), (10, 10)]
    np.testing.assert_allclose(affine.W, compiled.at(x).W, rtol=0, atol=1e-5)


# -- through a narrow layer ------------------------------------------------------------------------------

SIZES = (40, 60, 6, 50, 70)  # of the layers: x, a Relu, the narrow one, another Relu, y


@pytest.fixture(scope="module")
def narrow():
    """A network with a narrow layer, x, and W and b there by hand, in float64."""
    random = np.random.default_rng(5)
    names = ["x", "wide", "narrow", "again", "y"]
    nodes, weights = [], {}
    z = x = random.standard_normal((1, SIZES[0])).astype(np.float32)
    W, b = np.eye(SIZES[0]), np.zeros(SIZES[0])
    for i in range(4):
        A = random.standard_normal((SIZES[i + 1], SIZES[i])).astype(np.float32) / 4
        c = random.standard_normal(SIZES[i + 1]).astype(np.float32)
        weights |= {f"A{i}": A, f"c{i}": c}
        relu = i % 2 == 0
        made = f"g{i}" if relu else names[i + 1]
        nodes.append(helper.make_node("Gemm", [names[i], f"A{i}", f"c{i}"], [made], transB=1))
        if relu:
            nodes.append(helper.make_node("Relu", [f"g{i}"], [names[i + 1]]))
        W, b = A.astype(np.float64) @ W, A.astype(np.float64) @ b + c
        z = W @ x[0] + b
        if relu:
            W, b = W * (z > 0)[:, None], b * (z > 0)
    graph = helper.make_graph(
        nodes,
        "narrow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZES[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIZES[-1]])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), x, W, b


@pytest.fixture
def few_at_once(monkeypatch):
    """Blocks of ten rows of W, and of a few rows or columns of everything that these are made of."""
    monkeypatch.setattr(to_folder, "_BLOCK", 10 * SIZES[0] * 4)
    monkeypatch.setattr(to_folder, "BUDGET", 9000)


WAYS = [("cut", "float32"), ("cut", "float64"), ("forward", "float32"), ("auto", "float32")]


@pytest.mark.parametrize(("direction", "dtype"), WAYS)
@pytest.mark.parametrize("engine", ["sparse", "matrix-free"])
@pytest.mark.parametrize("rows", ["all", [69, 3, 3]])
def test_through_a_narrow_layer_or_forward(tmp_path, narrow, few_at_once, direction, dtype, engine, rows):
    model, x, W, b = narrow
    compiled = ilin.compile(model, direction=direction, dtype=dtype, engine=engine)
    affine = linearize_to(compiled, tmp_path / "map", x, rows)
    wanted = slice(None) if rows == "all" else rows
    np.testing.assert_allclose(affine.W, W[wanted], rtol=0, atol=1e-5)
    np.testing.assert_allclose(affine.b, b[wanted], rtol=0, atol=1e-5)
    np.testing.assert_allclose(affine.bias_shares.sum(axis=0), b[wanted], rtol=0, atol=1e-5)
    np.testing.assert_allclose(affine.bias_shares, compiled.at(x, rows).bias_shares, rtol=0, atol=1e-5)
    assert affine.certificate.verified
    assert 0 < affine.certificate.at_x_over_bound < 1
    if direction != "auto":
        assert affine.provenance["direction"] == direction
    assert not [path for path in (tmp_path / "map").iterdir() if path.is_dir()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("engine", ["matrix-free", "adjoint", "fused"])
@pytest.mark.parametrize("direction", ["cut", "forward"])
def test_an_interruption_anywhere_changes_no_bit(
    tmp_path, narrow, few_at_once, direction, engine, monkeypatch
):
    model, x, _, _ = narrow
    compiled, asked = ilin.compile(model, direction=direction, engine=engine), []
    linearize_to(compiled, tmp_path / "whole", x, progress=lambda *at: asked.append(at))
    done = [at for at, _ in asked]
    assert done == sorted(set(done)) and done[-1] == asked[-1][1], "every block is told, once"
    assert len(done) > 7 + 2, "what W's rows are made of comes in blocks as well"

    def stop(at, _):
        if at == stops[-1]:
            raise KeyboardInterrupt

    stops = done[::-1]
    while stops:
        with pytest.raises(KeyboardInterrupt, match=r"rows are finished in .* the same command goes on"):
            linearize_to(compiled, tmp_path / "stopped", x, progress=stop)
        stops.pop()
        monkeypatch.setattr(to_folder, "BUDGET", 1 << 20)  # more memory than there was changes nothing
    linearize_to(compiled, tmp_path / "stopped", x, progress=lambda *at: pytest.fail("all was there"))
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_the_way_through_costs_fewer_passes(tmp_path, narrow, monkeypatch):
    """Rows are carried through the wide half of the network for the narrow layer only."""
    model, x, _, _ = narrow
    seen, right = [], Engine.rows

    def watched(self, leg, *arguments):
        sweep = right(self, leg, *arguments)

        def back(rows):
            if arguments[-1] == np.float32:  # those of the region are in float64
                seen.append((leg.first, len(rows)))
            return sweep(rows)

        return back

    monkeypatch.setattr(Engine, "rows", watched)
    compiled = ilin.compile(model, direction="cut", engine="matrix-free")
    linearize_to(compiled, tmp_path / "map", x)
    assert sum(rows for first, rows in seen if first == 0) == SIZES[2]


def test_the_wrong_half_is_found(tmp_path, narrow, few_at_once, monkeypatch):
    right = Engine.rows

    def wrong(self, leg, *arguments):
        sweep = right(self, leg, *arguments)

        def back(rows):
            found = sweep(rows)
            return replace(found, W=found.W * 1.001) if leg.first == 0 else found

        return back

    monkeypatch.setattr(Engine, "rows", wrong)
    model, x, _, _ = narrow
    affine = linearize_to(ilin.compile(model, direction="cut"), tmp_path / "map", x)
    assert not affine.certificate.verified
