"""Cuts, the cost model's choice, and that every way through a program gives the same map."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import ilin
from ilin.compiler.cuts import cuts_of, width
from ilin.compiler.trace import feeds_of

RANDOM = np.random.default_rng(3)


def gemms(*sizes, skip=False):
    """Gemm-Relu layers; with `skip`, every inner layer of equal size has a residual connection."""
    nodes, tensors, current = [], [], "x"
    for i, (rows, columns) in enumerate(pairwise(sizes)):
        for name, shape in ((f"W{i}", (rows, columns)), (f"c{i}", (columns,))):
            value = RANDOM.standard_normal(shape) / np.sqrt(rows)
            tensors.append(numpy_helper.from_array(value.astype(np.float32), name))
        last = i == len(sizes) - 2
        nodes.append(make_node("Gemm", [current, f"W{i}", f"c{i}"], ["y" if last else f"a{i}"]))
        if not last:
            nodes.append(make_node("Relu", [f"a{i}"], [f"h{i}"]))
            if skip and rows == columns:
                nodes.append(make_node("Add", [f"h{i}", current], [f"s{i}"]))
            current = f"s{i}" if skip and rows == columns else f"h{i}"
    puts = [
        make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("x", sizes[0]), ("y", sizes[-1]))
    ]
    graph = make_graph(nodes, "net", puts[:1], puts[1:], tensors)
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def point(size):
    return RANDOM.standard_normal((1, size)).astype(np.float32)


def program_of(compiled, x):
    feeds, _ = feeds_of(compiled.graph, x)
    return compiled._lower(compiled._observer.trace(feeds))


def test_cuts_separate_inputs_from_outputs():
    compiled = ilin.compile(gemms(5, 8, 8, 3, skip=True))
    program = program_of(compiled, point(5))
    named = [tuple(name for name, _ in cut) for cut in cuts_of(program)]
    assert named[0] == ("x",)
    assert named[-1] == ("y",)
    assert ("h0", "a1") in named or ("a1", "h0") in named  # inside the residual block both branches are cut
    assert [width(cut) for cut in cuts_of(program)] == [5, 8, 8, 16, 16, 8, 3]


def test_an_autoencoder_goes_through_its_narrow_layer():
    compiled = ilin.compile(gemms(400, 300, 6, 300, 400), engine="matrix-free")
    x = point(400)
    plan = compiled.plan(x)
    assert [width(leg.above) for leg in plan.legs] == [400, 6]
    assert [leg.direction for leg in plan.legs] == ["forward", "reverse"]
    assert plan.passes < 20
    assert "6" in str(plan)
    assert (
        plan.multiply_adds
        < 0.1 * ilin.compile(compiled.graph.proto, direction="reverse").plan(x).multiply_adds
    )


@pytest.mark.parametrize("sizes", [(40, 30, 6, 30, 40), (12, 60, 7, 60, 3, 60, 90), (30, 20, 20, 20, 64)])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_direction_and_engine_agrees(sizes, skip, dtype):
    model, x = gemms(*sizes, skip=skip), point(sizes[0])
    reference = ilin.linearize(model, x, direction="reverse", engine="sparse", dtype="float64")
    scale = np.abs(reference.W).max()
    tolerance = {"float32": 3e-6, "float64": 1e-13}[dtype] * max(sizes)
    for direction in ("auto", "reverse", "forward", "cut"):
        for engine in ("auto", "sparse", "matrix-free", "adjoint"):
            affine = ilin.linearize(model, x, direction=direction, engine=engine, dtype=dtype)
            np.testing.assert_allclose(affine.W, reference.W, atol=tolerance * scale, rtol=0)
            np.testing.assert_allclose(affine.bias_shares, reference.bias_shares, atol=10 * tolerance, rtol=0)
            assert affine.certificate.verified, (direction, engine, str(affine.certificate))
            assert affine.provenance["direction"] in (direction, "reverse", "forward", "cut")


def test_selected_rows_through_a_cut():
    model, x = gemms(50, 40, 4, 40, 60), point(50)
    whole = ilin.linearize(model, x)
    rows = [59, 0, 7, 7, 31]
    few = ilin.linearize(model, x, rows=rows, direction="cut")
    np.testing.assert_allclose(few.W, whole.W[rows], atol=1e-5)
    assert few.provenance["direction"] == "cut"


def test_blocks_of_a_cut_add_up(monkeypatch):
    """Legs that are swept a few rows at a time give the same W."""
    from ilin.compiler import plan as planning

    model, x = gemms(50, 40, 20, 40, 60), point(50)
    whole = ilin.linearize(model, x, direction="cut", engine="matrix-free")
    rates = planning.RATES["matrix-free"]
    small = planning.Rates(rates.dense, rates.convolved, rates.moved, 0, block=7)
    monkeypatch.setitem(planning.RATES, "matrix-free", small)
    done = []
    compiled = ilin.compile(model, direction="cut", engine="matrix-free")
    affine = compiled.at(x, progress=lambda now, of: done.append((now, of)))
    assert affine.provenance["direction"] == "cut"
    np.testing.assert_allclose(affine.W, whole.W, atol=1e-5)
    assert affine.certificate.verified
    assert done[-1][0] == done[-1][1]
    assert len(done) > 5


def test_a_plan_without_a_point():
    assert str(ilin.compile(gemms(5, 4, 3)).plan()).startswith("W 3 × 5: ")


def test_an_unknown_direction():
    with pytest.raises(ilin.IlinError, match="unknown direction 'sideways'; choose from auto, reverse"):
        ilin.compile(gemms(5, 4, 3), direction="sideways")


def test_no_inner_cut():
    with pytest.raises(ilin.IlinError, match="direction 'cut' needs a tensor between"):
        ilin.linearize(gemms(5, 3), point(5), direction="cut")


def test_few_rows_are_priced_as_strips_and_more_as_vectors():
    from ilin.compiler import plan as planning

    cost = planning.RATES["fused"].padded
    assert cost(16) == cost(9) == 16
    assert cost(32) == cost(25) == 32
    assert 0 < cost(1) < cost(2) < cost(8) < 16
    assert cost(17) == 16 + cost(1)
    assert planning.RATES["adjoint"].padded(7) == 7
