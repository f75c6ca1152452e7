"""Smooth operators, entry by entry: slopes against mpmath's, gates, kinks, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import mpmath as mp
import numpy as np
import pytest

import ilin

from .sites import jacobian, lowered, model_of, value

WIDE = (-30, -8, -1, -0.3, -1e-8, 0, 1e-8, 0.3, 1, 8, 30)
POSITIVE = (1e-8, 0.3, 1, 8, 30)
UNIT = (-0.9999, -0.3, -1e-8, 0, 1e-8, 0.3, 0.9999)


def logistic(x):
    return 1 / (1 + mp.exp(-x))


# As the definition of Gelu in ONNX holds them, in float32; onnxruntime and the reference evaluator run that.
TWO_BY_PI, CUBIC = (mp.mpf(float(np.float32(v))) for v in (2 / np.pi, 0.044715))


@dataclass(frozen=True)
class Case:
    """An operator's equation and arguments of it."""

    f: Callable
    at: tuple[float, ...] = WIDE
    attributes: dict[str, object] = field(default_factory=dict)


CASES = {
    "Sigmoid": Case(logistic),
    "Tanh": Case(mp.tanh),
    "Exp": Case(mp.exp),
    "Log": Case(mp.log, POSITIVE),
    "Sqrt": Case(mp.sqrt, POSITIVE),
    "Reciprocal": Case(lambda x: 1 / x, tuple(-x for x in POSITIVE) + POSITIVE),
    "Erf": Case(mp.erf),
    "Sin": Case(mp.sin),
    "Cos": Case(mp.cos),
    "Tan": Case(mp.tan),
    "Asin": Case(mp.asin, UNIT),
    "Acos": Case(mp.acos, UNIT),
    "Atan": Case(mp.atan),
    "Sinh": Case(mp.sinh),
    "Cosh": Case(mp.cosh),
    "Asinh": Case(mp.asinh),
    "Acosh": Case(mp.acosh, (1.0001, 1.5, 8, 30)),
    "Atanh": Case(mp.atanh, UNIT),
    "Softplus": Case(lambda x: mp.log1p(mp.exp(x))),
    "Softsign": Case(lambda x: x / (1 + abs(x)), tuple(x for x in WIDE if x)),
    "Elu": Case(
        lambda x: x if x > 0 else mp.mpf(0.5) * mp.expm1(x), tuple(x for x in WIDE if x), {"alpha": 0.5}
    ),
    "Celu": Case(lambda x: x if x > 0 else 2 * mp.expm1(x / 2), tuple(x for x in WIDE if x), {"alpha": 2.0}),
    "Selu": Case(
        lambda x: mp.mpf(1.5) * x if x > 0 else 3 * mp.expm1(x),
        tuple(x for x in WIDE if x),
        {"alpha": 2.0, "gamma": 1.5},
    ),
    "Gelu": Case(lambda x: x * mp.ncdf(x)),
    "Gelu by tanh": Case(
        lambda x: x * logistic(2 * mp.sqrt(TWO_BY_PI) * (x + CUBIC * x**3)),
        attributes={"approximate": "tanh"},
    ),
    "Mish": Case(lambda x: x * mp.tanh(mp.log1p(mp.exp(x)))),
    "Swish": Case(lambda x: x * logistic(mp.mpf(1.5) * x), attributes={"alpha": 1.5}),
    "HardSwish": Case(lambda x: x * min(1, max(0, x / 6 + mp.mpf(0.5)))),
}
GATED = ("Softsign", "Gelu", "Gelu by tanh", "Mish", "Swish", "HardSwish")
ROUNDINGS = 32  # of two functions, of 16 each


def operator(name: str) -> str:
    return name.split()[0]


