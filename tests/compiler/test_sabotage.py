"""Wrong rules must be caught by the certificate, and spoilt files by `verify`; each by a check of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import ilin
from ilin.ops import REGISTRY, Local
from ilin.runtime.archive import header_digest, part_digests, write_archive
from ilin.runtime.primitives import Chain, Scale
from ilin.runtime.program import Kind

from ..conformance.oracle import onnxruntime_of

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
MODEL = DIGITS / "model.onnx"
IN_REGION = "W z + b differs from onnxruntime's output at a fresh point of the region"

# -- rules ---------------------------------------------------------------------------------------------


@pytest.fixture
def sabotage(monkeypatch):
    """Replace a rule by one that tampers with its result."""

    def replace_rule(op_type, tamper, **changes):
        entry = REGISTRY["", op_type]
        monkeypatch.setitem(
            REGISTRY,
            ("", op_type),
            replace(entry, rule=lambda site: tamper(site, entry.rule(site)), **changes),
        )

    return replace_rule


def certificate():
    return ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy")).certificate


def test_untouched_rules_are_verified():
    assert certificate().verified


def test_observed_output_as_offset_is_caught_in_the_region(sabotage):
    """Right at x in every digit, and wrong everywhere else."""

    def tamper(site, local):
        value = local.by_position[0][1].apply(site.value()[None])[0]
        return (
            Local(Scale(value.shape, np.zeros(value.shape, bool)), value) if "relu4" in site.name else local
        )

    sabotage("Relu", tamper)
    found = certificate()
    assert found.steps.passed
    assert found.at_x_over_bound <= 1
    assert not found.verified
    assert found.in_region_over_bound > 1
    assert found.reason.startswith(IN_REGION)
    assert found.moved_over_bound > 1  # the points were far enough to tell


def test_a_layer_as_its_own_offset_is_untested_by_default_and_caught_in_float64(sabotage, tmp_path):
    """W = 0, and b = F(x): where the region is thin, no run in float32 speaks against it, and it says so."""

    def tamper(site, local):
        if site.name != "/relu2/Relu":
            return local
        y = np.maximum(site.value(), 0)
        return replace(local, terms={0: Scale(y.shape, np.zeros_like(y))}, offset=y)

    assert certificate().untested  # of the right rule, too
    sabotage("Relu", tamper)
    affine = ilin.linearize(MODEL, np.load(DIGITS / "x.npy"))
    assert not affine.W.any()
    assert affine.certificate.untested == "the region is narrower than rounding"
    assert "W not tested" in str(affine.certificate)
    affine.save(tmp_path / "map.npz")
    found = {one.check: one.passed for one in ilin.verify(tmp_path / "map.npz", MODEL, double=False).findings}
    assert found["fresh points"] is found["points between"] is None  # neither for it nor against
    deep = affine.certify_deeply()
    assert deep.reason.startswith("W (z - x) differs from the model in float64")


@pytest.mark.parametrize(
    ("op_type", "node"), [("Relu", "/relu1/Relu"), ("Gemm", "/dense1/Gemm"), ("Conv", "/conv1/Conv")]
)
def test_a_slope_off_by_one_in_a_thousand_is_caught_at_its_node(sabotage, op_type, node):
    def tamper(_, local):
        ((position, L),) = local.by_position
        return replace(local, terms={position: Chain((L, Scale(L.out_shape, np.array(1.001))))})

    sabotage(op_type, tamper)
    found = certificate()
    assert found.steps.first_bad_node == node
    assert found.reason.startswith(f"node '{node}' is the first that differs from onnxruntime at x (by ")


def test_a_dropped_offset_is_caught_at_its_node(sabotage):
    sabotage("BatchNormalization", lambda _, local: replace(local, offset=None))
    assert certificate().steps.first_bad_node == "/norm1/BatchNormalization"


def test_kind_is_part_of_every_answer(sabotage):
    sabotage("Relu", lambda _, local: replace(local, kind=Kind.SMOOTH))
    assert ilin.linearize(DIGITS / "model.onnx", np.load(DIGITS / "x.npy")).kind == "smooth"


def net(nodes, weights):
    """x (1, 4) to y, float32, from (operator, inputs, output)."""
    graph = helper.make_graph(
        [helper.make_node(op, read, [made], name=made) for op, read, made in nodes],
        "sabotage",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, None])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_flipped_tie_is_caught_in_the_region(sabotage):
    """Relu's slope at 0 taken for 1: right at x, where it multiplies 0, and wrong where the unit is dead."""
    proto = net(
        [("MatMul", ["x", "U"], "u"), ("Relu", ["u"], "r"), ("MatMul", ["r", "V"], "y")],
        {"U": [[1, 1], [-1, 2], [0, 1], [0, 1]], "V": [[3], [1]]},
    )
    x = np.array([[1, 1, 0.5, 2]], np.float32)  # x U = (0, 5.5)
    honest = ilin.linearize(proto, x)
    assert honest.certificate.verified
    assert honest.certificate.ties == 1
    np.testing.assert_array_equal(honest.W, [[1, 2, 1, 1]])

    sabotage("Relu", lambda site, local: replace(local, terms={0: Scale((1, 2), site.value() >= 0)}))
    flipped = ilin.linearize(proto, x)
    np.testing.assert_array_equal(flipped.W, [[4, -1, 1, 1]])
    assert flipped.certificate.steps.passed
    assert flipped.certificate.at_x_over_bound <= 1
    assert flipped.certificate.reason.startswith(IN_REGION)


