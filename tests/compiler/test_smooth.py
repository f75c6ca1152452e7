"""Smooth operators: tangents and frozen gates, and what the certificate says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import ilin
from ilin.ops import REGISTRY
from ilin.runtime.primitives import Chain, Scale
from ilin.runtime.program import Kind

WEIGHTS = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((1, 4)).astype(np.float32)


def model(*nodes):
    graph = make_graph(
        [make_node("Gemm", ["x", "A"], ["u"], transB=1), *nodes],
        "net",
        [make_tensor_value_info("x", 1, [1, 4])],
        [make_tensor_value_info("y", 1, [1, 5])],
        [numpy_helper.from_array(WEIGHTS, "A")],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


SWISH = (make_node("Sigmoid", ["u"], ["s"], name="gate"), make_node("Mul", ["u", "s"], ["y"], name="product"))


def logistic(u):
    return 1 / (1 + np.exp(-u))


def test_the_tangent_is_the_jacobian():
    affine = ilin.linearize(model(*SWISH), X)
    u = WEIGHTS.astype(float) @ X[0]
    slope = logistic(u) + u * logistic(u) * (1 - logistic(u))
    np.testing.assert_allclose(affine.W, slope[:, None] * WEIGHTS, rtol=1e-5)
    np.testing.assert_allclose(affine.b, u * logistic(u) - affine.W @ X[0], rtol=1e-5, atol=1e-6)
    assert affine.kind == "smooth"


def test_a_smooth_certificate_claims_no_region_and_checks_slopes():
    certificate = ilin.linearize(model(*SWISH), X).certificate
    assert certificate.verified
    assert (certificate.points_tried, certificate.points_held) == (0, 0)
    assert certificate.slopes.passed
    assert certificate.slopes.compared == 2
    assert "valid at x only" in str(certificate)


def test_frozen_mode_holds_the_gate_and_has_no_bias():
    affine = ilin.linearize(model(*SWISH), X, mode="frozen")
    u = WEIGHTS.astype(float) @ X[0]
    np.testing.assert_allclose(affine.W, logistic(u)[:, None] * WEIGHTS, rtol=1e-5)
    np.testing.assert_array_equal(affine.b, 0)
    assert affine.kind == "smooth"
    assert affine.certificate.verified
    assert affine.certificate.slopes is None


def test_a_square_counts_each_factor_half_where_it_is_frozen():
    affine = ilin.linearize(model(make_node("Mul", ["u", "u"], ["y"])), X, mode="frozen")
    u = WEIGHTS.astype(float) @ X[0]
    np.testing.assert_allclose(affine.W, u[:, None] * WEIGHTS, rtol=1e-5)
    np.testing.assert_array_equal(affine.b, 0)


def test_a_quotient_holds_its_denominator_where_it_is_frozen():
    proto = model(make_node("Sigmoid", ["u"], ["s"]), make_node("Div", ["u", "s"], ["y"]))
    affine = ilin.linearize(proto, X, mode="frozen")
    np.testing.assert_allclose(affine.W @ X[0], affine.y[0], rtol=1e-5)
    np.testing.assert_array_equal(affine.b, 0)


ONE_OVER = {
    "Reciprocal": [make_node("Sqrt", ["v"], ["s"]), make_node("Reciprocal", ["s"], ["r"])],
    "a constant divided": [make_node("Sqrt", ["v"], ["s"]), make_node("Div", ["one", "s"], ["r"])],
    "a power": [make_node("Pow", ["v", "minus_half"], ["r"])],
    "a power by a node": [
        make_node("Constant", [], ["p"], value_float=-0.5),
        make_node("Pow", ["v", "p"], ["r"]),
    ],
}


@pytest.mark.parametrize("name", ONE_OVER)
def test_one_over_a_norm_is_held_however_it_is_written(name):
    """y = u / √(mean of u²), RMSNormalization without its gain: W is that of u, times one number."""
    proto = model(
        make_node("Mul", ["u", "u"], ["q"]),
        make_node("ReduceMean", ["q"], ["v"], axes=[-1]),
        *ONE_OVER[name],
        make_node("Mul", ["u", "r"], ["y"]),
    )
    held = {"one": np.float32(1), "minus_half": np.float32(-0.5)}
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in held.items())
    affine = ilin.linearize(proto, X, mode="frozen")
    u = WEIGHTS.astype(float) @ X[0]
    np.testing.assert_allclose(affine.W, WEIGHTS / np.sqrt((u**2).mean()), rtol=1e-5)
    np.testing.assert_array_equal(affine.b, 0)
    assert affine.certificate.verified


@pytest.mark.parametrize("name", ONE_OVER)
def test_one_over_a_norm_that_weighs_nothing_has_its_tangent(name):
    proto = model(make_node("Mul", ["u", "u"], ["v"]), *ONE_OVER[name], make_node("Neg", ["r"], ["y"]))
    held = {"one": np.float32(1), "minus_half": np.float32(-0.5)}
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in held.items())
    affine = ilin.linearize(proto, X)
    u = WEIGHTS.astype(float) @ X[0]
    np.testing.assert_allclose(affine.W, (np.sign(u) / u**2)[:, None] * WEIGHTS, rtol=1e-4)
    assert ilin.linearize(proto, X, mode="frozen").certificate.verified


def test_piecewise_linear_networks_do_not_know_the_mode():
    proto = model(make_node("Relu", ["u"], ["y"]))
    tangent, frozen = (ilin.linearize(proto, X, mode=mode) for mode in ("tangent", "frozen"))
    np.testing.assert_array_equal(tangent.W, frozen.W)
    assert tangent.kind == frozen.kind == "piecewise-linear"


@pytest.mark.parametrize("op_type", ["Sigmoid", "Mul"])
def test_a_slope_off_by_one_in_a_thousand_is_caught_at_its_node(monkeypatch, op_type):
    """With the offset f(u) - J u of the wrong J, which is right at x in every digit."""
    entry = REGISTRY["", op_type]

    def tampered(site):
        local = entry.rule(site)
        terms = [(i, Chain((L, Scale(L.out_shape, np.array(1.001))))) for i, L in local.by_position]
        moved = sum(
            M.apply(site.value(i)[None])[0] - L.apply(site.value(i)[None])[0]
            for (i, M), (_, L) in zip(terms, local.by_position, strict=True)
        )
        return replace(local, terms=terms, offset=local.offset - moved)

    monkeypatch.setitem(REGISTRY, ("", op_type), replace(entry, rule=tampered))
    certificate = ilin.linearize(model(*SWISH), X).certificate
    assert certificate.steps.passed
    assert certificate.at_x_over_bound <= 1
    node = {"Sigmoid": "gate", "Mul": "product"}[op_type]
    assert certificate.reason == f"node {node!r} is the first whose slope is not that of its equation"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mode": "gradient"}, "unknown mode 'gradient'"),
        ({"quantized": "no"}, "unknown value 'no' of quantized"),
    ],
)
def test_options_outside_their_range(option, message):
    with pytest.raises(ilin.OptionError, match=message):
        ilin.compile(model(*SWISH), **option)


def test_smooth_answers_survive_a_file(tmp_path):
    affine = ilin.linearize(model(*SWISH), X)
    affine.save(tmp_path / "map.npz")
    loaded = ilin.load(tmp_path / "map.npz")
    assert loaded.kind is Kind.SMOOTH
    assert loaded.certificate == affine.certificate
