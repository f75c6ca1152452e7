"""CausalConvWithState: y = f(w ⋆ [past, x] + b), each channel by itself; present = the end of [past, x].

Linear in x and past together for a fixed w, in w for fixed x and past, and in b, where f is the identity.
With f(z) = z / (1 + exp(-z)), silu or swish, smooth; frozen mode holds the sigmoid. onnxruntime has the
operator in com.microsoft too, where taps may be dilated.
https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..runtime.primitives import Array, Broadcast, Contract, Conv, Gather, Primitive, Reshape, Window, chain
from ..runtime.program import Kind
from ._fused import activated
from ._moves import gathered, positions
from ._rule import Local, Reading, Site, lowers

_MICROSOFT = "com.microsoft"
_PRODUCTS = ((0, 1), (1, 3))
_USUAL = {
    "ndim": 1,
    "channels_last": 0,
    "input_channels": 0,
    "input_channel_offset": 0,
    "state_window": 0,
    "state_length": 0,
}  # attributes of onnxruntime's, and what is lowered


def _plain(attributes: Mapping[str, Any], _: Reading) -> bool:
    """Whether nothing is applied to the sums."""
    return bool(attributes.get("activation", "none") == "none")


def _activated(attributes: Mapping[str, Any], reading: Reading) -> bool:
    return not _plain(attributes, reading)


@lowers("CausalConvWithState", kind=Kind.SMOOTH, observes=None, products=_PRODUCTS, when=_activated)
@lowers(
    "CausalConvWithState",
    domain=_MICROSOFT,
    kind=Kind.SMOOTH,
    observes=None,
    products=_PRODUCTS,
    when=_activated,
)
def activated_causal_conv(site: Site) -> tuple[Local, Local]:
    """Weigh the sums by their sigmoids."""
    z, present = causal_conv_with_state(site)
    return activated(site, z, "Swish", {}), replace(present, kind=Kind.AFFINE)


@lowers("CausalConvWithState", products=_PRODUCTS, when=_plain)
@lowers("CausalConvWithState", domain=_MICROSOFT, products=_PRODUCTS, when=_plain)
def causal_conv_with_state(site: Site) -> tuple[Local, Local]:
    """Put the past before x, then slide the kernel, or keep the end."""
    if len(site.outputs) > 2:
        raise site.refuse("its third output, the update of the state, is not lowered; leave it out")
    for name, usual in _USUAL.items():
        if site.attribute(name, usual) != usual:
            raise site.refuse(f"its {name} is not lowered; export the model with the default, {usual}")
    batch, channels, length = site.shape(0)
    taps, dilation = site.shape(1)[2], site.attribute("dilation", 1)
    state = (taps - 1) * dilation
    joined = _joined(site, state)
    held: Array = np.zeros((batch, channels, state + length))
    for i, place in joined.items():
        if not site.active(i):
            held = held + place.apply(site.value(i)[None])[0]
    terms: dict[int, Primitive] = {}
    if site.active(1):
        reach = np.lib.stride_tricks.sliding_window_view(held, state + 1, axis=2)
        frames = reach[..., ::dilation]  # (N, C, L, k)
        slide = Contract((channels, taps), frames, "ck,nclk->ncl")
        terms[1] = chain(Reshape(site.shape(1), slide.in_shape), slide)
        offset, size = np.zeros(()), np.zeros(())
    else:
        window = Window((state + length,), (length,), (taps,), (1,), (dilation,), (0,))
        conv = Conv(batch, site.value(1), window, channels)
        terms |= {i: chain(place, conv) for i, place in joined.items() if site.active(i)}
        offset, size = conv.apply(held[None])[0], conv.magnitude().apply(np.abs(held)[None])[0] * taps
    if site.active(2):
        column = (channels, 1)
        spread = Broadcast(column, (batch, channels, length))
        terms[2] = chain(Reshape(site.shape(2), column), spread)
    elif site.has(2):
        share = site.value(2)[:, None]
        offset, size = offset + share, size + np.abs(share)
    out_shape = (batch, channels, length)
    y = Local(terms, np.broadcast_to(offset, out_shape), offset_size=size)
    end = slice(length, None)
    kept = {i: Gather(place.in_shape, place.index[..., end]) for i, place in joined.items() if site.active(i)}
    return y, Local(kept, held[..., end])


def _joined(site: Site, state: int) -> dict[int, Gather]:
    """The maps from x and from past to their places in [past, x]."""
    (batch, channels, length), every = site.shape(0), slice(None)
    placed = {0: slice(state, None)} | ({3: slice(0, state)} if site.has(3) else {})
    found = {}
    for i, place in placed.items():
        index = np.full((batch, channels, state + length), -1)
        index[every, every, place] = positions(site, i)
        found[i] = gathered(site, index, i)
    return found
