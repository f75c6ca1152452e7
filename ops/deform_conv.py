"""DeformConv: y = w ⋆ x + b where every tap of every window is read at an offset of its own, times a mask.

    y[n, m, o] = Σ_c Σ_t w[m, c, t] · mask[n, t, o] · x[n, g(m)·C/G + c, window(o, t) + offset[n, t, o]]

Linear in x, in w, in the mask (which multiply each other) and in b, for fixed offsets: each tap is a mean of
the entries around its place, weighted linearly along every axis, and x is 0 outside. Channels are parted into
offset groups, each with its own offsets and mask.
https://onnx.ai/onnx/operators/onnx__DeformConv.html
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..runtime.primitives import Array, Broadcast, Contract, Primitive, Reshape, Scale, Shape, Sparse, chain
from ._rule import Local, Site, lowers
from ._sampled import coordinate_type, corners, crossed_positions, crossed_weights, inside, sampled
from ._windows import window_of


@lowers("DeformConv", linear_in=(0, 1, 3, 4), products=((0, 1), (0, 4), (1, 4)))
def deform_conv(site: Site) -> Local:
    """Read every tap of every window, then mix the channels."""
    form = _form(site)
    read = _read(site, form)  # x to taps (N · D, C/D, T, O) without the mask
    terms: dict[int, Primitive] = {}
    offset: Array | None = None
    size: Array | float = 0.0
    if site.active(0):
        terms[0] = chain(read, *_masked(site, form), *_mixed(site, form))
    elif site.active(4):
        held = read.apply(site.value(0)[None])[0]
        own = (form.batch * form.parts, 1, *held.shape[2:])
        copied = Broadcast(own, held.shape)
        terms[4] = chain(Reshape(site.shape(4), own), copied, Scale(held.shape, held), *_mixed(site, form))
    else:
        held = chain(read, *_masked(site, form)).apply(site.value(0)[None])[0]
        if site.active(1):
            grouped = held.reshape(form.columns)
            mix = Contract(form.weight, grouped, "gmct,ngcto->ngmo")
            terms[1] = chain(Reshape(site.shape(1), form.weight), mix, Reshape(mix.out_shape, form.out_shape))
        else:  # only the bias depends on x
            mixed = chain(*_mixed(site, form))
            offset = mixed.apply(held[None])[0]
            size = mixed.fan_in * mixed.magnitude().apply(np.abs(held)[None])[0]
    if site.has(3):
        column = (form.out_shape[1],) + (1,) * (len(form.out_shape) - 2)
        if site.active(3):
            terms[3] = chain(Reshape(site.shape(3), column), Broadcast(column, form.out_shape))
        else:
            share = site.value(3).reshape(column)
            offset = share if offset is None else offset + share
            size = size + np.abs(share)
    return Local(terms, offset, offset_size=size)


@dataclass(frozen=True)
class _Form:
    """Sizes of one use."""

    batch: int  # N
    parts: int  # D: offset groups
    weight: Shape  # (G, M/G, C/G, T)
    columns: Shape  # taps of all windows, (N, G, C/G, T, O)
    out_shape: Shape  # (N, M, *out)


def _form(site: Site) -> _Form:
    batch, channels, *_ = site.shape(0)
    M, per_group, *kernel = site.shape(1)
    out, taps, group = site.shape(2)[2:], math.prod(kernel), channels // max(per_group, 1)
    return _Form(
        batch,
        int(site.attribute("offset_group", 1)),
        (group, M // group, per_group, taps),
        (batch, group, per_group, taps, math.prod(out)),
        (batch, M, *out),
    )


def _read(site: Site, form: _Form) -> Sparse:
    """The map from x, its offset groups taken as images, to the taps of every window."""
    batch, channels, *spatial = site.shape(0)
    window, _ = window_of(site, tuple(spatial), site.shape(1)[2:])
    shifts = site.value(2)
    shifts = shifts.astype(coordinate_type(site), copy=False)
    rank, images = len(spatial), batch * form.parts
    taps, out = window.kernel, window.out_size
    shifts = shifts.reshape(images, *taps, rank, *out)
    positions, weights = [], []
    for axis, (length, stride, dilation, pad) in enumerate(
        zip(spatial, window.strides, window.dilations, window.pads, strict=True)
    ):
        tap = np.arange(taps[axis]).reshape(-1, *(1,) * (rank - axis - 1)) * dilation
        place = np.arange(out[axis]).reshape(-1, *(1,) * (rank - axis - 1)) * stride - pad
        fixed = tap.reshape(*tap.shape, *(1,) * rank) + place  # (kernel, …, out, …), ones elsewhere
        x = np.take(shifts, axis, axis=1 + rank) + fixed.astype(shifts.dtype)  # (N · D, *kernel, *out)
        around, weight = corners(x.reshape(images, -1))
        positions.append(inside(around, length))
        weights.append(weight)
    split = (images, channels // form.parts, *spatial)
    columns = (images, split[1], math.prod(taps), math.prod(out))
    read = sampled(
        split,
        np.arange(images),
        crossed_positions(positions, tuple(spatial)),
        crossed_weights(weights),
        columns,
    )
    return Sparse(site.shape(0), columns, read.entries)


def _masked(site: Site, form: _Form) -> list[Primitive]:
    """The product with the mask, where there is one: taps (N · D, C/D, T, O)."""
    if not site.has(4):
        return []
    _, _, channels, taps, places = form.columns
    images = form.batch * form.parts
    shape = (images, channels * form.weight[0] // form.parts, taps, places)
    return [Scale(shape, site.value(4).reshape(images, 1, taps, places))]


def _mixed(site: Site, form: _Form) -> list[Primitive]:
    """The product with w: taps (N · D, C/D, T, O) to y."""
    group, _, per_group, taps = form.weight
    split = (form.batch * form.parts, per_group * group // form.parts, taps, form.columns[-1])
    mix = Contract(form.columns, site.value(1).reshape(form.weight), "ngcto,gmct->ngmo")
    return [Reshape(split, form.columns), mix, Reshape(mix.out_shape, form.out_shape)]
