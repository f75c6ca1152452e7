"""Operators of onnxruntime (com.microsoft): by themselves, and as its optimiser makes them.

Slopes are compared with float64 differences of the formula.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from scipy.special import erf

import ilin

from ..conformance.oracle import onnxruntime_of

RANDOM = np.random.default_rng(0)


def normal(*shape, at=0.0):
    return (at + RANDOM.standard_normal(shape)).astype(np.float32)


def model_of(nodes, inputs, output, held=(), opset=17):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(n, 1, v.shape) for n, v in inputs.items()],
        [helper.make_tensor_value_info("y", 1, output)],
        [numpy_helper.from_array(v, n) for n, v in dict(held).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def differences(function, x, d, step=1e-5):
    """The slope of a float64 function at x along d."""
    return (function(x + step * d) - function(x - step * d)) / (2 * step)


def compare(affine, function, inputs):
    """Verified; W by its product with directions, against differences."""
    assert affine.certificate.verified, str(affine.certificate)
    names = list(affine.inputs)
    x = np.concatenate([inputs[n].ravel() for n in names]).astype(float)
    ends = np.cumsum([inputs[n].size for n in names])[:-1]

    def flat(z):
        parts = np.split(z, ends)
        given = {n: part.reshape(inputs[n].shape) for n, part in zip(names, parts, strict=True)}
        return function({**{n: v.astype(float) for n, v in inputs.items()}, **given}).ravel()

    for seed in range(3):
        d = np.random.default_rng(seed).standard_normal(x.shape)
        size = np.abs(affine.W) @ np.abs(d)
        np.testing.assert_array_less(np.abs(affine.W @ d - differences(flat, x, d)), 1e-6 * (size + 1))


def normalised(x, scale=1.0, shift=0.0, epsilon=1e-5, centred=True):
    c = x - x.mean(-1, keepdims=True) * centred
    return scale * c / np.sqrt((c**2).mean(-1, keepdims=True) + epsilon) + shift


def gelu(u):
    return u * (1 + erf(u / np.sqrt(2))) / 2


def fast_gelu(u):
    return u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))) / 2


def attended(q, k, v, heads, mask=0.0):
    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)

    q, k, v = map(split, (q, k, v))
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]) + mask
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    y = (powers / powers.sum(-1, keepdims=True)) @ v
    return y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], -1)


X, SKIP, G, B = normal(2, 3, 8), normal(2, 3, 8), normal(8, at=1), normal(8)
QKV = {"q": normal(2, 3, 8), "k": normal(2, 5, 8), "v": normal(2, 5, 8)}
PROJECT = {"w": normal(8, 24), "b": normal(24)}
CAUSAL = np.where(np.tri(3, dtype=bool), 0, -np.inf)


def projected(x, mask=0.0):
    q, k, v = np.split(x @ PROJECT["w"].astype(float) + PROJECT["b"], 3, -1)
    return attended(q, k, v, 2, mask)


MS = "com.microsoft"
# operator: domain, inputs that depend on x, held parameters, attributes, formula
SINGLE = {
    "Gelu": (MS, {"x": 3 * X}, {}, {}, lambda i: gelu(i["x"])),
    "FastGelu": (MS, {"x": 3 * X}, {}, {}, lambda i: fast_gelu(i["x"])),
    "FastGelu, biased": (MS, {"x": X, "b": B}, {}, {}, lambda i: fast_gelu(i["x"] + i["b"])),
    "BiasGelu": (MS, {"x": X}, {"b": B}, {}, lambda i: gelu(i["x"] + B.astype(float))),
    "QuickGelu": (MS, {"x": 3 * X}, {}, {"alpha": 1.5}, lambda i: i["x"] / (1 + np.exp(-1.5 * i["x"]))),
    "SimplifiedLayerNormalization": (
        *("", {"x": X}, {"g": G}),
        *({"axis": -1, "epsilon": 1e-4}, lambda i: normalised(i["x"], G, 0, 1e-4, centred=False)),
    ),
    "SkipLayerNormalization": (
        *(MS, {"x": X, "s": SKIP}, {"g": G, "b": B}),
        *({"epsilon": 1e-3}, lambda i: normalised(i["x"] + i["s"], G, B, 1e-3)),
    ),
    "SkipLayerNormalization, default": (
        *(MS, {"x": X, "s": SKIP[0]}, {"g": G}),
        *({}, lambda i: normalised(i["x"] + i["s"], G, 0, 1e-12)),
    ),
    "SkipSimplifiedLayerNormalization": (
        *(MS, {"x": X}, {"s": SKIP, "g": G, "b": B}),
        *({}, lambda i: normalised(i["x"] + SKIP.astype(float) + B, G, 0, 1e-12, centred=False)),
    ),
    "MultiHeadAttention": (
        *(MS, QKV, {}),
        *({"num_heads": 2}, lambda i: attended(i["q"], i["k"], i["v"], 2)),
    ),
    "Attention": (MS, {"x": X}, PROJECT, {"num_heads": 2}, lambda i: projected(i["x"])),
    "Attention, causal": (
        *(MS, {"x": X}, PROJECT),
        *({"num_heads": 2, "unidirectional": 1}, lambda i: projected(i["x"], CAUSAL)),
    ),
}


def single(name):
    domain, inputs, held, attributes, formula = SINGLE[name]
    node = helper.make_node(name.split(",")[0], [*inputs, *held], ["y"], domain=domain, **attributes)
    shape = formula({n: v.astype(float) for n, v in inputs.items()}).shape
    return model_of([node], inputs, shape, held), inputs, formula


@pytest.mark.parametrize("name", SINGLE)
def test_the_tangent_is_the_slope_of_the_formula(name):
    model, inputs, formula = single(name)
    compare(ilin.linearize(model, dict(inputs), dtype="float64"), formula, inputs)
    assert ilin.linearize(model, dict(inputs)).certificate.verified


@pytest.mark.parametrize("name", SINGLE)
def test_frozen_maps_are_exact_at_x(name):
    model, inputs, _ = single(name)
    affine = ilin.linearize(model, dict(inputs), mode="frozen")
    assert affine.certificate.verified, str(affine.certificate)
    _, _, held, _, _ = SINGLE[name]
    if not {"b", "s"} & set(held):
        np.testing.assert_array_equal(affine.b, 0)


@pytest.mark.parametrize("mode", ["tangent", "frozen"])
def test_the_sum_beside_a_skip_normalisation_is_affine(mode):
    node = helper.make_node("SkipLayerNormalization", ["x", "s", "g"], ["z", "", "", "y"], domain=MS)
    model = model_of([node], {"x": X}, X.shape, {"s": SKIP, "g": G})
    affine = ilin.linearize(model, X, mode=mode)
    np.testing.assert_array_equal(affine.W, np.eye(X.size))
    np.testing.assert_allclose(affine.b, SKIP.ravel())


ANGLES = RANDOM.uniform(0, 6, (7, 2))


def turned(x, places, interleaved):
    """Pairs of heads of four entries as complex numbers, (B, L, 8), times exp(i · angle)."""
    heads = x.reshape(*x.shape[:2], 2, 4)
    first, second = (heads[..., ::2], heads[..., 1::2]) if interleaved else (heads[..., :2], heads[..., 2:])
    z = (first + 1j * second) * np.exp(1j * ANGLES[places])[..., None, :]
    parts = (z.real, z.imag)
    y = np.stack(parts, -1) if interleaved else np.stack(parts, -2)
    return y.reshape(x.shape)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("places", [np.array([2]), np.array([[0, 3, 1], [4, 5, 6]])])
def test_rotary_embeddings_turn_pairs(places, interleaved):
    node = helper.make_node(
        "RotaryEmbedding", ["x", "places", "cos", "sin"], ["y"], domain=MS, interleaved=interleaved
    )
    held = {f: getattr(np, f)(ANGLES).astype(np.float32) for f in ("cos", "sin")}
    model = model_of([node], {"x": X}, X.shape, {"places": places, **held})
    affine = ilin.linearize(model, X, dtype="float64")
    assert affine.kind == "affine"
    assert affine.certificate.verified, str(affine.certificate)
    every = places if places.ndim == 2 else np.broadcast_to(places + np.arange(3), (2, 3))
    np.testing.assert_allclose(
        affine.W @ X.ravel(), turned(X.astype(float), every, interleaved).ravel(), atol=1e-6
    )


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (("SkipLayerNormalization", ["x", "x", "g"], ["y", "m"]), "the statistics are not lowered"),
        (("MultiHeadAttention", ["x", "x", "x", "", "m"], ["y"]), "key padding is not lowered"),
        (("Attention", ["x", "w", "b", "m"], ["y"]), "a mask index is not lowered"),
    ],
)
def test_uses_that_are_refused(node, message):
    op_type, inputs, outputs = node
    attributes = {} if op_type.startswith("Skip") else {"num_heads": 2}
    held = {"g": G, "m": np.array([3, 3], np.int32), **PROJECT}
    model = model_of(
        [helper.make_node(op_type, inputs, outputs, domain=MS, **attributes)],
        {"x": X},
        X.shape,
        {n: v for n, v in held.items() if n in inputs},
    )
    with pytest.raises(ilin.UnsupportedError, match=message):
        ilin.linearize(model, X)


GROUPED = {"q": normal(1, 3, 64), "k": normal(1, 3, 32), "v": normal(1, 3, 32)}  # 4 heads, 2 of keys, of 16
CACHE = {"past_k": normal(1, 2, 2, 16), "past_v": normal(1, 2, 2, 16)}
TURNS = np.random.default_rng(8).uniform(0, 6, (9, 8))


def grouped(q, k, v, past_k=None, past_v=None, turned_by=None, interleaved=0, softcap=0.0):
    """Causal attention of four heads over two, in float64; all (1, L, H · 16)."""
    q, k, v = (x.reshape(1, 3, -1, 16).swapaxes(1, 2) for x in (q, k, v))
    past = 0 if past_k is None else past_k.shape[2]
    if turned_by is not None:
        q, k = (turn(x, turned_by[past : past + 3], interleaved) for x in (q, k))
    if past:
        k, v = np.concatenate([past_k, k], 2), np.concatenate([past_v, v], 2)
    scores = q @ np.repeat(k, 2, 1).swapaxes(2, 3) / 4
    scores = softcap * np.tanh(scores / softcap) if softcap else scores
    scores = np.where(np.arange(3 + past) > np.arange(3)[:, None] + past, -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    y = weights / weights.sum(-1, keepdims=True) @ np.repeat(v, 2, 1)
    return y.swapaxes(1, 2).reshape(1, 3, 64)


def turn(x, angles, interleaved):
    """Pairs of entries as complex numbers, times exp(i · angle)."""
    first, second = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :8], x[..., 8:])
    z = (first + 1j * second) * np.exp(1j * angles)
    return (
        np.stack([z.real, z.imag], -1).reshape(x.shape)
        if interleaved
        else np.concatenate([z.real, z.imag], -1)
    )


def decoder(active, cached, rotary, interleaved=0, softcap=0.0, lengths=None):
    """One node whose named operands are inputs."""
    past = CACHE if cached else {n: v[:, :, :0] for n, v in CACHE.items()}
    total = 5 if cached else 3
    given = {**GROUPED, **past, "len": np.int32([total - 1] if lengths is None else lengths)}
    given |= {"total": np.array(total, np.int32)}
    if rotary:
        given |= {"cos": np.cos(TURNS).astype(np.float32), "sin": np.sin(TURNS).astype(np.float32)}
    attributes = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": int(rotary)}
    attributes |= {"rotary_interleaved": interleaved} | ({"softcap": softcap} if softcap else {})
    outputs = ["y", "present_k", "present_v"]
    node = helper.make_node("GroupQueryAttention", list(given), outputs, domain=MS, **attributes)
    inputs = {n: given[n] for n in active}
    return model_of([node], inputs, (1, 3, 64), {n: v for n, v in given.items() if n not in active}), inputs


@pytest.mark.parametrize("active", [["q"], ["k"], ["v"], ["q", "k", "v"], ["past_k", "past_v"]])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("rotary", "interleaved", "softcap"), [(False, 0, 0.0), (True, 0, 0.0), (True, 1, 0.0), (False, 0, 2.0)]
)
def test_a_decoders_attention(active, cached, rotary, interleaved, softcap):
    if not cached and "past_k" in active:
        pytest.skip("no cache")
    model, inputs = decoder(active, cached, rotary, interleaved, softcap)
    whole = {**GROUPED, **(CACHE if cached else {})}
    angles = np.arctan2(np.sin(TURNS).astype(np.float32).astype(float), np.cos(TURNS).astype(np.float32))

    def formula(given):
        parts = {n: v.astype(float) for n, v in whole.items()} | given
        return grouped(
            **parts, turned_by=angles if rotary else None, interleaved=interleaved, softcap=softcap
        )

    compare(ilin.linearize(model, dict(inputs), dtype="float64"), formula, inputs)
    frozen = ilin.linearize(model, dict(inputs), mode="frozen")
    assert frozen.certificate.verified, str(frozen.certificate)


def test_a_cache_grows_by_what_is_new():
    model, inputs = decoder(["k"], cached=True, rotary=False)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("present_k", 1, [1, 2, 5, 16]))
    affine = ilin.linearize(model, dict(inputs))
    expected = np.concatenate([CACHE["past_k"], GROUPED["k"].reshape(1, 3, 2, 16).swapaxes(1, 2)], 2)
    np.testing.assert_allclose(affine.W @ inputs["k"].ravel() + affine.b, expected.ravel(), rtol=1e-6)
    np.testing.assert_array_equal(np.abs(affine.W).sum(0), 1)


def test_sequences_of_several_lengths_are_refused():
    model, inputs = decoder(["q"], cached=False, rotary=False, lengths=[1])
    with pytest.raises(ilin.UnsupportedError, match="sequences that end before the longest, of 3"):
        ilin.linearize(model, dict(inputs))


WORDS, SEGMENTS = np.int32([[1, 0, 4, 1], [3, 3, 2, 0]]), np.int32([[0, 0, 1, 1], [1, 0, 0, 0]])
PLACES = np.int32([[2, 0, 1, 1], [0, 5, 3, 3]])
TABLES = {"words": normal(5, 8), "places": normal(6, 8), "segments": normal(2, 8)}


@pytest.mark.parametrize("active", [["words"], ["places"], ["segments"], ["words", "places", "segments"]])
@pytest.mark.parametrize("given", ["", "s", "sp"])
@pytest.mark.parametrize("output", [0, 2])
def test_embeddings(active, given, output):
    """Tables as inputs, with and without segments and positions; the sum, and its normalisation."""
    tables = {n: v for n, v in TABLES.items() if n != "segments" or "s" in given}
    inputs = {n: tables[n] for n in active if n in tables}
    if not inputs:
        pytest.skip("no segments are given")
    held = {"i": WORDS, "s": SEGMENTS, "p": PLACES, "g": G, "b": B, **TABLES}
    named = ["i", "s" if "s" in given else "", "words", "places", "segments" if "s" in given else ""]
    named += ["g", "b", *(["", "p"] if "p" in given else [])]
    outputs = ["y", "m"] if output == 0 else ["n", "m", "y"]
    node = helper.make_node("EmbedLayerNormalization", named, outputs, domain=MS, epsilon=1e-3)
    held = {n: v for n, v in held.items() if n in named and n not in inputs}
    model = model_of([node], inputs, (2, 4, 8), held)

    def formula(given_tables):
        t = {n: v.astype(float) for n, v in TABLES.items()} | given_tables
        rows = PLACES if "p" in given else np.arange(4)[None]
        total = t["words"][WORDS] + t["places"][rows] + (t["segments"][SEGMENTS] if "s" in given else 0)
        return normalised(total, G, B, 1e-3) if output == 0 else total

    affine = ilin.linearize(model, dict(inputs), dtype="float64")
    compare(affine, formula, inputs)
    assert ilin.linearize(model, dict(inputs), mode="frozen").certificate.verified


def test_a_model_is_explained_from_its_embeddings_on():
    nodes = [
        helper.make_node(
            "EmbedLayerNormalization", ["i", "", "words", "places", "", "g", "b"], ["e", "m"], domain=MS
        ),
        helper.make_node("MatMul", ["e", "w"], ["y"]),
    ]
    held = {"words": TABLES["words"], "places": TABLES["places"], "g": G, "b": B, "w": normal(8, 2)}
    model = model_of(nodes, {}, (2, 4, 2), held)
    model.graph.input.append(helper.make_tensor_value_info("i", onnx.TensorProto.INT32, WORDS.shape))
    compiled = ilin.compile(model, inputs=["e"])
    affine = compiled.at({"i": WORDS})
    assert affine.kind == "affine"
    assert affine.certificate.verified
    np.testing.assert_allclose(affine.W, np.kron(np.eye(8), held["w"].T), atol=1e-6)


# -- as the optimiser makes them -----------------------------------------------------------------------------

HALF, ROOT, ONE = (np.array(v, np.float32) for v in (0.5, 2**0.5, 1))
BLOCK = {"a": normal(8, 16) / 4, "ab": normal(16), "c": normal(16, 8) / 4, "cb": normal(8), "g": G, "b": B}


def block():
    """A feed-forward block with Gelu spelled out, its skip and its normalisation."""
    nodes = [
        ("MatMul", ["x", "a"], "u0"),
        ("Add", ["u0", "ab"], "u"),
        ("Div", ["u", "root"], "t0"),
        ("Erf", ["t0"], "t1"),
        ("Add", ["t1", "one"], "t2"),
        ("Mul", ["u", "t2"], "t3"),
        ("Mul", ["t3", "half"], "v"),
        ("MatMul", ["v", "c"], "w0"),
        ("Add", ["w0", "cb"], "w"),
        ("Add", ["w", "x"], "s"),
        ("LayerNormalization", ["s", "g", "b"], "y"),
    ]
    made = [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes]
    held = BLOCK | {"half": HALF, "root": ROOT, "one": ONE}
    return model_of(made, {"x": X}, X.shape, held)


def feed_forward(x):
    a, ab, c, cb, g, b = (BLOCK[name].astype(float) for name in ("a", "ab", "c", "cb", "g", "b"))
    return normalised(gelu(x @ a + ab) @ c + cb + x, g, b)


def optimised(model, level, path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(path))


@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
def test_optimised_models_have_the_plain_models_map(level, tmp_path):
    plain = block()
    fused = optimised(plain, level, tmp_path / "fused.onnx")
    assert {"BiasGelu", "Gelu", "SkipLayerNormalization"} & {node.op_type for node in fused.graph.node}
    affine = ilin.linearize(fused, X, dtype="float64")
    compare(affine, lambda given: feed_forward(given["x"]), {"x": X})
    np.testing.assert_allclose(affine.y, onnxruntime_of(plain)({"x": X})["y"], rtol=1e-5, atol=1e-6)
    assert ilin.linearize(fused, X, mode="frozen").certificate.verified
