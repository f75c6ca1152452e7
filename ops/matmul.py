"""MatMul: numpy.matmul of two operands; N-D operands are stacks of matrices.

Linear in one operand where the other is fixed: the fixed one's matrices as blocks. Smooth where both depend
on x.
https://onnx.ai/onnx/operators/onnx__MatMul.html
"""

import numpy as np

from ..runtime.primitives import Array, Broadcast, Contract, Primitive, Reshape, Shape, chain
from ._rule import Local, Site, lowers
from ._smooth import product

_BATCH = "abcdefgh"


@lowers("MatMul", products=((0, 1),), tangent=True)
def matmul(site: Site) -> Local:
    """Multiply each active stack of matrices by the other."""
    return product(site, lambda position: times(site.shape(position), site.value(1 - position), position))


def times(own: Shape, weight: Array, position: int) -> Primitive:
    """The map of one operand, the left one at position 0, with the other fixed."""
    other = weight.shape
    # A vector is a matrix with one row (left) or one column (right); that axis is dropped again at the end.
    x_shape = _as_matrix(own, position)
    weight = weight.reshape(_as_matrix(other, 1 - position))
    batch = np.broadcast_shapes(x_shape[:-2], weight.shape[:-2])
    full: Shape = (*batch, *x_shape[-2:])
    x_axes, w_axes = ("mk", "kn") if position == 0 else ("kn", "mk")
    labels = _BATCH[: len(batch)]
    weight, w_batch = _without_unit_axes(weight, labels)
    contract = Contract(full, weight, f"{labels}{x_axes},{w_batch}{w_axes}->{labels}mn")
    *lead, rows, columns = contract.out_shape
    left, right = (own, other) if position == 0 else (other, own)
    shape = (*lead, *((rows,) if len(left) > 1 else ()), *((columns,) if len(right) > 1 else ()))
    parts = [Reshape(own, x_shape)] if own != x_shape else []
    return chain(
        *parts,
        *([Broadcast(x_shape, full)] if x_shape != full else []),
        contract,
        *([Reshape(contract.out_shape, shape)] if shape != contract.out_shape else []),
    )


def _as_matrix(shape: Shape, position: int) -> Shape:
    if len(shape) > 1:
        return shape
    return (1, *shape) if position == 0 else (*shape, 1)


def _without_unit_axes(weight: Array, labels: str) -> tuple[Array, str]:
    """Drop the batch axes of length 1, which broadcast, and return the labels of those kept."""
    own = labels[len(labels) - (weight.ndim - 2) :]
    kept = [axis for axis in range(weight.ndim - 2) if weight.shape[axis] > 1]
    shape = (*(weight.shape[axis] for axis in kept), *weight.shape[-2:])
    return weight.reshape(shape), "".join(own[axis] for axis in kept)