RESIDUAL = net(
    [("Relu", ["x"], "r"), ("MatMul", ["r", "U"], "u"), ("Add", ["u", "x"], "y")],
    {"U": np.arange(16).reshape(4, 4) / 4},
)
AT = np.array([[1, -2, 0.5, 3]], np.float32)


def test_a_dropped_residual_branch_is_caught_at_its_node(sabotage):
    assert ilin.linearize(RESIDUAL, AT).certificate.verified
    sabotage("Add", lambda _, local: replace(local, terms=dict(local.by_position[:1])))
    found = ilin.linearize(RESIDUAL, AT).certificate
    assert found.reason.startswith("node 'y' is the first that differs from onnxruntime at x")


def test_a_residual_branch_held_at_its_value_is_caught_in_the_region(sabotage):
    """The branch as an offset: every step agrees at x."""
    sabotage("Add", lambda _, local: replace(local, terms=dict(local.by_position[:1]), offset=AT))
    found = ilin.linearize(RESIDUAL, AT).certificate
    assert found.steps.passed
    assert found.at_x_over_bound <= 1
    assert found.reason.startswith(IN_REGION)


# -- files ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def map_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sabotage") / "map.npz"
    ilin.linearize(MODEL, np.load(DIGITS / "x.npy")).save(path)
    return path


@pytest.fixture
def spoil(map_file, tmp_path):
    """Write a map with some members changed and as many of its hashes put right; the checks that it fails."""

    def call(change, *, right=(), of=None):
        source, model = map_file, MODEL
        if of is not None:
            model, x = of
            source = tmp_path / "map.npz"
            ilin.linearize(model, x).save(source)
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        change(arrays, header)
        if right:
            header["sha256"] |= {part: now for part, now in part_digests(arrays).items() if part in right}
        if "header" in right:
            header["sha256"]["header"] = header_digest(header)
        path = tmp_path / "spoilt.npz"
        with path.open("wb") as file:
            write_archive(file, header, arrays)
        return ilin.verify(path, model).failed

    return call


EVERY = ("input", "result", "evidence", "header")
NUMBERS = ("W x + b at x", "fresh points", "points between")


def test_the_file_as_it_was_written_holds(map_file, spoil):
    assert ilin.verify(map_file, MODEL).failed == ()
    assert spoil(lambda arrays, header: None) == ()


