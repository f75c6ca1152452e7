"""SkipLayerNormalization of onnxruntime (com.microsoft): LayerNormalization of input + skip (+ bias).

SkipSimplifiedLayerNormalization takes no mean away. Smooth in all operands; frozen mode holds the deviation.
The fourth output is the sum itself.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..runtime.primitives import Array, chain
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
    """Normalise the sum of some operands as one operand, and hand its terms on to each of them.

    The statistics between the first output and the sum are declared, but onnxruntime's CPU does not fill
    them: a node that uses them is refused.
    """
    if any(site.outputs[1:3]):
        raise site.refuse("its mean and inverse deviation are not computed by onnxruntime's CPU kernels")
    shape = site.shape()
    present = [position for position in added if site.has(position)]
    total = sum(np.broadcast_to(site.value(position), shape) for position in present)
    held = sum(np.broadcast_to(site.value(p), shape) for p in present if not site.active(p))
    inner = replace(
        site,
        inputs=(
            Operand("", shape, True, total),
            *(site.inputs[p] if site.has(p) else None for p in parameters),
        ),
        outputs=site.outputs[:1],
    )
    (y,) = layer_outputs(inner, centred=centred)
    moving = [position for position in present if site.active(position)]
    terms = [(p, chain(site.spread(p, shape), L)) for _, L in y.by_position for p in moving]
    offset = y.offset
    if len(moving) < len(present):
        share: Array = sum(L.apply(held[None])[0] for _, L in y.by_position)
        offset = share if offset is None else offset + share
    outputs = [replace(y, terms=terms, offset=offset)]
    if len(site.outputs) == 4:
        spread = [(p, site.spread(p, shape)) for p in moving]
        outputs += [outputs[0], outputs[0]]  # left out
        outputs.append(Local(spread, held if len(moving) < len(present) else None, kind=Kind.AFFINE))
    return tuple(outputs[: len(site.outputs)])
