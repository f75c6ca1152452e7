"""Graphs and numbers at the edge: an output that is an input, numbers near the smallest there are."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import ilin
from ilin.runtime.archive import sealed, write_archive
from ilin.runtime.saved import to_header, to_members

X = np.array([[1.0, -2.0, 3.0]], np.float32)
ENGINES = ("auto", "sparse", "matrix-free", "adjoint")


def parsed(nodes, weights="", dtype="float", size=3):
    text = f'<ir_version: 8, opset_import: ["" : 17]> net ({dtype}[1,{size}] x) => ({dtype}[N,M] y)'
    return onnx.parser.parse_model(f"{text} {weights} {{ {nodes} }}")


def without_nodes():
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[1,3] x) => (float[1,3] x) { }'
    )


# -- an output that is an input ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("proto", "options"),
    [
        (parsed("h = Relu(x) y = Add(h, x)"), {"outputs": ["x"]}),
        (parsed("h = Relu(x) y = Add(h, x)"), {"inputs": ["h"], "outputs": ["h"]}),
        (parsed("y = Identity(x)"), {}),
        (without_nodes(), {}),
    ],
    ids=["input", "tensor", "identity", "no nodes"],
)
def test_the_map_of_a_tensor_to_itself_is_the_identity(proto, options, engine, dtype, tmp_path):
    affine = ilin.linearize(proto, X, engine=engine, dtype=dtype, **options)
    np.testing.assert_array_equal(affine.W, np.eye(3))
    np.testing.assert_array_equal(affine.b, np.zeros(3))
    assert affine.certificate.verified
    assert affine.certify_deeply().verified
    affine.save(tmp_path / "map.npz")
    np.testing.assert_array_equal(ilin.load(tmp_path / "map.npz").W, np.eye(3))
    assert ilin.verify(tmp_path / "map.npz", proto)


# -- tiny numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "dtype"), [(X * np.float32(1e-24), "float"), (X.astype(np.float64) * 1e-300, "double")]
)
def test_margins_whose_squares_vanish(x, dtype):
    affine = ilin.linearize(parsed("y = Relu(x)", dtype=dtype), x, dtype=str(x.dtype))
    np.testing.assert_array_equal(affine.W, np.diag([1.0, 0.0, 1.0]))
    assert affine.certificate.verified
    assert affine.certificate.points_held == 1


@pytest.mark.parametrize("scale", [1e-60, 1e-40])
def test_a_constant_that_vanishes_in_float32_is_refused(scale):
    proto = parsed("y = Mul(x, k)", f"<double[1] k = {{{scale}}}>", "double")
    with pytest.raises(
        ilin.NonFiniteError, match=r"its operand 'k' holds .* vanishes in float32; .*'float64'"
    ):
        ilin.linearize(proto, X.astype(np.float64))
    affine = ilin.linearize(proto, X.astype(np.float64), dtype="float64")
    np.testing.assert_array_equal(affine.W, scale * np.eye(3))
    assert affine.certificate.verified


def test_outputs_that_vanish_in_float32_are_refused():
    proto = parsed("h = Mul(x, k) y = Mul(h, k)", "<double[1] k = {1e-30}>", "double")
    with pytest.raises(ilin.NonFiniteError, match=r"W vanishes in float32, .* \(3e-60 at most\)"):
        ilin.linearize(proto, X.astype(np.float64))


def test_in_float64_a_wrong_map_of_tiny_numbers_is_not_verified(monkeypatch):
    """Bounds of 1e-38, float32's smallest, would let any such map pass."""
    from ilin.compiler import pipeline

    composed = pipeline.compose

    def wrong(*arguments):
        found = composed(*arguments)
        found.W[:] *= 2
        return found

    monkeypatch.setattr(pipeline, "compose", wrong)
    proto = parsed("y = Mul(x, k)", "<double[1] k = {1e-60}>", "double")
    assert not ilin.linearize(proto, X.astype(np.float64), dtype="float64").certificate.verified


# -- refusals ------------------------------------------------------------------------------------------


def test_a_double_beyond_the_models_float32():
    with pytest.raises(ilin.InputError, match=r"takes float32, and x holds 1e\+300, beyond its range"):
        ilin.linearize(parsed("y = Relu(x)"), np.full((1, 3), 1e300))


def test_complex_z():
    with pytest.raises(ilin.InputError, match="takes real numbers, but z holds complex64"):
        ilin.linearize(parsed("y = Relu(x)"), X)(X.astype(np.complex64))


def test_more_outputs_than_there_are():
    affine = ilin.linearize(parsed("y = Relu(x)"), X, rows=7)
    assert affine.W.shape == (3, 3)
    assert "the 7 largest outputs are asked for, and there are 3" in affine.notes


def test_a_loaded_map_is_not_verified_deeply(tmp_path):
    affine = ilin.linearize(parsed("y = Relu(x)"), X)
    affine.save(tmp_path / "map.npz")
    with pytest.raises(ilin.OptionError, match="loaded or copied with its default certificate"):
        ilin.load(tmp_path / "map.npz").certify_deeply()
    affine.certify_deeply()
    affine.save(tmp_path / "map.npz")
    assert ilin.load(tmp_path / "map.npz").certify_deeply().level == "deep"


def header_without_fields(header, arrays):
    header["certificate"] = {"verified": True}


def header_against_itself(header, arrays):
    header["certificate"]["verified"] = False


def x_of_another_type(header, arrays):
    arrays["x0"] = arrays["x0"].astype(np.float64)


def complex_weights(header, arrays):
    arrays["W"] = arrays["W"].astype(complex)


def textual_weights(header, arrays):
    arrays["W"] = arrays["W"].astype(str)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (header_without_fields, "the certificate in its header lacks fields"),
        (header_against_itself, "says one thing by `verified`, another by `reason`"),
        (x_of_another_type, "an array holds float64, where the header says float32"),
        (complex_weights, "W holds complex128, which are no real numbers"),
        (textual_weights, "W holds <U32, which are no real numbers"),
    ],
)
def test_a_file_that_contradicts_itself(tmp_path, damage, message):
    proto, path = parsed("y = Relu(x)"), tmp_path / "map.npz"
    affine = ilin.linearize(proto, X)
    header, arrays = to_header(affine), to_members(affine)
    damage(header, arrays)
    with path.open("wb") as file:
        write_archive(file, sealed(header, arrays), arrays)
    for read in (ilin.load, lambda path: ilin.verify(path, proto)):
        with pytest.raises(ilin.OutputError, match=message):
            read(path)