def test_a_truncated_file_is_caught_when_it_is_read(map_file, tmp_path):
    whole = map_file.read_bytes()
    path = tmp_path / "cut.npz"
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ilin.OutputError, match="truncated or corrupt"):
            ilin.verify(path, MODEL)


def edit_w(arrays, header):
    W = arrays["W"].copy()
    W[4, 21] += 0.5
    arrays["W"] = W


def observed_output_as_offset(arrays, header):
    """The oldest trick: right at x, whatever W."""
    K = len(arrays["b"])
    y = arrays["y0"].ravel()
    arrays["W"], arrays["b"] = np.zeros_like(arrays["W"]), y.copy()
    arrays["bias_shares"] = np.zeros((len(header["layers"]), K))
    arrays["bias_shares"][0] = y


def test_an_edited_w_is_caught_by_the_hash_of_the_result(spoil):
    assert spoil(edit_w)[0] == "result hash"


def test_an_edited_w_with_that_hash_put_right_is_caught_by_the_header(spoil):
    assert spoil(edit_w, right=("result",))[0] == "header hash"


def test_an_edited_w_with_every_hash_put_right_is_caught_by_the_numbers(spoil):
    assert spoil(edit_w, right=EVERY) == (*NUMBERS, "W in float64")


def test_an_observed_output_as_offset_is_caught_at_the_fresh_points(spoil):
    assert spoil(observed_output_as_offset)[0] == "result hash"
    assert spoil(observed_output_as_offset, right=EVERY, of=(RESIDUAL, AT)) == (
        "fresh points",
        "points between",
        "W in float64",
    )


def thin():
    """Six dense layers of 256 with random weights, and x; its region is thinner than float32's rounding."""
    random = np.random.default_rng(0)
    nodes, weights, name, width = [], {}, "x", 4
    for layer in range(6):
        weights[f"w{layer}"] = random.standard_normal((width, 256)) * (2 / width) ** 0.5
        weights[f"b{layer}"] = 0.1 * random.standard_normal(256)
        nodes.append(("MatMul", [name, f"w{layer}"], f"m{layer}"))
        nodes.append(("Add", [f"m{layer}", f"b{layer}"], f"a{layer}"))
        nodes.append(("Relu", [f"a{layer}"], f"r{layer}"))
        name, width = f"r{layer}", 256
    weights["w"] = random.standard_normal((width, 10)) / 16
    return net([*nodes, ("MatMul", [name, "w"], "y")], weights), random.standard_normal((1, 4), np.float32)


def in_float64(found):
    return next(finding for finding in found.findings if finding.check == "W in float64")


@pytest.mark.parametrize("row", [0, 9])
def test_a_slope_off_by_one_in_a_thousand_is_caught_in_float64_alone(spoil, tmp_path, row):
    """With the offset, its shares and every hash put right, where float32 tells nothing."""

    def change(arrays, header):
        W, shares = arrays["W"].copy(), arrays["bias_shares"].copy()
        moved = 0.001 * (arrays["W"][row] @ arrays["x0"].ravel())
        W[row] *= np.float32(1.001)
        shares[0, row] -= moved
        b = shares.sum(axis=0).astype(np.float32)
        arrays.update(W=W, bias_shares=shares, b=b)

    model, x = thin()
    assert spoil(lambda arrays, header: None, of=(model, x)) == ()
    assert spoil(change, right=EVERY, of=(model, x)) == ("W in float64",)
    found = ilin.verify(tmp_path / "spoilt.npz", model)
    assert [finding.passed for finding in found.findings[-3:]] == [None, None, False]
    assert 100 < in_float64(found).over_bound < 0.1 * in_float64(found).moved_over_bound


