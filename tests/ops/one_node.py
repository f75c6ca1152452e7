"""Models of one node, and their matrices as onnxruntime itself gives them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

import ilin

from ..conformance.oracle import onnxruntime_of

Values = Mapping[str, np.ndarray | None]


def one_node(op_type: str, active: Values, held: Values, opset: int, *, order=None, domain="", **attributes):
    """A model of one node. Inputs are the active, then the held tensors (None: left out), or in `order`."""
    every = {**active, **held}
    names = [name if every[name] is not None else "" for name in order or every]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, ["y"], domain=domain, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in active.items()
        ],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in held.items() if value is not None],
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    y = onnxruntime_of(model)(active)["y"]
    typed = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(y.dtype), y.shape)
    model.graph.output[0].CopyFrom(typed)
    onnx.checker.check_model(model)
    return model


def differences(model: onnx.ModelProto, x: Values, step: float) -> np.ndarray:
    """The matrix of a model that is affine around x, (outputs, entries of all inputs), column by column."""
    run = onnxruntime_of(model)
    columns = []
    for name, value in x.items():
        for j in range(value.size):
            ends = []
            for side in (step, -step):
                moved = value.copy()
                moved.flat[j] += side
                ends.append(run({**x, name: moved})["y"].astype(np.float64).ravel())
            columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=1)


def assert_same(model: onnx.ModelProto, x: Values, *, step: float = 0.5, tolerance: float = 2e-6) -> None:
    """W is onnxruntime's matrix in both floating types, and every check of the certificate holds.

    The tolerance is in parts of the largest entry of x, whose differences onnxruntime rounds, over the step.
    """
    expected = differences(model, x, step)
    size = max(np.abs(value).max(initial=1) for value in x.values())
    for dtype in ("float64", "float32"):
        atol = max(tolerance * size / step, 1e-6 if dtype == "float32" else 0)
        affine = ilin.linearize(model, dict(x), dtype=dtype)
        np.testing.assert_allclose(affine.W, expected, rtol=0, atol=atol)
        assert affine.certificate.verified, str(affine.certificate)
