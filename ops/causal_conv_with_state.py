"""CausalConvWithState: y = w ⋆ [past, x] + b, each channel by itself; present = the end of [past, x].

Linear in x and past together for a fixed w, in w for fixed x and past, and in b.
https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html
"""

import numpy as np

from ..runtime.primitives import Array, Broadcast, Contract, Conv, Gather, Primitive, Reshape, Window, chain
from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("CausalConvWithState", products=((0, 1), (1, 3)))
def causal_conv_with_state(site: Site) -> tuple[Local, Local]:
    """Put the past before x, then slide the kernel, or keep the end."""
    activation = site.attribute("activation", "none")
    if activation != "none":
        raise site.refuse(
            f"its activation {activation!r} is smooth; set activation to none and put Sigmoid and Mul behind "
            "the node, or name a tensor before it in outputs"
        )
    batch, channels, length = site.shape(0)
    taps = site.shape(1)[2]
    joined = _joined(site, taps - 1)
    held: Array = np.zeros((batch, channels, taps - 1 + length))
    for i, place in joined.items():
        if not site.active(i):
            held = held + place.apply(site.value(i)[None])[0]
    terms: dict[int, Primitive] = {}
    if site.active(1):
        frames = np.lib.stride_tricks.sliding_window_view(held, taps, axis=2)  # (N, C, L, k)
        slide = Contract((channels, taps), frames, "ck,nclk->ncl")
        terms[1] = chain(Reshape(site.shape(1), slide.in_shape), slide)
        offset, size = np.zeros(()), np.zeros(())
    else:
        window = Window((taps - 1 + length,), (length,), (taps,), (1,), (1,), (0,))
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
