"""Rules that a user registers: local functions, operators of onnxruntime's own domain, rules replaced."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

import ilin
from ilin import primitives
from ilin.ops import REGISTRY

PAGE = Path(__file__).parents[2] / "docs" / "custom-operators.md"
DOMAIN = "test.example"
X = np.array([[1.5, -2.0, 0.25]], np.float32)


@pytest.fixture(autouse=True)
def registry():
    """Whatever a test registers is gone after it."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def model(text, *functions, domains=(DOMAIN,)):
    graph = parser.parse_graph(text)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=8)


SQUARE = parser.parse_function(
    f'<opset_import: ["" : 17], domain: "{DOMAIN}"> Square (x) => (y) {{ y = Mul (x, x) }}'
)
SCALED = parser.parse_function(
    f"""<opset_import: ["" : 17], domain: "{DOMAIN}"> Scaled <by: float = 3.0> (x) => (y) {{
        k = Constant <value_float: float = @by> ()
        y = Mul (x, k)
    }}"""
)
NESTED = parser.parse_function(
    f"""<opset_import: ["" : 17, "{DOMAIN}" : 1], domain: "{DOMAIN}"> Nested (x) => (y) {{
        u = {DOMAIN}.Square (x)
        y = Neg (u)
    }}"""
)


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S))
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    assert "cannot load the custom-op library libsignal_ops.so" in capsys.readouterr().out


def test_a_local_function_with_a_rule_stays_a_node_wherever_it_is_called():
    proto = model(
        f"""g (float[1, 3] x) => (float[1, 3] y)
        {{ a = {DOMAIN}.Nested (x) b = {DOMAIN}.Square (x) y = Add (a, b) }}""",
        SQUARE,
        NESTED,
    )
    assert [node.op_type for node in ilin.compile(proto).graph.nodes] == ["Mul", "Neg", "Mul", "Add"]

    @ilin.lowers("Square", domain=DOMAIN, kind=ilin.Kind.SMOOTH, observes=(0,))
    def square(site):
        return ilin.elementwise(site, lambda u: u * u, lambda u: 2 * u)

    compiled = ilin.compile(proto, outputs=["b", "y"])
    assert [node.op_type for node in compiled.graph.nodes] == ["Square", "Neg", "Square", "Add"]
    affine = compiled.at(X)
    np.testing.assert_allclose(affine.W[:3], np.diag(2 * X[0]))
    np.testing.assert_allclose(affine.W[3:], 0)  # -x² + x²
    assert affine.certificate.verified
    assert affine.certificate.slopes.compared == 2


@pytest.mark.parametrize(("attribute", "factor"), [("", 3.0), ("<by: float = -2.0>", -2.0)])
def test_defaults_of_a_function_reach_its_rule(attribute, factor):
    @ilin.lowers("Scaled", domain=DOMAIN)
    def scaled(site):
        assert site.formal == ("x",)
        return ilin.Local(primitives.Scale(site.shape(), np.array(site.attribute("by"))))

    proto = model(f"g (float[1, 3] x) => (float[1, 3] y) {{ y = {DOMAIN}.Scaled {attribute} (x) }}", SCALED)
    affine = ilin.linearize(proto, X)
    np.testing.assert_array_equal(affine.W, factor * np.eye(3))
    assert affine.kind == "affine"
    assert affine.certificate.verified


def test_a_function_that_draws_random_numbers_is_no_function_of_x():
    noise = parser.parse_function(
        f"""<opset_import: ["" : 17], domain: "{DOMAIN}"> Noise (x) => (y) {{
            r = RandomNormalLike (x)
            y = Add (x, r)
        }}"""
    )
    ilin.locally_constant(__name__, "Noise", domain=DOMAIN)
    with pytest.raises(ilin.UnsupportedError, match="draws random numbers"):
        ilin.compile(model(f"g (float[1, 3] x) => (float[1, 3] y) {{ y = {DOMAIN}.Noise (x) }}", noise))


