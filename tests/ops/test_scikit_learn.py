"""scikit-learn's models through skl2onnx: W x + b is what scikit-learn computes, W its coefficients."""

from __future__ import annotations

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import ilin

RANDOM = np.random.default_rng(0)
X = (RANDOM.standard_normal((120, 4)) * [1, 2, 0.5, 3] + [0, 1, -1, 2]).astype(np.float32)
TWO = (X[:, 0] + X[:, 1] > 1).astype(int)
THREE = np.digitize(X[:, 0] - X[:, 2], [0.5, 1.5])
TARGET = X @ [1, 2, -1, 0.5] + np.sin(X[:, 0])
POINT = RANDOM.standard_normal((1, 4)).astype(np.float32)
SINGLE = 2e-5  # what float32 leaves of a few sums and products, relative


def explained(model, name=None, **options):
    """The model's map at POINT in float64, from the tensor that holds scores or probabilities."""
    proto = to_onnx(model, X[:1])
    affine = ilin.linearize(
        proto, POINT, outputs=None if name is None else [name], dtype="float64", **options
    )
    assert affine.certificate.verified, str(affine.certificate)
    return affine


def central(function, step=1e-4):
    """Differences of a function of (N, 4) rows at POINT, in float64."""
    x = POINT.astype(float)
    return np.stack(
        [np.ravel(function(x + step * e) - function(x - step * e)) / (2 * step) for e in np.eye(4)[:, None]],
        axis=1,
    )


def test_a_linear_regression_is_its_coefficients():
    model = LinearRegression().fit(X, np.stack([TARGET, -3 * TARGET], axis=1))
    affine = explained(model)
    np.testing.assert_allclose(affine.W, model.coef_, rtol=1e-6)
    np.testing.assert_allclose(affine.b, model.intercept_, rtol=1e-6)
    assert affine.kind == "affine"


@pytest.mark.parametrize(
    "scaler", [StandardScaler(), MinMaxScaler(), SimpleImputer()], ids=lambda s: type(s).__name__
)
def test_ridge_behind_a_scaler(scaler):
    model = make_pipeline(scaler, Ridge()).fit(X, TARGET)
    scale = {"StandardScaler": lambda: 1 / scaler.scale_, "MinMaxScaler": lambda: scaler.scale_}
    factor = scale.get(type(scaler).__name__, lambda: np.ones(4))()
    affine = explained(model)
    np.testing.assert_allclose(affine.W, (model[-1].coef_ * factor).reshape(1, 4), rtol=SINGLE)
    np.testing.assert_allclose(affine.W @ POINT[0] + affine.b, model.predict(POINT).ravel(), rtol=SINGLE)
    assert affine.kind == "affine"


@pytest.mark.parametrize("classes", [TWO, THREE], ids=["two", "three"])
def test_a_linear_svc_is_its_decision_function(classes):
    model = LinearSVC().fit(X, classes)
    affine = explained(model)
    np.testing.assert_allclose(affine.W, model.coef_, rtol=1e-6)
    np.testing.assert_allclose(
        affine.W @ POINT[0] + affine.b, model.decision_function(POINT).ravel(), rtol=SINGLE
    )


def test_the_odds_of_a_logistic_regression():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, TWO)
    affine = explained(model)
    p = model.predict_proba(POINT)[0]
    row = p[0] * p[1] * model[-1].coef_[0] / model[0].scale_
    np.testing.assert_allclose(affine.W, [-row, row], rtol=SINGLE)
    np.testing.assert_allclose(affine.W @ POINT[0] + affine.b, p, rtol=SINGLE)
    assert affine.kind == "smooth"


@pytest.mark.parametrize("first", [StandardScaler(), PCA(3)], ids=["scaled", "components"])
def test_the_probabilities_of_a_logistic_regression(first):
    model = make_pipeline(first, LogisticRegression()).fit(X, THREE)
    affine = explained(model)
    p = model.predict_proba(POINT)[0]
    before = np.diag(1 / first.scale_) if isinstance(first, StandardScaler) else first.components_
    J = (np.diag(p) - np.outer(p, p)) @ model[-1].coef_ @ before
    np.testing.assert_allclose(affine.W, J, atol=SINGLE * np.abs(J).max())
    np.testing.assert_allclose(affine.W @ POINT[0] + affine.b, p, rtol=SINGLE)


