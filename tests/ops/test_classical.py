"""Operators of ai.onnx.ml: linear models, support vectors, trees, encoders."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import ilin

from ..conformance.check import check
from ..conformance.oracle import onnxruntime_of
from .nodes import case_of

ML = "ai.onnx.ml"
RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((2, 3)).astype(np.float32)
ROW = X[0]
COEFFICIENTS = [float(c) for c in RANDOM.standard_normal(9).astype(np.float32)]
INTERCEPTS = [0.5, -0.25, 1.0]
VECTORS = [float(v) for v in RANDOM.standard_normal(15).astype(np.float32)]  # five of three features
DUAL = [float(v) for v in RANDOM.standard_normal(10).astype(np.float32)]
LABELS = {"classlabels_ints": [3, 5, 7]}
LINEAR = {"coefficients": COEFFICIENTS, "intercepts": INTERCEPTS}
PAIRED = {
    "coefficients": DUAL,
    "support_vectors": VECTORS,
    "vectors_per_class": [2, 1, 2],
    "rho": INTERCEPTS,
    **LABELS,
}
BINARY = {
    "coefficients": DUAL[:5],
    "support_vectors": VECTORS,
    "vectors_per_class": [3, 2],
    "rho": [0.5],
    "classlabels_strings": ["no", "yes"],
}
SUPPORTED = {"coefficients": DUAL[:5], "support_vectors": VECTORS, "n_supports": 5, "rho": [0.5]}
KERNELS = {
    kernel: {"kernel_type": kernel, "kernel_params": [0.5, 0.25, 3.0]}
    for kernel in ("LINEAR", "POLY", "SIGMOID", "RBF")
}
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")

# Operator, x, attributes, the position of the output, and the kind of the answer.
NODES = {
    **{
        f"classifier {transform}": (
            *("LinearClassifier", X, {**LINEAR, **LABELS, "post_transform": transform}, 1),
            "affine" if transform == "NONE" else "smooth",
        )
        for transform in TRANSFORMS
    },
    **{
        f"classifier of two by one score {transform}": (
            "LinearClassifier",
            X,
            {
                "coefficients": COEFFICIENTS[:3], "intercepts": [0.5], "post_transform": transform,
                "classlabels_strings": ["no", "yes"],
            },
            1,
            "affine",
        )
        for transform in TRANSFORMS
        if transform != "LOGISTIC"
    },
    **{
        f"regressor of three {transform}": (
            *("LinearRegressor", X, {**LINEAR, "targets": 3, "post_transform": transform}, 0),
            "affine" if transform == "NONE" else "smooth",
        )
        for transform in TRANSFORMS
    },
    "regressor of one, not transformed": (
        *("LinearRegressor", X, {"coefficients": COEFFICIENTS[:3], "post_transform": "LOGISTIC"}, 0),
        "affine",
    ),
    "regressor of a vector": (
        *("LinearRegressor", ROW, {"coefficients": COEFFICIENTS[:3], "intercepts": [1.0]}, 0),
        "affine",
    ),
    **{
        f"support vectors {kernel}, {target}": (
            *(operator, X, {**given, **options}, int(operator == "SVMClassifier")),
            "affine" if kernel == "LINEAR" else "smooth",
        )
        for kernel, options in KERNELS.items()
        for operator, target, given in (
            ("SVMRegressor", "regression", SUPPORTED),
            ("SVMClassifier", "three classes", PAIRED),
            ("SVMClassifier", "two classes", BINARY),
        )
    },
    **{
        f"support vectors of {count} classes {transform}": (
            *("SVMClassifier", X, {**given, **KERNELS["LINEAR"], "post_transform": transform}, 1),
            "smooth" if count == 3 or transform == "LOGISTIC" else "affine",
        )
        for transform in TRANSFORMS[1:]
        for count, given in ((2, BINARY), (3, PAIRED))
    },
    "a power of degree 2": (
        *("SVMRegressor", X, {**SUPPORTED, "kernel_type": "POLY", "kernel_params": [0.5, 0.0, 2.0]}, 0),
        "smooth",
    ),
    "no support vectors, classes": (
        *("SVMClassifier", X, {"coefficients": COEFFICIENTS, "rho": [0.5], **LABELS, **KERNELS["RBF"]}, 1),
        "affine",
    ),
    "no support vectors, regression": (
        *("SVMRegressor", X),
        *({"coefficients": COEFFICIENTS[:3], "n_supports": 0, "rho": [0.5], **KERNELS["RBF"]}, 0, "affine"),
    ),
    "scaler": ("Scaler", X, {"scale": [2.0, -1.0, 0.5], "offset": [1.0, 2.0, 3.0]}, 0, "affine"),
    "scaler by one number": ("Scaler", X, {"scale": [2.0], "offset": [1.0]}, 0, "affine"),
    "scaler of doubles": ("Scaler", X.astype(float), {"scale": [2.0], "offset": [1.0]}, 0, "affine"),
    "scaler of more axes": ("Scaler", X[None], {"scale": [2.0], "offset": [1.0]}, 0, "affine"),
    **{f"norm {norm}": ("Normalizer", X, {"norm": norm}, 0, "smooth") for norm in ("L1", "L2", "MAX")},
    "norm of a vector": ("Normalizer", ROW, {"norm": "L2"}, 0, "smooth"),
    "imputer of NaN": (
        *("Imputer", X, {"imputed_value_floats": [7.0], "replaced_value_float": float("nan")}),
        *(0, "affine"),
    ),
    "vectorizer that cuts": ("FeatureVectorizer", X, {"inputdimensions": [2]}, 0, "affine"),
    "vectorizer that fills up": ("FeatureVectorizer", X, {"inputdimensions": [5]}, 0, "affine"),
    "vectorizer of a vector": ("FeatureVectorizer", ROW, {"inputdimensions": [3]}, 0, "affine"),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_values_and_slopes(name):
    op_type, x, attributes, output, kind = NODES[name]
    case = case_of(op_type, {"x": x}, 1, domain=ML, output=output, **attributes)
    check(case, ("x",))
    assert ilin.linearize(case.model, x).kind == kind


def test_one_score_becomes_the_odds_of_two_classes():
    """Onnx's reference evaluator rounds these to float32, so that its differences are no oracle."""
    w, b = np.float32(COEFFICIENTS[:3]), 0.5
    attributes = {"coefficients": w.tolist(), "intercepts": [b], "classlabels_ints": [0, 1]}
    case = case_of(
        *("LinearClassifier", {"x": X[:1]}, 1), domain=ML, output=1, post_transform="LOGISTIC", **attributes
    )
    affine = ilin.linearize(case.model, X[:1], dtype="float64")
    p = 1 / (1 + np.exp(-(X[0].astype(float) @ w + b)))
    np.testing.assert_allclose(affine.W, p * (1 - p) * np.outer([-1, 1], w), rtol=1e-12)
    assert affine.kind == "smooth"
    assert affine.certificate.verified


