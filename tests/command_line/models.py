"""Small models, files and runs for the command line's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper


def tensor(name: str, shape: Sequence[int | str | None] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path, nodes: Any, inputs: Any, outputs: Any, weights: dict[str, np.ndarray] | None = None
) -> Path:
    """Write a model; the weights become initializers."""
    stored = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="by hand")
    path.write_bytes(model.SerializeToString())
    return path


# x (batch, 4) -> Gemm -> Relu -> Gemm -> y (batch, 3); at X it is W = V D U with D by hand below.
U = np.array([[1, 0, 2, 0], [0, 1, 0, -1], [1, 1, 1, 1]], np.float32)
V = np.array([[1, 2, 0], [0, 1, 1], [-1, 0, 3]], np.float32)
C = np.array([0.5, -0.25, 1], np.float32)
X = np.array([[1, 2, 0.5, 3]], np.float32)  # U x = (2, -1, 6.5): the second unit is dead
W = V @ np.diag([1, 0, 1]).astype(np.float32) @ U  # (3, 4); y = W x + C = (2.5, 6.25, 18.5)


def write(path: Path, value: Any, **options: Any) -> Path:
    np.save(path, value, **options)
    return path


Run = Callable[..., Result]


def run(command: click.Command, *arguments: Any) -> Result:
    """Run a command in this process; anything but an exit is raised here."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