def test_a_network_is_the_product_of_its_active_layers():
    model = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8, 6), max_iter=30))
    model.fit(X, TARGET)
    affine = explained(model)
    h, W = (POINT - model[0].mean_) / model[0].scale_, np.diag(1 / model[0].scale_)
    for weight, bias in zip(model[-1].coefs_[:-1], model[-1].intercepts_[:-1], strict=True):
        z = h @ weight + bias
        h, W = np.maximum(z, 0), W @ weight * (z > 0)
    np.testing.assert_allclose(affine.W, (W @ model[-1].coefs_[-1]).T, rtol=SINGLE, atol=1e-6)
    np.testing.assert_allclose(affine.W @ POINT[0] + affine.b, model.predict(POINT), rtol=SINGLE)
    assert affine.kind == "piecewise-linear"


def test_a_network_of_two_classes():
    model = make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=30)).fit(X, TWO)
    affine = explained(model)
    J = central(model.predict_proba)
    np.testing.assert_allclose(affine.W, J, atol=1e-6 + SINGLE * np.abs(J).max())
    np.testing.assert_allclose(affine.W @ POINT[0] + affine.b, model.predict_proba(POINT)[0], rtol=SINGLE)


SMOOTH = {
    **{f"SVR {kernel}": (SVR(kernel=kernel), "predict", TARGET) for kernel in ("rbf", "poly", "sigmoid")},
    "SVR linear": (SVR(kernel="linear"), "predict", TARGET),
    "normalised": (make_pipeline(Normalizer(), Ridge()), "predict", TARGET),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_slopes_are_differences_of_what_scikit_learn_computes(name):
    model, method, target = SMOOTH[name]
    model.fit(X, target)
    affine = explained(model)
    function = getattr(model, method)
    J = central(function)
    np.testing.assert_allclose(affine.W, J, atol=1e-4 * np.abs(J).max())
    np.testing.assert_allclose(affine.W @ POINT[0] + affine.b, function(POINT).ravel(), rtol=1e-4)
    assert affine.kind == ("affine" if name == "SVR linear" else "smooth")


def test_the_decision_function_of_support_vectors():
    model = SVC().fit(X, TWO)
    affine = explained(model)
    J = central(model.decision_function)
    # The operator's scores are (-s, s), with s for the first class.
    np.testing.assert_allclose(np.abs(affine.W), np.abs(np.vstack([J, J])), atol=1e-4 * np.abs(J).max())


TREES = {
    "tree": (DecisionTreeClassifier(max_depth=4, random_state=0), THREE),
    "regression": (DecisionTreeRegressor(max_depth=4, random_state=0), TARGET),
    "forest": (RandomForestClassifier(12, max_depth=4, random_state=0), THREE),
    "boosted classes": (GradientBoostingClassifier(n_estimators=8, random_state=0), TWO),
    "boosted": (GradientBoostingRegressor(n_estimators=8, random_state=0), TARGET),
}


def value_of(model, x):
    return np.ravel(model.predict_proba(x) if hasattr(model, "classes_") else model.predict(x))


@pytest.mark.parametrize("name", TREES)
def test_trees_are_constant_up_to_the_margins_of_their_leaves(name):
    model, target = TREES[name]
    model.fit(X, target)
    compiled = ilin.compile(to_onnx(model, X[:1]))
    affine = compiled.at(POINT)
    assert affine.kind == "locally constant"
    assert not affine.W.any()
    assert affine.certificate.verified
    np.testing.assert_allclose(affine.b, value_of(model, POINT), rtol=SINGLE)
    ((_, guard),) = compiled._asked(POINT, "all").program.guarded
    trees = getattr(model, "estimators_", None)
    trees = [model] if trees is None else np.ravel(trees)
    assert guard.margin.shape == (1, len(trees))
    for margin, tree in zip(
        np.sort(guard.margin[0]), np.sort([_margin(t.tree_) for t in trees]), strict=True
    ):
        np.testing.assert_allclose(margin, tree, rtol=1e-5, atol=1e-6)


def _margin(tree):
    """The nearest threshold on POINT's way through one of scikit-learn's trees."""
    node, margin = 0, np.inf
    while tree.children_left[node] >= 0:
        apart = POINT[0, tree.feature[node]] - tree.threshold[node]
        margin = min(margin, abs(apart))
        node = (tree.children_left if apart <= 0 else tree.children_right)[node]
    return margin
