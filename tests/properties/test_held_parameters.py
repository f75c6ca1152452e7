"""A parameter that is a graph input may change from point to point; what is kept of a model must not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest

import ilin


@dataclass(frozen=True)
class Parametrised:
    """y = f(x, p) with p a graph input that is held."""

    inputs: str
    body: str
    first: dict[str, list]
    second: dict[str, list]
    outputs: str = "float[n] y"


MODELS = {
    "Gather": Parametrised("float[6] x, int64[3] p", "y = Gather(x, p)", {"p": [0, 1, 2]}, {"p": [5, 3, 3]}),
    "Slice": Parametrised(
        "float[6] x, int64[1] p, int64[1] q",
        "y = Slice(x, p, q)",
        {"p": [0], "q": [3]},
        {"p": [2], "q": [5]},
    ),
    "Pad": Parametrised("float[6] x, int64[2] p", "y = Pad(x, p)", {"p": [1, 2]}, {"p": [2, 1]}),
    "Split": Parametrised(
        "float[6] x, int64[2] p",
        "y, z = Split(x, p)",
        {"p": [2, 4]},
        {"p": [4, 2]},
        "float[n] y, float[m] z",
    ),
    "ReduceSum": Parametrised(
        "float[2, 2] x, int64[1] p", "y = ReduceSum <keepdims = 0> (x, p)", {"p": [0]}, {"p": [1]}
    ),
    "ReduceMean": Parametrised(
        "float[2, 2] x, int64[1] p", "y = ReduceMean <keepdims = 0> (x, p)", {"p": [0]}, {"p": [1]}
    ),
    "ReduceMax": Parametrised(
        "float[2, 2] x, int64[1] p", "y = ReduceMax <keepdims = 0> (x, p)", {"p": [0]}, {"p": [1]}
    ),
    "Expand": Parametrised(
        "float[1, 6] x, int64[2] p",
        "t = Expand(x, p) a = Constant <value = int64[1] {0}> () y = ReduceSum <keepdims = 0> (t, a)",
        {"p": [2, 6]},
        {"p": [3, 6]},
    ),
    "Tile": Parametrised(
        "float[2, 2] x, int64[2] p",
        "t = Tile(x, p) s = Constant <value = int64[1] {8}> () y = Reshape(t, s)",
        {"p": [1, 2]},
        {"p": [2, 1]},
    ),
    "Reshape": Parametrised(
        "float[12] x, int64[2] p",
        "t = Reshape(x, p) u = Transpose(t) s = Constant <value = int64[1] {12}> () y = Reshape(u, s)",
        {"p": [2, 6]},
        {"p": [4, 3]},
    ),
    "Mul": Parametrised("float[3] x, float[3] p", "y = Mul(x, p)", {"p": [0, 1, 2]}, {"p": [3, 0, 1]}),
    "Add": Parametrised("float[3] x, float[3] p", "y = Add(x, p)", {"p": [0, 1, 2]}, {"p": [3, 0, 1]}),
    "Clip": Parametrised("float[6] x, float p", "y = Clip(x, p)", {"p": -0.1}, {"p": 0.3}),
    "PRelu": Parametrised("float[6] x, float[1] p", "y = PRelu(x, p)", {"p": [0.5]}, {"p": [2]}),
    "MatMul": Parametrised(
        "float[2] x, float[2, 2] p", "y = MatMul(x, p)", {"p": [[1, 2], [3, 4]]}, {"p": [[0, 1], [1, 0]]}
    ),
    "Gemm": Parametrised(
        "float[1, 2] x, float[2, 2] p",
        "y = Gemm(x, p)",
        {"p": [[1, 2], [3, 4]]},
        {"p": [[0, 1], [1, 0]]},
        "float[m, n] y",
    ),
    "Conv": Parametrised(
        "float[1, 1, 6] x, float[1, 1, 2] p",
        "y = Conv(x, p)",
        {"p": [[[1, 2]]]},
        {"p": [[[5, 3]]]},
        "float[l, m, n] y",
    ),
    "ConvTranspose": Parametrised(
        "float[1, 1, 6] x, float[1, 1, 2] p",
        "y = ConvTranspose(x, p)",
        {"p": [[[1, 2]]]},
        {"p": [[[5, 3]]]},
        "float[l, m, n] y",
    ),
    "BatchNormalization": Parametrised(
        "float[1, 2] x, float[2] p, float[2] q",
        "y = BatchNormalization(x, p, q, p, q)",
        {"p": [1, 2], "q": [3, 4]},
        {"p": [5, 6], "q": [7, 8]},
        "float[m, n] y",
    ),
    "Resize": Parametrised(
        "float[1, 1, 4] x, float[3] p",
        'y = Resize <mode = "linear"> (x, "", p)',
        {"p": [1, 1, 2]},
        {"p": [1, 1, 2.2]},
        "float[l, m, n] y",
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("engine", ["auto", "sparse", "matrix-free", "adjoint"])
def test_a_compiled_model_is_as_good_as_a_fresh_one(name: str, engine: str) -> None:
    case = MODELS[name]
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> held ({case.inputs}) => ({case.outputs}) {{ {case.body} }}'
    )
    types = {put.name: put.type.tensor_type for put in model.graph.input}
    shape = [dim.dim_value for dim in types["x"].shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def feeds(parameters: dict[str, list]) -> dict[str, np.ndarray]:
        dtypes = {key: onnx.helper.tensor_dtype_to_np_dtype(types[key].elem_type) for key in parameters}
        return {"x": x} | {key: np.array(value, dtypes[key]) for key, value in parameters.items()}

    compiled = ilin.compile(model, inputs=["x"], engine=engine)
    for parameters in (case.first, case.second, case.first):
        kept = compiled.at(feeds(parameters))
        fresh = ilin.linearize(model, feeds(parameters), inputs=["x"], engine="matrix-free")
        assert kept.certificate.verified, str(kept.certificate)
        np.testing.assert_allclose(kept.W, fresh.W, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(kept.b, fresh.b, rtol=1e-5, atol=1e-6)
