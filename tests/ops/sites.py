"""Nodes made by hand: rules are called without a model, in any floating type and at any opset."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx import helper

from ilin.ops import REGISTRY, Local, Operand, Reading, Site


def lowered(
    op_type: str,
    *operands: np.ndarray,
    active: Collection[int] = (0,),
    frozen: bool = False,
    opset: int = 24,
    **attributes: object,
) -> Local:
    """What the rule of an operator says at the given operands, all of them observed."""
    inputs = tuple(Operand(f"x{i}", value.shape, i in active, value) for i, value in enumerate(operands))
    names = tuple(operand.name for operand in inputs)
    site = Site("node", op_type, "", opset, attributes, inputs, names, ("y",), Reading(frozen=frozen))
    return REGISTRY["", op_type].rule(site)


def jacobian(local: Local, position: int = 0) -> np.ndarray:
    """The dense matrix of one operand's terms."""
    return sum(L.matrix().toarray() for at, L in local.by_position if at == position)


def value(local: Local, *operands: np.ndarray) -> np.ndarray:
    """What the lowered node makes of operands."""
    parts = [L.apply(operands[position][None])[0] for position, L in local.by_position]
    return sum(parts) + (0 if local.offset is None else local.offset)


def model_of(op_type: str, *operands: np.ndarray, rank: int, opset: int = 22, **attributes: object):
    """One node as a model whose inputs are named x0, x1, …"""
    element = [helper.np_dtype_to_tensor_dtype(operand.dtype) for operand in operands]
    inputs = [
        helper.make_tensor_value_info(f"x{i}", kind, operand.shape)
        for i, (kind, operand) in enumerate(zip(element, operands, strict=True))
    ]
    output = helper.make_tensor_value_info("y", element[0], [f"d{axis}" for axis in range(rank)])
    node = helper.make_node(op_type, [put.name for put in inputs], ["y"], name="node", **attributes)
    graph = helper.make_graph([node], "net", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
