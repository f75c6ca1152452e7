"""Operators that read images between their entries: every mode against onnxruntime's own matrix."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest

import ilin

from .one_node import assert_same, one_node


def image(*shape, dtype=np.float32):
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


def grid(*shape, reach=2.5, dtype=np.float32):
    """Coordinates in and far beyond x, some on entries, edges and halfway between."""
    special = np.array([-1, -0.5, 0, 0.25, 1])
    random = np.random.default_rng(5)
    at = random.uniform(-reach, reach, shape)
    return np.where(random.random(shape) < 0.3, random.choice(special, shape), at).astype(dtype)


MODES_2D = ["nearest", "bilinear", "bicubic"]
PADDINGS = ["zeros", "border", "reflection"]


@pytest.mark.parametrize(("mode", "padding", "align"), [*product(MODES_2D, PADDINGS, [0, 1])])
@pytest.mark.parametrize("opset", [16, 22])
def test_grid_sample(mode, padding, align, opset):
    mode = mode if opset < 20 else {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    model = one_node(
        "GridSample",
        {"x": image(2, 2, 4, 5)},
        {"grid": grid(2, 3, 4, 2)},
        opset,
        mode=mode,
        padding_mode=padding,
        align_corners=align,
    )
    assert_same(model, {"x": image(2, 2, 4, 5)})


@pytest.mark.parametrize(("mode", "padding", "align"), [*product(["nearest", "linear"], PADDINGS, [0, 1])])
def test_grid_sample_in_volumes(mode, padding, align):
    x, at = {"x": image(1, 2, 3, 4, 2)}, {"grid": grid(1, 2, 3, 2, 3)}
    model = one_node("GridSample", x, at, 20, mode=mode, padding_mode=padding, align_corners=align)
    assert_same(model, x)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_grid_sample_in_other_types(dtype, mode):
    x, at = {"x": image(1, 1, 4, 4, dtype=dtype)}, {"grid": grid(1, 4, 4, 2, dtype=dtype)}
    model = one_node("GridSample", x, at, 20, mode=mode, padding_mode="reflection")
    assert_same(model, x, tolerance={np.float64: 1e-14, np.float16: 2e-3}[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_grid_sample_of_a_large_image_rounds_coordinates_as_onnxruntime(dtype):
    """Coordinates near ties and between far entries, where float32's last bit counts."""
    x, n = {"x": image(1, 1, 2, 1000)}, np.arange(-1000, 1000)
    at = np.stack([n / np.float32(1000), np.zeros(2000)], axis=-1)[None, None].astype(np.float32)
    for mode in ("nearest", "linear"):
        affine = ilin.linearize(one_node("GridSample", x, {"grid": at}, 20, mode=mode), x, dtype=dtype)
        assert affine.certificate.verified, str(affine.certificate)


def test_grid_sample_of_nothing():
    x, at = {"x": image(1, 2, 3, 3)}, {"grid": grid(1, 0, 4, 2)}
    affine = ilin.linearize(one_node("GridSample", x, at, 20), x)
    assert affine.W.shape == (0, 18)


def test_grid_sample_refuses_what_has_no_result():
    x = {"x": image(1, 1, 1, 3)}
    ones = np.ones((1, 1, 1, 2), np.float32)
    bad = one_node("GridSample", x, {"grid": ones * np.nan}, 20, padding_mode="border")
    with pytest.raises(ilin.UnsupportedError, match=r"'y' \(GridSample.* its grid holds NaN"):
        ilin.linearize(bad, x)
    flat = one_node("GridSample", x, {"grid": ones * 0}, 20, padding_mode="border", align_corners=1)
    (padding,) = (each for each in flat.graph.node[0].attribute if each.name == "padding_mode")
    padding.CopyFrom(onnx.helper.make_attribute("padding_mode", "reflection"))
    with pytest.raises(ilin.UnsupportedError, match="reads outside of an axis of length 1"):
        ilin.linearize(flat, x)


