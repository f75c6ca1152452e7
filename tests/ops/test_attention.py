"""Attention: the weights that frozen mode holds, masks, and what is refused, beyond the backend's cases."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin

from ..conformance.check import check
from .nodes import case_of, in_type

RANDOM = np.random.default_rng(0)


def normal(*shape, size=1.0):
    return (size * RANDOM.standard_normal(shape)).astype(np.float32)


Q, K, V = normal(2, 4, 3, 8), normal(2, 2, 5, 8), normal(2, 2, 5, 6)  # four heads of queries, two of keys
PAST = {"past_key": normal(2, 2, 2, 8), "past_value": normal(2, 2, 2, 6)}
GIVEN = {"Q": Q, "K": K, "V": V}
SQUARE = {"Q": normal(1, 2, 4, 8), "K": normal(1, 2, 4, 8), "V": normal(1, 2, 4, 8)}
FLAT = {"Q": normal(2, 3, 32), "K": normal(2, 5, 16), "V": normal(2, 5, 16)}

CASES = {
    "groups": (GIVEN, {}),
    "causal": (SQUARE, {"is_causal": 1}),
    "a cache": (GIVEN | {"mask": None} | PAST, {"is_causal": 1, "outputs": 3}),
    "three axes": (FLAT, {"q_num_heads": 4, "kv_num_heads": 2}),
    "softcap": (GIVEN, {"softcap": 0.75, "scale": 0.5}),
    "large scores": (GIVEN | {"Q": 30 * Q}, {}),
    "a mask that depends on x": (GIVEN | {"mask": normal(3, 5)}, {}),
    "a row that sees nothing": (SQUARE | {"mask": np.tri(4, k=-1, dtype=bool)}, {}),
}


def weights_of(q, k, *, scale, softcap=0.0, mask=0.0):
    """Softmax of the scores by the specification, in float64, by heads of queries."""
    k = np.repeat(k, q.shape[1] // k.shape[1], 1).astype(float)
    scores = scale * q.astype(float) @ k.swapaxes(2, 3)
    scores = (softcap * np.tanh(scores / softcap) if softcap else scores) + mask
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# In float64 onnxruntime's scale is not the reference evaluator's, and its own differences are too coarse.
TYPES = ("float16", "float32", "float64")
TYPED = [(name, dtype) for name in CASES for dtype in TYPES if (name, dtype) != ("large scores", "float64")]


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_the_tangent_is_the_value_and_the_slope(name, dtype):
    inputs, attributes = CASES[name]
    case = case_of("Attention", in_type(inputs, dtype), 23, **attributes)
    check(case, case.floating_inputs)


@pytest.mark.parametrize("attributes", [{}, {"softcap": 0.75, "scale": 0.5}])
def test_frozen_attention_is_its_weights(attributes):
    case = case_of("Attention", GIVEN, 23, **attributes)
    affine = ilin.linearize(case.model, dict(case.feeds), mode="frozen", dtype="float64")
    assert affine.certificate.verified, str(affine.certificate)
    np.testing.assert_array_equal(affine.b, 0)
    np.testing.assert_array_equal(affine.W[:, : Q.size + K.size], 0)
    P = weights_of(Q, K, scale=attributes.get("scale", 8**-0.5), softcap=attributes.get("softcap", 0.0))
    W = affine.W[:, Q.size + K.size :].reshape(2, 4, 3, 6, 2, 2, 5, 6)
    for batch, head, f in np.ndindex(2, 4, 6):
        np.testing.assert_allclose(W[batch, head, :, f, batch, head // 2, :, f], P[batch, head], rtol=1e-6)
    assert np.count_nonzero(W) == 2 * 4 * 6 * 3 * 5


def test_past_values_that_are_held_are_the_only_offset_of_frozen_attention():
    case = case_of("Attention", GIVEN | {"mask": None} | PAST, 23, outputs=3)
    affine = ilin.linearize(
        case.model, dict(case.feeds), inputs=["Q", "K", "V"], mode="frozen", dtype="float64"
    )
    assert affine.certificate.verified
    P = weights_of(Q, np.concatenate([PAST["past_key"], K], 2), scale=8**-0.5)
    past = np.repeat(PAST["past_value"], 2, 1).astype(float)
    np.testing.assert_allclose(affine.b.reshape(2, 4, 3, 6), P[..., :2] @ past, rtol=1e-5, atol=1e-7)


def test_with_values_held_frozen_attention_is_the_tangent():
    case = case_of("Attention", GIVEN, 23)
    maps = [
        ilin.linearize(case.model, dict(case.feeds), inputs=["Q"], mode=mode)
        for mode in ("tangent", "frozen")
    ]
    np.testing.assert_array_equal(maps[0].W, maps[1].W)


def test_a_constant_mask_may_hold_infinities():
    mask = np.where(np.tri(4, dtype=bool), 0, -np.inf).astype(np.float32)
    puts = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in SQUARE.items()]
    graph = helper.make_graph(
        [helper.make_node("Attention", [*SQUARE, "mask"], ["y"])],
        "masked",
        puts,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 8])],
        [numpy_helper.from_array(mask, "mask")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    causal = case_of("Attention", SQUARE, 23, is_causal=1)
    masked = ilin.linearize(model, dict(SQUARE))
    assert masked.certificate.verified
    np.testing.assert_allclose(masked.W, ilin.linearize(causal.model, dict(SQUARE)).W, rtol=1e-6, atol=1e-7)
