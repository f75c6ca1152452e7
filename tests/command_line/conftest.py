"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from ilin.command_line import compile_main, main

from .models import C, Run, U, V, X, run, save, tensor, write


@pytest.fixture
def model(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Gemm", ["x", "U"], ["u"], "first", transB=1),
        helper.make_node("Relu", ["u"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "V", "C"], ["y"], "second", transB=1),
    ]
    path = tmp_path / "model.onnx"
    return save(
        path, nodes, [tensor("x", ["batch", 4])], [tensor("y", ["batch", 3])], {"U": U, "V": V, "C": C}
    )


@pytest.fixture
def two_inputs(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Sub", ["left", "right"], ["difference"], "subtract")]
    inputs = [tensor("left", ["n", 2]), tensor("right", ["n", 2])]
    return save(tmp_path / "two.onnx", nodes, inputs, [tensor("difference", ["n", 2])])


@pytest.fixture
def hopping(tmp_path: Path) -> Path:
    """A model with an operator that nobody supports, behind one that is."""
    nodes = [
        helper.make_node("Gemm", ["x", "U"], ["logits"], "dense", transB=1),
        helper.make_node("Hop", ["logits"], ["y"], "leap", domain="example.org"),
    ]
    return save(tmp_path / "hop.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 3])], {"U": U})


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """1000 inputs, 1000 outputs."""
    nodes = [helper.make_node("Identity", ["x"], ["y"], "copy")]
    return save(tmp_path / "identity.onnx", nodes, [tensor("x", [1, 1000])], [tensor("y", [1, 1000])])


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    """u = U x weighed by its own sigmoid."""
    nodes = [
        helper.make_node("Gemm", ["x", "U"], ["u"], "dense", transB=1),
        helper.make_node("Sigmoid", ["u"], ["s"], "gate"),
        helper.make_node("Mul", ["u", "s"], ["y"], "product"),
    ]
    return save(tmp_path / "gated.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 3])], {"U": U})


@pytest.fixture
def quantised(tmp_path: Path) -> Path:
    """x on a grid of quarters, and back."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["i"], "q"),
        helper.make_node("DequantizeLinear", ["i", "scale", "zero"], ["y"], "d"),
    ]
    weights = {"scale": np.array(0.25, np.float32), "zero": np.array(0, np.int8)}
    return save(tmp_path / "grid.onnx", nodes, [tensor("x", [1, 4])], [tensor("y", [1, 4])], weights)


@pytest.fixture
def x(tmp_path: Path) -> Path:
    return write(tmp_path / "x.npy", X)


@pytest.fixture
def ilin_compile() -> Run:
    return lambda *arguments: run(compile_main, *arguments)


@pytest.fixture
def ilin() -> Run:
    return lambda *arguments: run(main, *arguments)


@pytest.fixture
def refused(ilin_compile: Run) -> Callable[..., str]:
    """Run `ilin-compile`, expect it to refuse, and give its message."""

    def call(*arguments: Any, code: int = 2) -> str:
        result = ilin_compile(*arguments)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1 and result.stderr.endswith("\n")
        return result.stderr.removeprefix("error: ").rstrip("\n")

    return call