def expand_dims(axis):
    """com.microsoft.ExpandDims, which onnxruntime runs and ONNX does not have."""
    graph = helper.make_graph(
        [
            helper.make_node("ExpandDims", ["x", "axis"], ["e"], "expand", domain="com.microsoft"),
            helper.make_node("Relu", ["e"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 3])],
        [onnx.numpy_helper.from_array(np.array(axis, np.int32), "axis")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_an_operator_of_another_domain():
    proto = expand_dims(1)
    REGISTRY.pop(("com.microsoft", "ExpandDims"), None)
    with pytest.raises(ilin.UnsupportedError, match=r"node 'expand' \(ExpandDims, com\.microsoft opset 1\)"):
        ilin.compile(proto)

    @ilin.lowers("ExpandDims", domain="com.microsoft", linear_in=(0,))
    def expanded(site):
        shape = list(site.shape())
        shape.insert(int(site.value(1)), 1)
        return ilin.Local(primitives.Reshape(site.shape(), tuple(shape)))

    affine = ilin.linearize(proto, X)
    np.testing.assert_array_equal(affine.W, np.diag([1, 0, 1]))
    assert affine.output_shapes == {"y": (1, 1, 3)}
    assert affine.certificate.verified
    assert affine.certificate.points_held


def test_a_wrong_rule_is_not_verified():
    @ilin.lowers("Scaled", domain=DOMAIN)
    def scaled(site):
        return ilin.Local(primitives.Scale(site.shape(), np.array(2.0)))

    proto = model(f"g (float[1, 3] x) => (float[1, 3] y) {{ y = {DOMAIN}.Scaled (x) }}", SCALED)
    certificate = ilin.linearize(proto, X).certificate
    assert not certificate.verified
    assert "Scaled" in certificate.reason or certificate.steps.first_bad_node == "y"


@pytest.mark.parametrize(
    ("local", "message"),
    [
        (lambda site: ilin.Local(primitives.Scale((3,), np.array(1.0))), r"takes \[3\].*holds \[1, 3\]"),
        (lambda site: (ilin.Local({}), ilin.Local({})), "gives 2 outputs, but 1 vary"),
    ],
)
def test_a_rule_that_does_not_fit_its_node_is_named(local, message):
    ilin.lowers("Scaled", domain=DOMAIN)(local)
    proto = model(f"g (float[1, 3] x) => (float[1, 3] y) {{ y = {DOMAIN}.Scaled (x) }}", SCALED)
    with pytest.raises(ValueError, match=message):
        ilin.linearize(proto, X)


def test_a_second_rule_is_an_error_and_replace_takes_it():
    proto = model("g (float[1, 3] x) => (float[1, 3] y) { y = Relu (x) }")

    def relu(site):  # the other convention at 0
        x = site.value()
        return ilin.Local(primitives.Scale(x.shape, x >= 0), guards=(ilin.threshold(x),))

    register = {"kind": ilin.Kind.PIECEWISE_LINEAR, "observes": (0,)}
    with pytest.raises(ValueError, match=r"two rules for Relu: ilin\.ops\.relu and .*replace=True"):
        ilin.lowers("Relu", **register)(relu)
    ilin.lowers("Relu", replace=True, **register)(relu)
    np.testing.assert_array_equal(ilin.linearize(proto, np.zeros((1, 3), np.float32)).W, np.eye(3))


def test_replacing_some_uses_leaves_the_others():
    @ilin.lowers("Transpose", when=lambda attributes, _: attributes["perm"] == [0, 1], replace=True)
    def straight(site):
        return ilin.Local(primitives.Reshape(site.shape(), site.shape()))

    entry = REGISTRY["", "Transpose"]
    reading = ilin.ops.Reading()
    assert entry.serving({"perm": [0, 1]}, reading).rule is straight
    assert entry.serving({"perm": [1, 0]}, reading).module == "ilin.ops.transpose"


def test_a_locally_constant_operator_by_its_outputs_and_by_its_guards():
    floor = parser.parse_function(
        f'<opset_import: ["" : 17], domain: "{DOMAIN}"> Level (x) => (y) {{ y = Floor (x) }}'
    )
    proto = model(f"g (float[1, 3] x) => (float[1, 3] y) {{ l = {DOMAIN}.Level (x) y = Mul (l, x) }}", floor)
    ilin.locally_constant(__name__, "Level", domain=DOMAIN)
    unguarded = ilin.linearize(proto, X)

    @ilin.jumps("Level", domain=DOMAIN, replace=True)
    def level(site):
        below = np.floor(site.value())
        return (ilin.between(site.value(), below, below + 1),)

    guarded = ilin.linearize(proto, X)
    for affine in (unguarded, guarded):
        np.testing.assert_array_equal(affine.W, np.diag(np.floor(X[0])))
        assert affine.kind == "piecewise-linear"
        assert affine.certificate.verified
    assert guarded.certificate.ties == 1  # -2 lies on the jump
    assert any("jumps" in note for note in guarded.notes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["none.so"], "onnxruntime cannot load the custom-op library none.so: .*No such file"),
        ([__file__], "onnxruntime cannot load the custom-op library .*test_custom_operators.py"),
        ("none.so", "custom_ops must be a list of paths, not 'none.so'"),
    ],
)
def test_libraries_that_cannot_be_loaded(given, message):
    proto = model("g (float[1, 3] x) => (float[1, 3] y) { y = Relu (x) }")
    with pytest.raises(ilin.OptionError, match=message):
        ilin.compile(proto, custom_ops=given)


def test_operators_of_a_library():
    """NegPos of onnxruntime-extensions, where that is installed: (min(x, 0), max(x, 0))."""
    library = pytest.importorskip("onnxruntime_extensions").get_library_path()
    proto = model(
        """g (float[1, 3] x) => (float[1, 3] y)
        { n, p = ai.onnx.contrib.NegPos (x) y = Sub (p, n) }""",
        domains=("ai.onnx.contrib",),
    )

    @ilin.lowers("NegPos", domain="ai.onnx.contrib", kind=ilin.Kind.PIECEWISE_LINEAR, observes=(0,))
    def parts(site):
        side = ilin.threshold(site.value())
        return tuple(
            ilin.Local(primitives.Scale(site.shape(), mask), guards=(side,))
            for mask in (~side.choice, side.choice)
        )

    with pytest.raises(ilin.ModelError, match="NegPos"):
        ilin.compile(proto)
    affine = ilin.linearize(proto, X, custom_ops=[library])
    np.testing.assert_array_equal(affine.W, np.diag([1, -1, 1]))
    assert affine.certificate.verified
    assert affine.certificate.points_held
