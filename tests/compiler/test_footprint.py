"""What a stage is said to take in memory, against what numpy allocates while it runs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import ilin
from ilin.compiler.bounds import rounding_at
from ilin.compiler.evidence import Evidence
from ilin.compiler.footprint import (
    bounds_bytes,
    explicit_bytes,
    rows_that_fit,
    stored_entries,
    sweep_bytes,
    walk_bytes,
)
from ilin.compiler.multiplier import matrix_free
from ilin.compiler.sweep import Magnitudes, bounds_back, rows_back
from ilin.compiler.trace import Trace
from ilin.runtime.primitives import Chain
from ilin.runtime.rounding import Arithmetic
from ilin.runtime.transpose import tangent, transposed

from ..programs import program_at
from ..properties.builder import Graph
from ..properties.graphs import graphs
from ..properties.test_random_graphs import COMMON

RANDOM = np.random.default_rng(5)
SIDE = 40  # so that blocks are large beside numpy's own buffers
SLACK = 200_000  # bytes: those buffers, and Python's objects


def network(layers, outputs):
    """A model over an image x (1, 6, SIDE, SIDE); layers are (op, inputs, output, weights, attributes)."""
    nodes, stored = [], []
    for op, inputs, output, weights, attributes in layers:
        names = [f"{output}_{i}" for i in range(len(weights))]
        stored += [numpy_helper.from_array(np.asarray(w), n) for w, n in zip(weights, names, strict=True)]
        nodes.append(make_node(op, [*inputs, *names], [output], **attributes))
    x = make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, SIDE, SIDE])
    op = layers[-1][0]
    ends = [
        make_tensor_value_info(name, TensorProto.FLOAT, [None] * (2 if op == "Gemm" else 4))
        for name in outputs
    ]
    graph = make_graph(nodes, "net", [x], ends, stored)
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def conv(x, y, inside, outside, size, group=1, **attributes):
    weights = [
        RANDOM.standard_normal((outside, inside // group, size, size)).astype(np.float32) / size**2,
        RANDOM.standard_normal(outside).astype(np.float32),
    ]
    return ("Conv", [x], y, weights, {"group": group, **attributes})


NETWORKS = {
    "convolutions": (
        [
            conv("x", "a", 6, 24, 3, pads=[1] * 4),
            ("Relu", ["a"], "b", [], {}),
            conv("b", "c", 24, 24, 1),
            ("Relu", ["c"], "d", [], {}),
            conv("d", "y", 24, 4, 3),
        ],
        ["y"],
    ),
    "residual": (
        [
            conv("x", "a", 6, 16, 5, pads=[2] * 4),
            ("Relu", ["a"], "b", [], {}),
            conv("b", "c", 16, 16, 3, pads=[1] * 4),
            ("Add", ["c", "b"], "d", [], {}),
            ("Relu", ["d"], "e", [], {}),
            ("GlobalAveragePool", ["e"], "y", [], {}),
        ],
        ["y"],
    ),
    "pooled": (
        [
            conv("x", "a", 6, 32, 3, pads=[1] * 4),
            ("Relu", ["a"], "b", [], {}),
            ("MaxPool", ["b"], "c", [], {"kernel_shape": [3, 3], "strides": [2, 2]}),
            conv("c", "d", 32, 16, 3),
            ("Flatten", ["d"], "e", [], {}),
            (
                "Gemm",
                ["e"],
                "y",
                [RANDOM.standard_normal((16 * 17 * 17, 100)).astype(np.float32)],
                {},
            ),
        ],
        ["y"],
    ),
    "depthwise": (
        [
            conv("x", "a", 6, 32, 1),
            ("Clip", ["a"], "b", [np.float32(0), np.float32(6)], {}),
            conv("b", "c", 32, 32, 3, group=32, pads=[1] * 4),
            ("Relu", ["c"], "d", [], {}),
            conv("d", "e", 32, 32, 1),
            ("Add", ["e", "b"], "y", [], {}),
        ],
        ["y"],
    ),
    "concatenated": (
        [
            conv("x", "a", 6, 12, 3, pads=[1] * 4),
            ("Concat", ["x", "a"], "b", [], {"axis": 1}),
            ("Relu", ["b"], "c", [], {}),
            conv("c", "d", 18, 12, 3, pads=[1] * 4),
            ("Concat", ["c", "d"], "e", [], {"axis": 1}),
            ("Transpose", ["e"], "f", [], {"perm": [0, 2, 3, 1]}),
            ("Relu", ["f"], "y", [], {}),
        ],
        ["y"],
    ),
    "upsampled": (
        [
            conv("x", "a", 6, 8, 3, pads=[1] * 4),
            ("Relu", ["a"], "b", [], {}),
            (
                "ConvTranspose",
                ["b"],
                "c",
                [RANDOM.standard_normal((8, 8, 2, 2)).astype(np.float32)],
                {"strides": [2, 2]},
            ),
            ("Relu", ["c"], "y", [], {}),
        ],
        ["y"],
    ),
}


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def program(request):
    x = RANDOM.standard_normal((1, 6, SIDE, SIDE)).astype(np.float32)
    return program_at(ilin.compile(network(*NETWORKS[request.param])), x)


def allocated(call):
    """Bytes at the peak, beyond what there was before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_close(said, found, most=2.5):
    """At most 10 % too little, and at most two and a half times what it takes."""
    assert 0.9 * found - SLACK <= said <= most * found + SLACK, f"{said:,} of {found:,}: {said / found:.2f}"