def arguments(name: str, dtype: type) -> np.ndarray:
    return np.array(CASES[name].at, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_slopes_are_those_of_a_point_as_close_as_rounding(name: str, dtype: type) -> None:
    """|J - f'(x)| ≤ 32 u (|f'| + |x f''|), mixed forward and backward stability; likewise the value."""
    case, x, u = CASES[name], arguments(name, dtype), float(np.finfo(dtype).eps) / 2
    local = lowered(operator(name), x, **case.attributes)
    slopes, values = np.diag(jacobian(local)), value(local, x)
    tiny = float(np.finfo(dtype).tiny)
    with mp.workdps(60):
        for argument, slope, y in zip(x, slopes, values, strict=True):
            at = mp.mpf(float(argument))
            f, first, second = (
                mp.diff(case.f, at, n, h=mp.mpf(10) ** -20) if n else case.f(at) for n in range(3)
            )
            assert abs(slope - first) <= ROUNDINGS * u * (abs(first) + abs(at * second)) + tiny, (
                f"at {argument}"
            )
            assert abs(y - f) <= ROUNDINGS * u * (abs(f) + abs(at * first)) + tiny, f"at {argument}"


def runs(name: str, dtype: type) -> bool:
    """Whether onnxruntime has a kernel."""
    return dtype == np.float32 or (dtype == np.float16 and operator(name) != "Celu")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("mode", ["tangent", "frozen"])
@pytest.mark.parametrize("name", CASES)
def test_answers_are_verified_at_ordinary_and_extreme_arguments(name: str, mode: str, dtype: type) -> None:
    if not runs(name, dtype):
        pytest.skip("onnxruntime has no such kernel")
    x = arguments(name, dtype)
    if dtype == np.float16:  # 1e-8, 0.9999 and exp(30) are beyond it
        x = x[(np.abs(x) < 9) & ((x != 0) | (np.abs(arguments(name, float)) == 0))]
        x = x[np.abs(x) < 1] if CASES[name].at == UNIT else x[x > 1.01] if operator(name) == "Acosh" else x
    model = model_of(operator(name), x, rank=1, opset=24 if name == "Swish" else 22, **CASES[name].attributes)
    answer = ilin.linearize(model, x, mode=mode)
    assert answer.certificate.verified, str(answer.certificate)
    if mode == "tangent":
        assert answer.certificate.slopes.compared == 1


@pytest.mark.parametrize("name", GATED)
def test_frozen_gates_leave_no_offset(name: str) -> None:
    x = arguments(name, np.float32)
    model = model_of(operator(name), x, rank=1, opset=24 if name == "Swish" else 22, **CASES[name].attributes)
    answer = ilin.linearize(model, x, mode="frozen")
    np.testing.assert_array_equal(answer.b, 0)
    with mp.workdps(30):
        exact = np.array([float(CASES[name].f(mp.mpf(float(argument)))) for argument in x])
    np.testing.assert_allclose(answer.W @ x, exact, rtol=1e-6, atol=1e-7 * np.abs(x).max())


@pytest.mark.parametrize(
    ("op_type", "attributes", "at", "slope"),
    [
        ("Elu", {"alpha": 0.5}, 0, 0.5),
        ("Selu", {"alpha": 2.0, "gamma": 1.5}, 0, 3.0),
        ("Celu", {"alpha": 2.0}, 0, 1.0),
        ("HardSwish", {}, -3, 0.0),
        ("HardSwish", {}, 3, 1.5),
    ],
)
def test_a_kink_belongs_to_the_piece_below_it(
    op_type: str, attributes: dict, at: float, slope: float
) -> None:
    x = np.array([at, 0.5], np.float32)
    answer = ilin.linearize(model_of(op_type, x, rank=1, **attributes), x)
    assert answer.W[0, 0] == slope
    assert answer.certificate.verified, str(answer.certificate)


@pytest.mark.parametrize(
    ("op_type", "x", "slopes"),
    [("HardSwish", [-4, 5, -3], [0, 1, 0]), ("Elu", [1, 2, 3], [1, 1, 1]), ("Celu", [0.5, 8, 1], [1, 1, 1])],
)
def test_straight_pieces_hold_around_x(op_type: str, x: list[float], slopes: list[float]) -> None:
    answer = ilin.linearize(model_of(op_type, np.float32(x), rank=1), np.float32(x))
    assert answer.kind == "piecewise-linear"
    np.testing.assert_array_equal(answer.W, np.diag(slopes))
    np.testing.assert_array_equal(answer.b, 0)
    assert answer.certificate.verified
    assert answer.certificate.points_held == 1


@pytest.mark.parametrize(
    ("op_type", "operands", "message"),
    [
        ("Sqrt", [[4.0, 0.0]], "slope in 'x0' is not finite at entry 1, which is 0"),
        ("Asin", [[1.0, 0.5]], "slope in 'x0' is not finite at entry 0, which is 1"),
        ("Acosh", [[2.0, 1.0]], "slope in 'x0' is not finite at entry 1"),
        ("Pow", [[0.0, 2.0], [0.5, 0.5]], "slope in 'x0' is not finite at entry 0, which is 0"),
        ("Pow", [[-2.0, 2.0], [2.0, 2.0]], "slope in 'x1' is not finite at entry 0, which is 2"),
    ],
)
def test_infinite_slopes_are_refused_by_entry(op_type: str, operands: list, message: str) -> None:
    arrays = [np.float32(operand) for operand in operands]
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}
    with pytest.raises(ilin.UnsupportedError, match=message):
        ilin.linearize(model_of(op_type, *arrays, rank=1), feeds)


@pytest.mark.parametrize(
    ("exponent", "kind"),
    [([0.0, 1.0, 1.0], "affine"), ([2.0, 0.0, 3.0], "smooth"), ([0.5, 1.0, -1.0], "smooth")],
)
@pytest.mark.parametrize("whole", [np.float32, np.int64])
def test_powers_by_a_held_exponent(exponent: list[float], kind: str, whole: type) -> None:
    x, p = np.float32([0.5, 2, 3]), np.array(exponent, whole)
    if p.tolist() != exponent:
        pytest.skip("no whole numbers")
    answer = ilin.linearize(model_of("Pow", x, p, rank=1), {"x0": x, "x1": p}, inputs=["x0"])
    assert answer.kind == kind
    np.testing.assert_allclose(np.diag(answer.W), p * x.astype(float) ** (p - 1.0), rtol=1e-6)
    assert answer.certificate.verified, str(answer.certificate)


def test_negative_bases_and_zero_have_their_whole_powers() -> None:
    x, p = np.array([-2.0, 0, 0, 0, -3]), np.array([3.0, 2, 1, 0, -1])
    np.testing.assert_allclose(np.diag(jacobian(lowered("Pow", x, p))), [12, 0, 1, 0, -1 / 9], rtol=1e-15)


def test_frozen_powers_are_those_of_the_product() -> None:
    x, p = np.array([-2.0, 0.5, 3]), np.array([3.0, 2, 1])
    local = lowered("Pow", x, p, frozen=True)
    assert local.frozen
    np.testing.assert_allclose(np.diag(jacobian(local)), [4, 0.5, 1])
    assert local.offset is None