ROIS = np.array([[0, 0, 5, 4], [1.3, 0.2, 3.1, 4.9], [-4, -3, 2.2, 9], [2, 2, 2, 2], [4.5, 3, 4, 1]])
IMAGES = np.array([0, 1, 1, 0, 1])


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize(
    ("opset", "transformation"), [(10, None), (16, "half_pixel"), (16, "output_half_pixel")]
)
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_roi_align(ratio, scale, opset, transformation, mode, dtype):
    x = {"x": 8 * image(2, 2, 6, 5, dtype=dtype)}  # entries are far apart in steps of the differences
    named = {"coordinate_transformation_mode": transformation} if transformation else {}
    model = one_node(
        "RoiAlign",
        x,
        {"rois": ROIS.astype(dtype), "images": IMAGES},
        opset,
        mode=mode,
        output_height=2,
        output_width=3,
        sampling_ratio=ratio,
        spatial_scale=scale,
        **named,
    )
    assert_same(model, x, step=2.0**-12 if mode == "max" else 0.5)


@pytest.mark.parametrize(("opset", "scale"), [(1, 1.0), (11, 0.5)])
def test_max_roi_pool(opset, scale):
    rois = np.concatenate([IMAGES[:, None], ROIS], axis=1).astype(np.float32)
    x = {"x": image(2, 2, 6, 5)}
    model = one_node("MaxRoiPool", x, {"rois": rois}, opset, pooled_shape=[2, 3], spatial_scale=scale)
    assert_same(model, x, step=2.0**-12)


def test_the_guards_of_max_roi_pool_and_roi_align():
    """Half-spaces hold at x with the margins as their least slack, by the numbers."""
    from ..programs import program_at

    rois = np.array([[0, 0, 0, 4, 5], [1, 1, 1, 3, 3]], np.float32)
    x = image(2, 1, 6, 5)
    pool = one_node("MaxRoiPool", {"x": x}, {"rois": rois}, 11, pooled_shape=[2, 2])
    align = one_node(
        "RoiAlign",
        {"x": x},
        {"rois": rois[:, 1:], "images": np.array([0, 1])},
        16,
        mode="max",
        output_height=2,
    )
    for model in (pool, align):
        (step,) = program_at(ilin.compile(model), x).steps
        (guard,) = step.guards
        spaces = guard.half_spaces()
        slack = sum(L.apply(x[None])[0] for _, L in spaces.terms) + spaces.offset
        assert slack.size
        assert (slack >= 0).all()
        assert slack.min() == pytest.approx(guard.margin.min(), abs=1e-6)
        assert guard.ties == 0


DEFORMED = {
    "plain": ((1, 2, 5, 4), (3, 2, 3, 2), {}, {}),
    "groups": ((2, 4, 5, 4), (6, 2, 2, 2), {"mask": True, "bias": True}, {"group": 2, "offset_group": 2}),
    "strides": (
        (1, 2, 7, 6),
        (2, 2, 2, 3),
        {"mask": True},
        {"strides": [2, 1], "dilations": [2, 1], "pads": [1] * 4},
    ),
    "offset groups": ((1, 4, 4, 4), (2, 4, 2, 2), {"bias": True}, {"offset_group": 4}),
}


@pytest.mark.parametrize("name", DEFORMED)
@pytest.mark.parametrize("active", ["x", "w", "mask", "b", "x+b", "mask+b"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_deform_conv(name, active, dtype):
    shape, weight, given, attributes = DEFORMED[name]
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads, parts = attributes.get("pads", [0] * 4), attributes.get("offset_group", 1)
    out = [
        (shape[2 + i] + pads[i] + pads[2 + i] - (weight[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(2)
    ]
    taps = weight[2] * weight[3]
    values = {
        "x": image(*shape, dtype=dtype),
        "w": image(*weight, dtype=dtype),
        "offset": (2 * image(shape[0], parts * 2 * taps, *out, dtype=dtype)).round(1),
        "b": image(weight[0], dtype=dtype) if "bias" in given else None,
        "mask": image(shape[0], parts * taps, *out, dtype=dtype) if "mask" in given else None,
    }
    x = {name: values[name] for name in active.split("+")}
    if any(value is None for value in x.values()):
        pytest.skip("left out here")
    held = {name: value for name, value in values.items() if name not in x}
    assert_same(one_node("DeformConv", x, held, 19, order=list(values), **attributes), x, tolerance=1e-5)