@pytest.mark.parametrize("k", [1, 4, 20])
def test_a_reverse_sweep(program, k):
    rows = np.resize(np.arange(program.out_size), k)
    sweep = rows_back(program, matrix_free(program), np.dtype(np.float32))
    assert_close(sweep_bytes(program, k, np.float32, points=0), allocated(lambda: sweep(rows)))


@pytest.mark.parametrize("k", [1, 4, 20])
def test_a_sweep_of_bounds(program, k):
    rows = np.resize(np.arange(program.out_size), k)
    errors = {step.output: np.ones((3, *step.shape), np.float32) for step in program.steps}
    sweep = bounds_back(program, matrix_free(program), np.dtype(np.float32), Magnitudes(errors, {}, 3))
    assert_close(sweep_bytes(program, k, np.float32), allocated(lambda: sweep(rows)))


@pytest.mark.parametrize("k", [1, 4, 20])
@pytest.mark.parametrize("direction", [tangent, transposed])
def test_a_walk(program, direction, k):
    way = direction(program)

    def walk():
        inputs = {name: np.ones((k, *shape), np.float32) for name, shape in way.inputs}
        for _ in way.walk(inputs, [0.0] * k):
            pass

    assert_close(walk_bytes(way, k, np.float32), allocated(walk), most=3.0)


def test_rounding_bounds(program):
    x = {name: np.ones(shape, np.float32) for name, shape in program.inputs}
    arithmetic = Arithmetic.of(np.float32)
    here = Evidence(Trace(x, x), [], 0, arithmetic)
    rounding_at(program, here, np.float32, arithmetic)  # weights' magnitudes are kept from then on
    found = allocated(lambda: rounding_at(program, here, np.float32, arithmetic))
    assert_close(bounds_bytes(program, 1, np.float32), found)


@settings(COMMON, max_examples=100)
@given(graphs())
def test_entries_of_matrices(graph: Graph) -> None:
    compiled = ilin.compile(graph.model, inputs=graph.active, outputs=graph.outputs)
    program = program_at(compiled, graph.feeds)
    total = 0
    for step in program.steps:
        for _, L in step.terms:
            for way in (L, L.T):
                matrix = way.matrix()
                if isinstance(way, Chain):
                    assert stored_entries(way) >= matrix.nnz
                else:
                    assert stored_entries(way) == matrix.nnz, type(way).__name__
            total += 8 * L.matrix().nnz
    assert explicit_bytes(program, np.float32) >= total


def test_the_rows_that_fit_do_fit_and_no_more_would(program):
    for budget in (3_000_000, 30_000_000, 300_000_000):
        k = rows_that_fit(program, 10_000, np.float32, budget)
        assert k == 1 or sweep_bytes(program, k, np.float32) <= budget
        assert sweep_bytes(program, k + k // 2 + 2, np.float32) > budget  # nor is much left over
    assert rows_that_fit(program, 7, np.float32, 10**12) == 7
    assert rows_that_fit(program, 7, np.float32, 1) == 1
