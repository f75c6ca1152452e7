"""SkipLayerNormalization of onnxruntime (com.microsoft): LayerNormalization of input + skip (+ bias).

SkipSimplifiedLayerNormalization takes no mean away. Smooth in what is added; frozen mode holds the deviation.
The fourth output is the sum itself.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..runtime.primitives import chain
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
    """Normalise the sum of some operands as one operand, and hand its terms on to each of them."""
    if any(site.outputs[1:3]):
        raise site.refuse("of its outputs the statistics are not lowered, only both sums")
    shape = site.shape()
    present = [position for position in added if site.has(position)]
    moving = [position for position in present if site.active(position)]
    total, held = np.zeros(shape, site.value().dtype), np.zeros(shape, site.value().dtype)
    for position in present:
        total = total + site.value(position)
        held = held + (0 if position in moving else site.value(position))
    of_sum = replace(
        site,
        inputs=(Operand("", shape, True, total), *(_given(site, p) for p in parameters)),
        outputs=site.outputs[:1],
    )
    (y,) = layer_outputs(of_sum, centred=centred, epsilon=1e-12)
    offset, size = (
        np.zeros(shape, total.dtype) if part is None else part for part in (y.offset, y.offset_size)
    )
    for _, L in y.by_position:
        offset = offset + L.apply(held[None])[0]
        size = size + L.magnitude().apply(np.abs(held)[None])[0]
    on_sum = [(p, site.spread(p, shape)) for p in moving]
    terms = [(p, chain(spread, L)) for p, spread in on_sum for _, L in y.by_position]
    bare = y.offset is None and len(moving) == len(present)
    normal = replace(y, terms=terms, offset=None if bare else offset, offset_size=size)
    outputs = [normal, normal, normal, Local(on_sum, held, kind=Kind.AFFINE)]  # the second and third left out
    return tuple(outputs[: len(site.outputs)])


def _given(site: Site, position: int) -> Operand | None:
    return site.inputs[position] if site.has(position) else None
