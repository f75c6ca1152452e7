"""Half-spaces of linear regions beside relucent's: are they the same, and how long do they take?

    python benchmarks/half_spaces.py

relucent (`pip install relucent==1.0.0`) reads sequential PyTorch networks; both sides get the same weights in
float64 and the same fresh points. Times are medians over the points of everything from the point to the
half-spaces, networks prepared before: by `compiled.region(x)`, and by `compiled.at(x).region`, which composes
W and b too. Either side runs the model once; relucent's walk ends with its W and b. Names of rows, of which
relucent has none, are left out: ilin makes them when they are read. Facets are compared where relucent's
solver, Gurobi, takes them without a licence.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import onnx
import relucent
import torch
from networks import mlp
from onnx import TensorProto, helper, numpy_helper

import ilin

SIZES = ((4, 16, 16, 3), (16, 64, 64, 10), (784, 100, 100, 10), (784, 512, 512, 10))
POINTS = 25
FACET_POINTS = 5
FACETS = 130  # units up to which facets are compared


def main() -> int:
    """Print a table; 1 where anything differs."""
    print(
        "| network | half-spaces | largest difference | region(x) | at(x).region | relucent | facets | ilin "
        "| relucent |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    same = [_compared(sizes) for sizes in SIZES]
    return 0 if all(same) else 1


def _compared(sizes: tuple[int, ...]) -> bool:
    torch.manual_seed(0)
    net = mlp(sizes)[1:].double().eval().requires_grad_(False)
    compiled, cells = ilin.compile(_exported(net), dtype="float64"), relucent.Complex(net)
    random = np.random.default_rng(0)
    worst = 0.0
    times: list[tuple[float, ...]] = []
    facets: list[tuple[int, float, float]] = []
    equal = True
    for function in (_alone, _of_map):
        function(compiled, random.standard_normal((1, sizes[0])))
    for point in range(POINTS):
        x = random.standard_normal((1, sizes[0]))
        (region, found), alone = _timed(_alone, compiled, x)
        _, of_map = _timed(_of_map, compiled, x)
        (cell, rows), theirs = _timed(_cell, cells, x)
        times.append((alone, of_map, theirs))
        live = np.flatnonzero(np.abs(rows[:, :-1]).any(axis=1))
        mine = np.column_stack([found.A, -found.c])
        worst = max(worst, float(np.abs(mine - rows[live]).max() / np.abs(rows).max()))
        if point < FACET_POINTS and sum(sizes[1:-1]) <= FACETS:
            minimal, mine_s = _timed(region.minimal)
            shared, their_s = _timed(lambda cell=cell: cell.shis)
            places = dict(zip(found.boundaries, live, strict=True))
            equal = equal and sorted(places[b] for b in minimal.boundaries) == sorted(shared)
            facets.append((len(minimal), mine_s, their_s))
    name = "-".join(map(str, sizes))
    told = " | |"
    if facets:
        numbers = ", ".join(str(count) for count, _, _ in facets)
        medians = (statistics.median(one[i] for one in facets) for i in (1, 2))
        told = f" {numbers}{'' if equal else ' (differ)'} | " + " | ".join(_ms(median) for median in medians)
    medians = (_ms(statistics.median(of_one)) for of_one in zip(*times, strict=True))
    print(f"| {name} | {len(found)} | {worst:.1e} | {' | '.join(medians)} |{told} |", flush=True)
    return equal and worst < 1e-12


def _alone(compiled: Any, x: Any) -> Any:
    region = compiled.region(x)
    return region, region.half_spaces()


def _of_map(compiled: Any, x: Any) -> Any:
    region = compiled.at(x).region
    return region, region.half_spaces()


def _cell(cells: Any, x: Any) -> Any:
    cell = cells.point2poly(x, False)
    return cell, np.asarray(cell.halfspaces)


def _timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _exported(net: Any) -> onnx.ModelProto:
    """Linear and Relu as Gemm and Relu, by hand, so that the weights stay in float64."""
    nodes, weights, below = [], [], "x"
    for place, module in enumerate(net):
        if isinstance(module, torch.nn.Linear):
            names = [f"W{place}", f"b{place}"]
            arrays = (module.weight.numpy(), module.bias.numpy())
            weights += [numpy_helper.from_array(a, name) for a, name in zip(arrays, names, strict=True)]
            nodes.append(helper.make_node("Gemm", [below, *names], [f"t{place}"], transB=1))
        else:
            nodes.append(helper.make_node("Relu", [below], [f"t{place}"]))
        below = f"t{place}"
    first, last = net[0].in_features, net[-1].out_features
    puts = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1, n])
        for name, n in (("x", first), (below, last))
    ]
    graph = helper.make_graph(nodes, "mlp", puts[:1], puts[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    sys.exit(main())
