"""SkipLayerNormalization of onnxruntime (com.microsoft): LayerNormalization of input + skip (+ bias).

SkipSimplifiedLayerNormalization takes no mean away. Smooth in what is added; frozen mode holds the deviation.
The fourth output is the sum itself.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..runtime.primitives import Array, Primitive, chain
from ..runtime.program import Kind
from ._rule import Local, Operand, Site, lowers
from .fused_activations import MICROSOFT
from .layer_normalization import layer_outputs


@lowers("SkipLayerNormalization", domain=MICROSOFT, kind=Kind.SMOOTH, observes=None, linear_in=(0, 1, 4))
def skip_layer_normalization(site: Site) -> tuple[Local, ...]:
    """Add, then normalise: inputs are x, skip, scale, shift, bias."""
    return _skipped(site, (0, 1, 4), (2, 3), centred=True)


@lowers(
    *("SkipSimplifiedLayerNormalization",),
    domain=MICROSOFT,
    kind=Kind.SMOOTH,
    observes=None,
    linear_in=(0, 1, 3),
)
def skip_simplified_layer_normalization(site: Site) -> tuple[Local, ...]:
    """Add, then normalise about 0: inputs are x, skip, scale, bias."""
    return _skipped(site, (0, 1, 3), (2,), centred=False)


def _skipped(
    site: Site, added: tuple[int, ...], parameters: tuple[int, ...], *, centred: bool
) -> tuple[Local, ...]:
    """Normalise the sum of some operands."""
    if any(site.outputs[1:3]):
        raise site.refuse("of its outputs the statistics are not lowered, only both sums")
    shape = site.shape()
    parts = {position: site.spread(position, shape) for position in added if site.has(position)}
    normal, total = normalised_sum(site, parts, parameters, centred=centred)
    outputs = [normal, normal, normal, total]  # the second and third left out
    return tuple(outputs[: len(site.outputs)])


def normalised_sum(
    site: Site, parts: Mapping[int, Primitive], parameters: tuple[int, ...], *, centred: bool
) -> tuple[Local, Local]:
    """Normalise a sum as one operand, and hand its terms on to each of its parts.

    Args:
        site: the node; its operands are observed.
        parts: position of each operand that is added to its map into the sum's shape.
        parameters: positions of scale and shift.
        centred: whether the mean is taken away.

    Returns:
        The normalised sum, and the sum itself.
    """
    values = {position: L.apply(site.value(position)[None])[0] for position, L in parts.items()}
    moving = [position for position in parts if site.active(position)]
    total = np.asarray(sum(values.values()))
    shape = total.shape
    zeros: Array = np.zeros(shape, total.dtype)
    held = sum((value for position, value in values.items() if position not in moving), zeros)
    of_sum = replace(
        site,
        inputs=(Operand("", shape, True, total), *(_given(site, p) for p in parameters)),
        outputs=site.outputs[:1],
    )
    (y,) = layer_outputs(of_sum, centred=centred, epsilon=1e-12)
    offset, size = (zeros if part is None else part for part in (y.offset, y.offset_size))
    for _, L in y.by_position:
        offset = offset + L.apply(held[None])[0]
        size = size + L.magnitude().apply(np.abs(held)[None])[0]
    terms = [(p, chain(parts[p], L)) for p in moving for _, L in y.by_position]
    bare = y.offset is None and len(moving) == len(parts)
    normal = replace(y, terms=terms, offset=None if bare else offset, offset_size=size)
    return normal, Local([(p, parts[p]) for p in moving], held, kind=Kind.AFFINE)


def _given(site: Site, position: int) -> Operand | None:
    return site.inputs[position] if site.has(position) else None
