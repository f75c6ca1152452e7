"""com.microsoft.FusedMatMul: Y = alpha · A' B', a MatMul with the transpositions and the factor around it.

transBatchA moves the first axis of A to where rows are, behind the other batch axes; transA then exchanges
rows and columns; likewise for B. Linear in the operand that depends on x, for the other one fixed.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedMatMul
"""

from dataclasses import replace

from ..runtime.primitives import Transpose, chain
from ._rule import Local, Operand, Site, lowers
from .matmul import matmul


@lowers("FusedMatMul", domain="com.microsoft", products=((0, 1),))
def fused_matmul(site: Site) -> Local:
    """Multiply the transposed operands, the fixed one times alpha."""
    position = 0 if site.active(0) else 1
    orders = _order(site, 0, "A"), _order(site, 1, "B")
    alpha = float(site.attribute("alpha", 1.0))
    operands = [
        Operand(
            site.tensor(i),
            tuple(site.shape(i)[axis] for axis in order),
            site.active(i),
            None if i == position else alpha * site.value(i).transpose(order),
        )
        for i, order in enumerate(orders)
    ]
    ((_, product),) = matmul(replace(site, inputs=tuple(operands))).by_position
    turned = Transpose(site.shape(position), orders[position])
    moved = orders[position] != tuple(sorted(orders[position]))
    return Local({position: chain(turned, product) if moved else product})


def _order(site: Site, position: int, side: str) -> tuple[int, ...]:
    """In which order an operand's axes are read."""
    order = list(range(len(site.shape(position))))
    if len(order) > 1 and site.attribute(f"transBatch{side}", 0):
        order.insert(-1, order.pop(0))
    if len(order) > 1 and site.attribute(f"trans{side}", 0):
        order[-2:] = reversed(order[-2:])
    return tuple(order)