def test_what_is_imputed_does_not_move():
    x = np.float32([[1, -1, 2], [-1, 3, 4]])
    attributes = {"imputed_value_floats": [7.0, 8.0, 9.0], "replaced_value_float": -1.0}
    affine = ilin.linearize(case_of("Imputer", {"x": x}, 1, domain=ML, **attributes).model, x)
    np.testing.assert_array_equal(affine.W, np.diag([1, 0, 1, 0, 1, 1]))
    np.testing.assert_array_equal(affine.b, [0, 8, 0, 7, 0, 0])
    assert affine.kind == "piecewise-linear"
    assert affine.certificate.ties == 2
    assert affine.certificate.verified


def test_features_of_several_inputs_stand_side_by_side():
    inputs = {"x": X, "k": np.float32([[1], [2]]), "z": X[:, :1]}
    case = case_of("FeatureVectorizer", inputs, 1, domain=ML, inputdimensions=[2, 1, 2])
    check(case, ("x", "z"))
    check(case, ("z",))


@pytest.mark.parametrize("x", [X, ROW, X[None]], ids=["rows", "vector", "more axes"])
def test_features_are_taken_along_the_last_axis(x):
    case = case_of("ArrayFeatureExtractor", {"x": x, "i": np.int64([[2, 0, 2, 1]])}, 1, domain=ML)
    check(case, ("x",))


