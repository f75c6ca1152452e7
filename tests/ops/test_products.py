"""Products of operands that both depend on x: Jacobians by hand's differences, halves, gates, exact parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import ilin

from ..conformance.oracle import (
    IN_FLOAT32,
    IN_FLOAT64,
    flat_function,
    flattened,
    onnxruntime_of,
    reference_of,
    smooth_slope,
)
from .sites import jacobian, lowered, model_of, value

RANDOM = np.random.default_rng(5)


def numbers(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """An operator with operands that may all depend on x."""

    operands: tuple[np.ndarray, ...]
    rank: int
    attributes: dict[str, object] = field(default_factory=dict)
    op_type: str = ""


CASES = {
    "Mul": Case((numbers(3, 1), numbers(4)), 2),
    "Div": Case((numbers(3, 1), numbers(4) + 3), 2),
    "PRelu": Case((numbers(3, 4), numbers(4)), 2),
    "Pow": Case((np.abs(numbers(3, 1)) + 0.5, numbers(4)), 2),
    "MatMul of stacks": Case((numbers(2, 1, 3, 4), numbers(3, 4, 2)), 4),
    "MatMul of a vector": Case((numbers(4), numbers(2, 4, 3)), 2),
    "MatMul of vectors": Case((numbers(4), numbers(4)), 0),
    "Gemm": Case((numbers(3, 4), numbers(4, 5)), 2),
    "Gemm with C": Case(
        (numbers(4, 3), numbers(5, 4), numbers(1, 5)),
        2,
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": -2.0},
    ),
    "Conv": Case((numbers(1, 2, 7), numbers(3, 2, 3)), 3),
    "Conv with all attributes": Case(
        (numbers(2, 4, 6, 5), numbers(6, 2, 3, 2), numbers(6)),
        4,
        {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]},
    ),
    "Conv by auto_pad": Case((numbers(1, 1, 5, 5), numbers(1, 1, 3, 3)), 4, {"auto_pad": "SAME_UPPER"}),
    "ConvTranspose": Case((numbers(1, 2, 4), numbers(2, 3, 3)), 3, {"strides": [2]}),
    "ConvTranspose with all attributes": Case(
        (numbers(2, 4, 3, 4), numbers(4, 3, 3, 2), numbers(6)),
        4,
        {"group": 2, "strides": [2, 1], "pads": [1, 0, 0, 1], "dilations": [1, 2], "output_padding": [1, 0]},
    ),
    "BatchNormalization": Case(
        (numbers(2, 3, 4), numbers(3), numbers(3), numbers(3), np.abs(numbers(3)) + 0.25), 3
    ),
}
CHOICES = [
    (name, active)
    for name, case in CASES.items()
    for count in range(1, len(case.operands) + 1)
    for active in combinations([f"x{i}" for i in range(len(case.operands))], count)
]


def linearized(name: str, active: tuple[str, ...], **options: object) -> ilin.AffineMap:
    case = CASES[name]
    feeds = {f"x{i}": operand for i, operand in enumerate(case.operands)}
    return ilin.linearize(model(name), feeds, inputs=list(active), **options)


def model(name: str) -> onnx.ModelProto:
    case = CASES[name]
    return model_of(name.split()[0], *case.operands, rank=case.rank, **case.attributes)


@pytest.mark.parametrize("engine", ["sparse", "matrix-free", "adjoint"])
@pytest.mark.parametrize(("name", "active"), CHOICES)
def test_the_jacobian_is_that_of_the_reference_evaluator(
    name: str, active: tuple[str, ...], engine: str
) -> None:
    feeds = {f"x{i}": operand for i, operand in enumerate(CASES[name].operands)}
    answer = linearized(name, active, engine=engine)
    assert answer.certificate.verified, str(answer.certificate)
    accuracy = IN_FLOAT64
    function = flat_function(reference_of(model(name)), feeds, active, ["y"])
    if name == "ConvTranspose with all attributes":  # the evaluator fails with groups of more than one output
        accuracy = IN_FLOAT32
        function = flat_function(onnxruntime_of(model(name)), feeds, active, ["y"], keep_type=True)
    x = flattened([feeds[one] for one in active])
    for column in np.eye(x.size):
        found = smooth_slope(function, x, column, accuracy, np.abs(answer.W).max())
        assert not found.misses(answer.W @ column).any()


@pytest.mark.parametrize("name", [name for name in CASES if name.split()[0] not in ("Pow", "PRelu")])
def test_frozen_products_have_no_offset(name: str) -> None:
    case = CASES[name]
    answer = linearized(name, tuple(f"x{i}" for i in range(len(case.operands))), mode="frozen")
    assert answer.certificate.verified, str(answer.certificate)
    np.testing.assert_array_equal(answer.b, 0)


def test_only_what_is_multiplied_is_smooth() -> None:
    kinds = {
        active: linearized("Gemm with C", active).kind for name, active in CHOICES if name == "Gemm with C"
    }
    assert {active for active, kind in kinds.items() if kind == "smooth"} == {
        ("x0", "x1"),
        ("x0", "x1", "x2"),
    }
    assert linearized("PRelu", ("x1",)).kind == "affine"
    assert linearized("BatchNormalization", ("x0", "x2", "x3")).kind == "affine"
    assert linearized("BatchNormalization", ("x1", "x2")).kind == "affine"
    assert linearized("BatchNormalization", ("x4",)).kind == "smooth"


def test_frozen_slopes_of_prelu_count_half_where_they_count() -> None:
    local = lowered("PRelu", np.array([-2.0, 3]), np.array([0.5, 4]), active=(0, 1), frozen=True)
    np.testing.assert_array_equal(jacobian(local, 0), np.diag([0.25, 1]))
    np.testing.assert_array_equal(jacobian(local, 1), np.diag([-1, 0]))


# -- bounds of Clip ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "active", [("x0", "x1", "x2"), ("x0", "x1"), ("x0", "x2"), ("x1", "x2"), ("x1",), ("x2",)]
)
@pytest.mark.parametrize(
    ("low", "high", "rows"),
    [  # of (x, low, high), for x = -2, 0.5, 3
        (-1.0, 1.0, ["low", "x", "high"]),
        (1.0, -1.0, ["high", "high", "high"]),
        (-3.0, 4.0, ["x", "x", "x"]),
    ],
)
def test_clip_by_bounds_that_depend_on_x(
    active: tuple[str, ...], low: float, high: float, rows: list[str]
) -> None:
    feeds = {"x0": np.float32([-2, 0.5, 3]), "x1": np.float32(low), "x2": np.float32(high)}
    answer = ilin.linearize(model_of("Clip", *feeds.values(), rank=1), feeds, inputs=list(active))
    passing = {"x0": np.diag([row == "x" for row in rows])}
    passing["x1"], passing["x2"] = ([[row == name] for row in rows] for name in ("low", "high"))
    np.testing.assert_array_equal(answer.W, np.hstack([passing[name] for name in active]))
    certificate = answer.certificate
    assert certificate.verified, str(certificate)
    assert certificate.points_held == 1
    assert str(answer.kind) in ("piecewise-linear", "locally constant")


# -- CumProd, Det, SwiGLU: rules alone, where onnxruntime has no kernel --------------------------------------


def differences(f: Callable, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    columns = [(f(x + h * d) - f(x - h * d)).ravel() / (2 * h) for d in np.eye(x.size).reshape(-1, *x.shape)]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_running_products(axis: int, exclusive: int, reverse: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 2))
    x[0, 2, 0] = x[1, 0, 1] = x[1, 1, 1] = 0
    attributes = {"exclusive": exclusive, "reverse": reverse}
    proto = model_of("CumProd", x, np.array(axis), rank=3, opset=26, **attributes)
    evaluator = ReferenceEvaluator(proto)

    def f(x: np.ndarray) -> np.ndarray:
        return evaluator.run(None, {"x0": x, "x1": np.array(axis)})[0]

    tangent = lowered("CumProd", x, np.array(axis), **attributes)
    np.testing.assert_allclose(jacobian(tangent), differences(f, x), atol=1e-8)
    np.testing.assert_allclose(value(tangent, x), f(x), atol=1e-14)
    frozen = lowered("CumProd", x, np.array(axis), frozen=True, **attributes)
    np.testing.assert_allclose(value(frozen, x), f(x), atol=1e-14)
    assert set(np.unique(frozen.offset)) <= {0.0, float(exclusive)}


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 3, 4, 4)])
def test_determinants(shape: tuple[int, ...]) -> None:
    A = np.random.default_rng(0).standard_normal(shape)
    local = lowered("Det", A)
    np.testing.assert_allclose(jacobian(local), differences(np.linalg.det, A), atol=1e-8)
    np.testing.assert_allclose(value(local, A), np.linalg.det(A), atol=1e-14)


@pytest.mark.parametrize(
    ("A", "cofactors"),
    [
        ([[1, 2], [2, 4]], [[4, -2], [-2, 1]]),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 1]]),
    ],
)
def test_the_determinant_of_a_singular_matrix(A: list, cofactors: list) -> None:
    local = lowered("Det", np.array(A, float))
    np.testing.assert_allclose(jacobian(local).reshape(np.shape(A)), cofactors, atol=1e-14)


def test_a_determinant_in_onnxruntime() -> None:
    A = numbers(2, 3, 3)
    answer = ilin.linearize(model_of("Det", A, rank=1), A)
    assert answer.certificate.verified, str(answer.certificate)
    np.testing.assert_allclose(answer.W, differences(np.linalg.det, A.astype(float)), atol=1e-5)


@pytest.mark.parametrize("active", [(0,), (1,), (0, 1)])
def test_gated_products(active: tuple[int, ...]) -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 5)) * 3

    def f(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a / (1 + np.exp(-1.5 * a)) * b

    local = lowered("SwiGLU", a, b, active=active, alpha=1.5, opset=28)
    for position, J in ((0, differences(lambda a: f(a, b), a)), (1, differences(lambda b: f(a, b), b))):
        if position in active:
            np.testing.assert_allclose(jacobian(local, position), J, atol=1e-8)
    np.testing.assert_allclose(value(local, a, b), f(a, b), atol=1e-14)
    if active != (0, 1):  # a is held where b depends on x
        frozen = lowered("SwiGLU", a, b, active=active, frozen=True, alpha=1.5, opset=28)
        np.testing.assert_allclose(value(frozen, a, b), f(a, b), atol=1e-14)
        assert frozen.offset == 0