def test_a_single_entry_of_w_is_caught_in_float64_alone(spoil):
    """Off by one in ten thousand, and b made up for it."""

    def change(arrays, header):
        W, shares = arrays["W"].copy(), arrays["bias_shares"].copy()
        W[3, 2] *= np.float32(1.0001)
        shares[0, 3] -= (W[3, 2] - arrays["W"][3, 2]) * arrays["x0"].ravel()[2]
        arrays.update(W=W, bias_shares=shares, b=shares.sum(axis=0).astype(np.float32))

    assert spoil(change, right=EVERY, of=thin()) == ("W in float64",)


def test_bounds_that_allow_anything_in_float64_say_nothing_of_w(spoil, tmp_path):
    def change(arrays, header):
        arrays["inside_bounds"] = np.full_like(arrays["inside_bounds"], 1e9)

    model, x = thin()
    assert spoil(change, of=(model, x)) == ("evidence hash",)
    assert spoil(change, right=EVERY, of=(model, x)) == ()
    found = in_float64(ilin.verify(tmp_path / "spoilt.npz", model))
    assert found.passed is None
    assert found.told.endswith(", so this says little of 10 of 10 rows of W")


def test_a_point_picked_to_fit_a_wrong_w_is_caught_on_the_way_there(spoil, tmp_path):
    """Beyond the region another W has the same value; between x and there it has not."""
    model, x = thin()
    run = onnxruntime_of(model)

    def change(arrays, header):
        ahead = 3 * np.random.default_rng(1).standard_normal(4)
        point = (arrays["x0"].ravel() + ahead).astype(np.float32)
        reached = run({"x": point[None]})["y"].ravel() - arrays["y0"].ravel()
        step = point.astype(np.float64) - arrays["x0"].ravel()
        missing = reached - arrays["W"] @ step
        W = arrays["W"] + np.outer(missing, step / (step @ step))
        shares = arrays["bias_shares"].copy()
        shares[0] -= (W - arrays["W"]) @ arrays["x0"].ravel()
        arrays.update(W=W.astype(np.float32), bias_shares=shares, b=shares.sum(axis=0).astype(np.float32))
        arrays["inside0"] = np.stack([arrays["x0"], point[None]]).astype(np.float64)
        arrays["inside_bounds"] = np.full((1, 10), 1e-4)

    assert spoil(change, right=EVERY, of=(model, x)) == ("W in float64",)
    assert in_float64(ilin.verify(tmp_path / "spoilt.npz", model)).over_bound > 100


def test_a_base_in_another_region_is_caught_by_the_file_itself(spoil):
    def change(arrays, header):
        arrays["inside0"] = arrays["inside0"] + 1.0

    assert spoil(change, right=EVERY) == ("file",)


def test_bounds_that_allow_anything_are_caught_at_x(spoil):
    def change(arrays, header):
        edit_w(arrays, header)
        arrays["W"][:] *= 2
        arrays["bounds"] = np.full_like(arrays["bounds"], 1e9)

    assert spoil(change) == ("result hash", "evidence hash", "W x + b at x", "W in float64")
    assert spoil(change, right=EVERY) == ("W x + b at x", "W in float64")


def test_a_changed_input_is_caught_by_its_hash_and_by_the_run(spoil):
    def change(arrays, header):
        arrays["x0"] = arrays["x0"][..., ::-1].copy()
        arrays["inside0"] = arrays["inside0"][..., ::-1].copy()

    assert spoil(change)[0] == "input hash"
    assert spoil(change, right=EVERY)[0] == "model at x"


def test_changed_fresh_points_are_caught(spoil):
    def change(arrays, header):
        arrays["z0"] = arrays["z0"][..., ::-1].copy()

    assert spoil(change)[0] == "evidence hash"
    assert spoil(change, right=EVERY)[0] == "fresh points"


def test_a_changed_y_is_caught_by_the_run(spoil):
    def change(arrays, header):
        arrays["y0"] = arrays["y0"] + np.float32(0.1)

    assert spoil(change, right=EVERY) == ("model at x",)


MEMBERS = ("W", "b", "bias_shares", "bounds", "z0", "inside0", "inside_bounds")


