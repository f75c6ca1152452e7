"""The scan outputs of Loop and Scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from ._composite import Composite


def stacked(
    site: Composite,
    outputs: Sequence[onnx.ValueInfoProto],
    scanned: Sequence[Sequence[str]],
    axes: Sequence[int],
    backwards: Sequence[int] = (),
) -> list[str]:
    """Stack what the iterations give.

    Args:
        site: the node.
        outputs: the body's scan outputs, as it declares them.
        scanned: for each iteration, its tensors.
        axes: along which each output is stacked.
        backwards: which outputs have the last iteration first.
    """
    if not scanned:
        return [_empty(site, put, axis) for put, axis in zip(outputs, axes, strict=True)]
    made = []
    for position, axis in enumerate(axes):
        tensors = [iteration[position] for iteration in scanned]
        made.append(site.stack(tensors[::-1] if any(backwards[position : position + 1]) else tensors, axis))
    return made


def _empty(site: Composite, put: onnx.ValueInfoProto, axis: int) -> str:
    """What stands for no iteration: no entries of the declared shape, open axes counted as 0."""
    tensor = put.type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, 0)
    return site.constant(np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
