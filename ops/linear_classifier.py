"""LinearClassifier: scores Z = post_transform(X Cᵀ + i), for rows X of features, and their best class Y.

Y does not change around x. Z is affine without a post_transform, else smooth. One score s for two classes
becomes (1 - s, s), which is transformed by LOGISTIC only: into (1 - σ(s), σ(s)). That is onnxruntime's way;
the specification is silent, and onnx's reference evaluator begins with (-s, s).
https://onnx.ai/onnx/operators/onnx_aionnxml_LinearClassifier.html
"""

from collections.abc import Mapping
from typing import Any

from ..runtime.program import Kind
from ._rule import Local, Reading, Site, lowers
from ._scores import floats, for_two_classes, linear, post_transformed


def _two_by_one(attributes: Mapping[str, Any]) -> bool:
    """Whether there is one score for two classes."""
    labels = attributes.get("classlabels_strings") or attributes.get("classlabels_ints") or ()
    return len(attributes.get("intercepts") or ()) == 1 and len(labels) == 2


def _smooth(attributes: Mapping[str, Any], _: Reading) -> bool:
    asked = attributes.get("post_transform", "NONE")
    untouched = ("NONE", "SOFTMAX", "SOFTMAX_ZERO") if _two_by_one(attributes) else ("NONE",)
    return asked not in untouched


def _affine(attributes: Mapping[str, Any], reading: Reading) -> bool:
    return not _smooth(attributes, reading)


def _scores(site: Site) -> Local:
    intercepts = floats(site, "intercepts")  # onnxruntime counts the classes by these
    return linear(site, floats(site, "coefficients").reshape(len(intercepts), -1), intercepts)


@lowers("LinearClassifier", domain="ai.onnx.ml", constant_outputs=(0,), when=_affine)
def scores(site: Site) -> Local:
    """The coefficients of each class."""
    found = _scores(site)
    return for_two_classes(found, ones=True) if _two_by_one(site.attributes) else found


@lowers(
    "LinearClassifier",
    domain="ai.onnx.ml",
    kind=Kind.SMOOTH,
    observes=(0,),
    constant_outputs=(0,),
    when=_smooth,
)
def linear_classifier(site: Site) -> Local:
    """The tangent of the post_transform."""
    found = _scores(site)
    if _two_by_one(site.attributes):
        found = for_two_classes(found, ones=False)  # σ(-s) is 1 - σ(s)
    return post_transformed(site, found, site.attribute("post_transform"))