@pytest.mark.parametrize(("norm", "divisor"), [("L1", 6.0), ("L2", np.sqrt(14)), ("MAX", 2.0)])
def test_frozen_norms_are_held(norm, divisor):
    x = np.float32([[1, 2, -3]])
    case = case_of("Normalizer", {"x": x}, 1, domain=ML, norm=norm)
    affine = ilin.linearize(case.model, x, mode="frozen")
    np.testing.assert_allclose(affine.W, np.eye(3) / divisor, rtol=1e-6)
    np.testing.assert_array_equal(affine.b, 0)
    assert affine.certificate.verified


def test_the_slope_of_an_absolute_value_at_0_counts_as_0():
    x = np.float32([[1, 0, -3]])
    affine = ilin.linearize(case_of("Normalizer", {"x": x}, 1, domain=ML, norm="L1").model, x)
    np.testing.assert_allclose(affine.W[:, 1], [0, 1 / 4, 0], rtol=1e-6)
    assert affine.certificate.verified, str(affine.certificate)
    assert affine.certificate.ties == 1


REFUSED = {
    "PROBIT": (
        *("LinearClassifier", X * 0 + 0.1, 1),
        {"coefficients": [0.5] * 9, "intercepts": [0.25] * 3, "post_transform": "PROBIT", **LABELS},
        "post_transform PROBIT is not linearised",
    ),
    "iterated probabilities": (
        *("SVMClassifier", X, 1, {**BINARY, **KERNELS["RBF"], "prob_a": [-1.0], "prob_b": [0.0]}),
        "finds its probabilities by iteration",
    ),
    "a score of 0": (
        *("LinearRegressor", X, 0),
        {"coefficients": [1.0] * 3 + [0.0] * 3, "targets": 2, "post_transform": "SOFTMAX_ZERO"},
        "a score is 0",
    ),
    "no norm": ("Normalizer", np.zeros((1, 3), np.float32), 0, {"norm": "L2"}, "a row has norm 0"),
    "one scale for each of several axes": (
        *("Scaler", np.zeros((2, 3, 3), np.float32), 0, {"scale": [1.0] * 3, "offset": [0.0] * 3}),
        r"takes rows of features, \(N, F\)",
    ),
    "imputed along several axes": (
        *("Imputer", np.zeros((2, 3, 3), np.float32), 0),
        {"imputed_value_floats": [1.0] * 3, "replaced_value_float": 0.0},
        r"takes rows of features, \(N, F\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name):
    op_type, x, output, attributes, message = REFUSED[name]
    case = case_of(op_type, {"x": x}, 1, domain=ML, output=output, **attributes)
    with pytest.raises(ilin.UnsupportedError, match=f"{op_type}, ai.onnx.ml opset 1.*{message}"):
        ilin.linearize(case.model, x)


# -- what only jumps ---------------------------------------------------------------------------------------

JUMPS = {
    "Binarizer": (np.float32([0.5, 2, -3]), 1, {"threshold": 0.5}, [0, 1.5, 3.5]),
    "OneHotEncoder": (
        *(np.float32([1.75, 0.25, -1.5, 2]), 1, {"cats_int64s": [0, 1, 2], "zeros": 1}),
        [0.25, 0.75, 0.5, 0],
    ),
    "LabelEncoder": (
        *(
            np.float32([1, 1.5, -2, 9]),
            2,
            {"keys_floats": [3.0, 1.0, -1.0], "values_floats": [7.0, 8.0, 9.0]},
        ),
        [0, 0.5, 1, 6],
    ),
    "SVMRegressor": (
        X[:1],
        1,
        {**SUPPORTED, **KERNELS["RBF"], "one_class": 1},
        [np.nan],
    ),
}


@pytest.mark.parametrize("op_type", JUMPS)
def test_margins_of_what_jumps(op_type):
    x, opset, attributes, margins = JUMPS[op_type]
    compiled = ilin.compile(case_of(op_type, {"x": x}, opset, domain=ML, **attributes).model)
    affine = compiled.at(x)
    assert affine.kind == "locally constant"
    assert not affine.W.any()
    assert affine.certificate.verified
    ((_, guard),) = compiled._asked(x, "all").program.guarded
    np.testing.assert_allclose(guard.margin.ravel(), margins)


def test_an_entry_at_a_key_and_one_just_above_it_are_looked_up_apart():
    attributes = {"keys_floats": [1.0], "values_floats": [7.0]}
    compiled = ilin.compile(case_of("LabelEncoder", {"x": np.float32([1])}, 2, domain=ML, **attributes).model)
    choices = [
        next(compiled._asked(np.float32([x]), "all").program.guarded)[1].choice.item() for x in (0.5, 1, 1.5)
    ]
    assert len(set(choices)) == 3


# -- trees -------------------------------------------------------------------------------------------------

# One tree on features 0 and 1, one on feature 2 with every kind of branch.
MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")


def named_trees(mode):
    """x0 ? 0.5 at the root, under its false side x1 ≤ -1; and a tree of one leaf."""
    return {
        "nodes_treeids": [0, 0, 0, 0, 0, 1],
        "nodes_nodeids": [0, 1, 2, 3, 4, 0],
        "nodes_featureids": [0, 0, 1, 0, 0, 0],
        "nodes_modes": [f"BRANCH_{mode}", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, -1.0, 0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 3, 0, 0, 0],
        "nodes_falsenodeids": [2, 0, 4, 0, 0, 0],
    }


WEIGHTS = {
    "target_treeids": [0, 0, 0, 1],
    "target_nodeids": [1, 3, 4, 0],
    "target_ids": [0, 0, 0, 0],
    "target_weights": [1.0, 2.0, 4.0, 8.0],
    "n_targets": 1,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("at", [(0.25, 0.0), (0.5, -3.0), (0.75, -1.0), (0.75, 2.0)], ids=str)
def test_a_leaf_is_kept_just_where_onnxruntime_gives_the_same(mode, at):
    x = np.float32([[*at, 9.0]])
    case = case_of("TreeEnsembleRegressor", {"x": x}, 1, domain=ML, **named_trees(mode), **WEIGHTS)
    run = onnxruntime_of(case.model)
    compiled = ilin.compile(case.model)
    affine = compiled.at(x)
    np.testing.assert_array_equal(affine.b, run({"x": x})["y"].ravel())
    assert affine.certificate.verified
    ((_, guard),) = compiled._asked(x, "all").program.guarded
    margin = guard.margin[0, 0]
    assert guard.margin[0, 1] == np.inf
    for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
        step = np.zeros((1, 3))
        step[0, axis] = sign
        if margin > 0:
            inside = run({"x": (x + 0.999 * margin * step).astype(np.float32)})["y"]
            np.testing.assert_array_equal(inside, run({"x": x})["y"])
    beyond = [
        run({"x": (x + length * np.float32([[i, j, 0]])).astype(np.float32)})["y"].item()
        for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))
        for length in (margin, margin + 1e-3)
    ]
    assert any(value != affine.b[0] for value in beyond)


def counted_trees(modes, splits, members=None):
    """One tree: x0 at the root; on its true side leaf 0, on its false side x1, with leaves 1 and 2."""
    tensors = {
        "nodes_modes": np.uint8(modes),
        "nodes_splits": np.float32(splits),
        "leaf_weights": np.float32([1, 2, 4]),
    }
    if members is not None:
        tensors["membership_values"] = np.float32(members)
    return {
        "tree_roots": [0],
        "nodes_featureids": [0, 1],
        "n_targets": 1,
        "leaf_targetids": [0, 0, 0],
        "nodes_truenodeids": [0, 1],
        "nodes_trueleafs": [1, 1],
        "nodes_falsenodeids": [1, 2],
        "nodes_falseleafs": [0, 1],
        **{name: numpy_helper.from_array(value) for name, value in tensors.items()},
    }


COUNTED = {
    "thresholds": ([0, 3], [0.5, -1.0], None, (0.75, 1.0), 0.25),
    "true side": ([0, 3], [0.5, -1.0], None, (0.25, 1.0), 0.25),
    "a member": ([6, 0], [0.0, -1.0], [1.0, 2.0, 5.0, np.nan], (2.0, 0.0), 0.0),
    "no member": ([6, 1], [0.0, -1.0], [1.0, 2.0, 5.0, np.nan], (2.25, 0.0), 0.25),
    "beyond all members": ([6, 1], [0.0, -1.0], [1.0, 2.0, 5.0, np.nan], (6.0, 0.0), 1.0),
    "members under a threshold": ([0, 6], [0.5, 0.0], [1.0, 2.0, np.nan], (3.0, 1.5), 0.5),
}


@pytest.mark.parametrize("name", COUNTED)
def test_trees_of_opset_5(name):
    modes, splits, members, at, margin = COUNTED[name]
    x = np.float32([at])
    case = case_of("TreeEnsemble", {"x": x}, 5, domain=ML, **counted_trees(modes, splits, members))
    compiled = ilin.compile(case.model)
    affine = compiled.at(x)
    np.testing.assert_array_equal(affine.b, onnxruntime_of(case.model)({"x": x})["y"].ravel())
    assert affine.certificate.verified
    ((_, guard),) = compiled._asked(x, "all").program.guarded
    np.testing.assert_allclose(guard.margin, [[margin]])


def test_the_half_spaces_of_a_tree_hold_where_its_leaf_is_kept():
    x = np.float32([[0.75, -3.0, 0.0], [0.25, 0.0, 0.0]])
    case = case_of("TreeEnsembleRegressor", {"x": x}, 1, domain=ML, **named_trees("LEQ"), **WEIGHTS)
    compiled = ilin.compile(case.model)
    ((_, here),) = compiled._asked(x, "all").program.guarded
    spaces = here.half_spaces()
    kept = []
    for size in (0.1, 0.5, 2.0, 4.0) * 5:
        z = x + size * RANDOM.standard_normal(x.shape).astype(np.float32)
        ((_, there),) = compiled._asked(z, "all").program.guarded
        sides = sum(L.apply(z[None])[0] for _, L in spaces.terms) + spaces.offset
        kept.append(bool((sides > 0).all()))
        assert kept[-1] == np.array_equal(here.choice, there.choice)
    assert set(kept) == {True, False}


# -- maps at the output --------------------------------------------------------------------------------------


def with_names(outputs=("names",)):
    """A linear classifier whose scores come out under their classes' names."""
    scores = helper.make_node("LinearClassifier", ["x"], ["label", "scores"], domain=ML, **LINEAR, **LABELS)
    named = helper.make_node("ZipMap", ["scores"], ["names"], domain=ML, classlabels_int64s=[3, 5, 7])
    value = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    puts = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        helper.make_value_info("names", helper.make_sequence_type_proto(value)),
    ]
    graph = helper.make_graph(
        [scores, named], "named", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])], puts
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_maps_are_explained_by_the_tensor_that_they_are_made_of():
    affine = ilin.linearize(with_names(), X[0])
    assert list(affine.outputs) == ["scores"]
    np.testing.assert_allclose(affine.W, np.reshape(COEFFICIENTS, (3, 3)), rtol=1e-6)
    np.testing.assert_allclose(affine.b, INTERCEPTS)
    (maps,) = onnxruntime_of(with_names())({"x": X[:1]})["names"]
    np.testing.assert_allclose(affine(X[:1])[0], list(maps.values()), rtol=1e-5)
    assert affine.certificate.verified
    assert affine.notes[0] == (
        "output 'names' is a sequence of maps; explained is 'scores', which it is made of"
    )


def test_a_map_by_name_is_refused_with_the_tensor_to_name():
    with pytest.raises(ilin.UnsupportedError, match=r"'names' in outputs is no tensor.*name 'scores'"):
        ilin.compile(with_names(), outputs=["names"])


def test_each_row_of_a_batch_is_explained_by_itself():
    affine = ilin.linearize(with_names(), X)
    block = np.reshape(COEFFICIENTS, (3, 3))
    np.testing.assert_allclose(affine.W, np.kron(np.eye(2), block), rtol=1e-6)
