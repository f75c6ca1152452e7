"""Operators that select, move and combine entries: opsets, axes and types that the backend has no case of."""

from __future__ import annotations

import numpy as np
import pytest

from ..conformance.check import check
from .nodes import case_of

RANDOM = np.random.default_rng(5)


def numbers(*shape, dtype=np.float32):
    """Numbers that nowhere tie, and whose signs differ."""
    values = RANDOM.permutation(int(np.prod(shape, dtype=int))) - int(np.prod(shape, dtype=int)) / 2 + 0.3
    return (values / 3).reshape(shape).astype(dtype)


def ints(*values, dtype=np.int64):
    return np.array(values, dtype)


X, V = numbers(3, 4), numbers(2, 3, 4)
BOOLS = np.array([[True], [False], [True]])

# Name: operator, inputs, opset, attributes, active.
NODES = {
    "Where, both branches": ("Where", {"c": BOOLS, "x": X, "y_": numbers(4)}, 16, {}, ("x", "y_")),
    "Where, first branch of one entry": ("Where", {"c": BOOLS, "x": numbers(1), "y_": X}, 9, {}, ("x",)),
    "Where, second branch": ("Where", {"c": BOOLS, "x": X, "y_": numbers(2, 1, 1)}, 9, {}, ("y_",)),
    "Where, the condition is the largest": ("Where", {"c": V > 0, "x": X, "y_": numbers()}, 16, {}, ("y_",)),
    "Where in half precision": (
        "Where",
        {"c": BOOLS, "x": X.astype(np.float16), "y_": numbers(4, dtype=np.float16)},
        16,
        {},
        ("x",),
    ),
    "Compress of the flattened entries": ("Compress", {"x": X, "c": ints(0, 1, 1, 0, 1).astype(bool)}, 9, {}),
    "Compress, a negative axis": ("Compress", {"x": X, "c": ints(1, 0, 1).astype(bool)}, 11, {"axis": -1}),
    "Compress to nothing": ("Compress", {"x": X, "c": ints(0, 0).astype(bool)}, 11, {"axis": 1}),
    "GatherElements, shorter": ("GatherElements", {"x": X, "i": ints([-1, 0], [2, -3])}, 11, {"axis": 0}),
    "GatherElements, int32": (
        "GatherElements",
        {"x": V, "i": ints([[1, -4, 3, 3]], [[0, 0, -1, 2]], dtype=np.int32).repeat(3, 1)},
        13,
        {"axis": -1},
    ),
    "GatherND of entries": ("GatherND", {"x": V, "i": ints([0, -1, 2], [-2, 0, -4])}, 11, {}),
    "GatherND of slices": ("GatherND", {"x": V, "i": ints([[1]], [[-2]])}, 12, {}),
    "GatherND in a batch": ("GatherND", {"x": V, "i": ints([[-1]], [[0]])}, 13, {"batch_dims": 1}),
    "GatherND in two batches": (
        "GatherND",
        {"x": V, "i": RANDOM.integers(-4, 4, (2, 3, 5, 1))},
        13,
        {"batch_dims": 2},
    ),
    "OneHot along the first axis": (
        "OneHot",
        {"i": ints(0, -1, 3, 9), "d": ints(4), "values": numbers(2)},
        11,
        {"axis": 0},
        ("values",),
    ),
    "OneHot of numbers that are not whole": (
        "OneHot",
        {"i": np.float32([[1.7, -1.0]]), "d": np.float32([3.0]), "values": numbers(2)},
        9,
        {"axis": -2},
        ("values",),
    ),
    "Trilu, upper": ("Trilu", {"x": V}, 14, {}),
    "Trilu, lower and shifted": ("Trilu", {"x": V, "k": np.array(-1)}, 14, {"upper": 0}),
    "Trilu, upper and shifted": ("Trilu", {"x": numbers(4, 3), "k": np.array(2)}, 14, {"upper": 1}),
    "Trilu beyond the matrix": ("Trilu", {"x": X, "k": np.array(9)}, 14, {"upper": 1}),
    "ReverseSequence, batch first": (
        "ReverseSequence",
        {"x": V, "n": ints(1, 3)},
        10,
        {"batch_axis": 0, "time_axis": 1},
    ),
    "ReverseSequence, time first": ("ReverseSequence", {"x": X, "n": ints(3, 1, 2, 3)}, 10, {}),
    "CenterCropPad, odd": ("CenterCropPad", {"x": numbers(5, 2), "n": ints(2, 5)}, 18, {}),
    "CenterCropPad, some axes": (
        "CenterCropPad",
        {"x": V, "n": ints(1, 3)},
        18,
        {"axes": [-1, 0]},
    ),
    "CumSum, exclusive": ("CumSum", {"x": V, "axis": np.array(-2)}, 11, {"exclusive": 1}),
    "CumSum, backwards": ("CumSum", {"x": X, "axis": ints(1, dtype=np.int32)}, 14, {"reverse": 1}),
    "CumSum, backwards and exclusive": (
        "CumSum",
        {"x": numbers(6, dtype=np.float64), "axis": np.array(0)},
        14,
        {"reverse": 1, "exclusive": 1},
    ),
    "CumSum of nothing": ("CumSum", {"x": numbers(0, 4), "axis": np.array(0)}, 14, {}),
    "Scatter of old": ("Scatter", {"x": X, "i": ints([1, 0, 2, 2]), "u": numbers(1, 4)}, 9, {}, ("x", "u")),
    "ScatterElements, shorter": (
        "ScatterElements",
        {"x": X, "i": ints([-1], [0], dtype=np.int32), "u": numbers(2, 1)},
        11,
        {"axis": -1},
        ("x", "u"),
    ),
    "ScatterElements, no updates": (
        "ScatterElements",
        {"x": X, "i": np.zeros((0, 4), np.int64), "u": numbers(0, 4)},
        13,
        {},
        ("x",),
    ),
    "ScatterND, slices": ("ScatterND", {"x": V, "i": ints([-1]), "u": numbers(1, 3, 4)}, 11, {}, ("x", "u")),
    "ScatterND, updates alone": ("ScatterND", {"x": X, "i": ints([0, -1]), "u": numbers(1)}, 13, {}, ("u",)),
    "Mod, towards zero": (
        "Mod",
        {"x": 4 * X, "b": np.float32(1.1337) * numbers(4)},
        10,
        {"fmod": 1},
        ("x", "b"),
    ),
    "Mod, rounded down": ("Mod", {"x": 4 * X, "b": np.float32(1.1337) * numbers(4)}, 28, {}, ("x", "b")),
    "Mod, of a held number": ("Mod", {"x": 4 * numbers(4), "b": X}, 13, {"fmod": 1}, ("b",)),
    "Mod, by a held number": ("Mod", {"x": 4 * X, "b": np.float32([-0.7])}, 13, {"fmod": 1}, ("x",)),
    "TopK as an attribute": ("TopK", {"x": V}, 1, {"k": 2, "axis": 1}),
    "TopK of opset 10": ("TopK", {"x": V, "k": ints(3)}, 10, {}),
    "TopK, smallest": ("TopK", {"x": V, "k": ints(2)}, 11, {"largest": 0, "axis": -2}),
    "TopK of all": ("TopK", {"x": X, "k": ints(4)}, 11, {}),
    "TopK, one, in any order": ("TopK", {"x": X, "k": ints(1)}, 11, {"sorted": 0}),
    "TopK in float64": ("TopK", {"x": numbers(7, dtype=np.float64), "k": ints(3)}, 11, {}),
    "Unique, in order of occurrence": ("Unique", {"x": X}, 11, {"sorted": 0}),
    "Unique slices": ("Unique", {"x": V}, 11, {"axis": -2}),
    "Unique slices, in order of occurrence": ("Unique", {"x": X}, 11, {"axis": 1, "sorted": 0}),
    "ReduceL1, axes as an attribute": ("ReduceL1", {"x": V}, 13, {"axes": [-1, 0], "keepdims": 0}),
    "ReduceL1 of all": ("ReduceL1", {"x": V}, 18, {}),
    "ReduceL1 of a number": ("ReduceL1", {"x": numbers()}, 18, {"keepdims": 0}),
    "LpPool, overlapping": (
        "LpPool",
        {"x": numbers(2, 2, 5, 6)},
        18,
        {"p": 1, "kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]},
    ),
    "LpPool, to the same size": (
        "LpPool",
        {"x": numbers(1, 2, 5)},
        11,
        {"p": 1, "kernel_shape": [4], "auto_pad": "SAME_LOWER"},
    ),
    "MaxPool, cropped": (
        "MaxPool",
        {"x": numbers(1, 2, 3, 7, dtype=np.float64)},
        12,
        {"kernel_shape": [1, 2], "strides": [3, 4], "auto_pad": "SAME_UPPER"},
    ),
    "LpPool, cropped": (
        "LpPool",
        {"x": numbers(1, 2, 3, 7)},
        11,
        {"p": 1, "kernel_shape": [1, 1], "strides": [3, 4], "auto_pad": "SAME_UPPER"},
    ),
    "LpPool, dilated": (
        "LpPool",
        {"x": numbers(1, 1, 6, 5)},
        22,
        {"p": 1, "kernel_shape": [2, 2], "dilations": [2, 3], "ceil_mode": 1, "strides": [2, 2]},
    ),
    "GlobalLpPool": ("GlobalLpPool", {"x": numbers(2, 3, 4, 2)}, 2, {"p": 1}),
    "ThresholdedRelu below 0": ("ThresholdedRelu", {"x": X}, 10, {"alpha": -0.5}),
    "ThresholdedRelu by default": ("ThresholdedRelu", {"x": X}, 10, {}),
    "Shrink, hard": ("Shrink", {"x": X}, 9, {}),
    "Shrink, between": ("Shrink", {"x": X}, 9, {"lambd": 0.75, "bias": 0.25}),
    "Shrink from beyond": ("Shrink", {"x": X}, 9, {"lambd": -0.75, "bias": 0.25}),
    "CastLike": ("CastLike", {"x": X, "like": np.float64([1, 2])}, 15, {}, ("x",)),
    "Range, all": (
        "Range",
        {"start": np.float32(0.5), "limit": np.float32(4), "delta": np.float32(0.75)},
        11,
        {},
        ("start", "limit", "delta"),
    ),
    "Range, long": (
        "Range",
        {"start": np.float32(0.5), "limit": np.float32(700), "delta": np.float32(0.7)},
        11,
        {},
        ("start", "limit", "delta"),
    ),
    "Range, down": (
        "Range",
        {"start": np.float64(1), "limit": np.float64(-2.3), "delta": np.float64(-1)},
        11,
        {},
        ("delta",),
    ),
    "Range, its end": (
        "Range",
        {"start": np.float32(1), "limit": np.float32(2.5), "delta": np.float32(1)},
        11,
        {},
        ("limit",),
    ),
    "NegativeLogLikelihoodLoss, int32": (
        "NegativeLogLikelihoodLoss",
        {"x": numbers(4, 3), "t": ints(0, 2, -1, 1, dtype=np.int32), "w": numbers(3)},
        12,
        {"ignore_index": -1},
        ("x",),
    ),
    "NegativeLogLikelihoodLoss, weights": (
        "NegativeLogLikelihoodLoss",
        {"x": numbers(2, 3, 2), "t": ints([0, 9], [2, 1]), "w": numbers(3)},
        13,
        {"ignore_index": 9, "reduction": "sum"},
        ("w",),
    ),
    "NegativeLogLikelihoodLoss, a plain mean": (
        "NegativeLogLikelihoodLoss",
        {"x": numbers(2, 3, 2), "t": ints([0, 9], [2, 1])},
        13,
        {"ignore_index": 9},
        ("x",),
    ),
}
for _reduction in ("add", "max", "min"):
    NODES[f"ScatterElements, {_reduction}, several for one entry"] = (
        *("ScatterElements", {"x": X, "i": ints([1, 1, -2], [2, 1, 1]), "u": numbers(2, 3) - 0.1}, 18),
        *({"axis": 1, "reduction": _reduction}, ("x", "u")),
    )
    for _active in ("x", "u"):
        NODES[f"ScatterND, {_reduction}, only {_active}"] = (
            *("ScatterND", {"x": X, "i": ints([0], [-1], [0]), "u": numbers(3, 4) + 0.1}, 18),
            *({"reduction": _reduction}, (_active,)),
        )
NODES["ScatterElements, mul, data"] = (
    *("ScatterElements", {"x": X, "i": ints([1, 1, 0, 2], [1, 2, 2, 1]), "u": numbers(2, 4)}, 16),
    *({"reduction": "mul"}, ("x",)),
)
NODES["ScatterElements, mul, updates"] = (
    *("ScatterElements", {"x": X, "i": ints([1, 0, 0, 2]), "u": numbers(1, 4)}, 16),
    *({"reduction": "mul"}, ("u",)),
)


@pytest.mark.parametrize("name", NODES)
def test_the_map_is_the_operators_value_and_slope(name):
    op_type, inputs, opset, attributes, *active = NODES[name]
    outputs = 2 if op_type == "TopK" else 1
    check(case_of(op_type, inputs, opset, outputs, **attributes), active[0] if active else ("x",))