@pytest.mark.parametrize("name", [*MEMBERS, "rows"])
def test_members_of_other_shapes_are_caught_by_the_file_itself(spoil, name):
    def change(arrays, header):
        arrays[name] = arrays[name][..., :-1].copy()

    assert spoil(change, right=EVERY) == ("file",)


@pytest.mark.parametrize("name", [*MEMBERS, "x0", "y0"])
def test_not_a_number_is_caught_by_the_file_itself(spoil, name):
    def change(arrays, header):
        arrays[name] = arrays[name].copy()
        arrays[name].flat[0] = np.nan

    assert spoil(change, right=EVERY) == ("file",)


def test_rows_outside_the_output_are_caught_by_the_file_itself(spoil):
    assert spoil(lambda arrays, _: arrays.update(rows=arrays["rows"] + 1), right=EVERY) == ("file",)


def test_shares_that_do_not_sum_to_b_are_caught_by_the_file_itself(spoil):
    assert spoil(lambda arrays, _: arrays.update(bias_shares=arrays["bias_shares"] * 1.01), right=EVERY) == (
        "file",
    )


def test_a_failure_whitewashed_in_the_header_is_caught_by_its_hash(spoil):
    def change(arrays, header):
        header["certificate"]["at_x_over_bound"] = 0.5

    assert spoil(change) == ("header hash",)


def test_a_map_that_was_not_verified_does_not_hold(sabotage, tmp_path):
    sabotage("BatchNormalization", lambda _, local: replace(local, offset=None))
    path = tmp_path / "map.npz"
    ilin.linearize(MODEL, np.load(DIGITS / "x.npy")).save(path)
    found = ilin.verify(path, MODEL)
    assert found.failed == ("certificate", "W x + b at x", "fresh points", "points between")


# -- models --------------------------------------------------------------------------------------------


def test_a_changed_weight_is_caught_by_the_models_hash_and_by_the_run(map_file, tmp_path):
    proto = onnx.load(MODEL)
    weight = max(proto.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(proto, tmp_path / "changed.onnx")
    found = ilin.verify(map_file, tmp_path / "changed.onnx").failed
    assert found == ("model hash", "model at x", *NUMBERS, "W in float64")


def test_another_file_of_the_same_network_fails_by_its_hash_alone(map_file, tmp_path):
    proto = onnx.load(MODEL)
    proto.doc_string = "the same network"
    onnx.save(proto, tmp_path / "renamed.onnx")
    assert ilin.verify(map_file, tmp_path / "renamed.onnx").failed == ("model hash",)


def test_a_model_that_cannot_take_the_input_is_a_finding(map_file):
    found = ilin.verify(map_file, RESIDUAL)
    assert found.failed == ("model hash", "model at x")
    assert found.findings[-1].told == "the model has no tensor 'image'"


def test_another_x_is_caught(map_file):
    x = np.load(DIGITS / "x.npy")
    assert ilin.verify(map_file, MODEL, x).failed == ()
    assert ilin.verify(map_file, MODEL, x[0]).failed == ()
    assert ilin.verify(map_file, MODEL, {"image": x.astype(np.float64)}).failed == ()
    for other in (x + 1, x[..., :-1], {"picture": x}, np.full(x.shape, "text")):
        assert ilin.verify(map_file, MODEL, other).failed == ("x",)


@pytest.mark.parametrize("junk", [None, 5, "text", [], {}, [None]], ids=repr)
def test_junk_in_the_header_is_found_or_refused_but_never_a_traceback(map_file, spoil, junk):
    with np.load(map_file) as file:
        header = json.loads(file["header"].tobytes())
    for name in (name for name in header if header[name] != junk):
        try:
            failed = spoil(lambda _, header, name=name: header.update({name: junk}))
        except ilin.OutputError as refused:
            assert "\n" not in str(refused)
        else:
            assert "header hash" in failed, name
