"""LinearRegressor: Y = post_transform(X Cᵀ + i), for rows X of features.

Affine without a post_transform, else smooth. onnxruntime transforms the scores of several targets only.
https://onnx.ai/onnx/operators/onnx_aionnxml_LinearRegressor.html
"""

from collections.abc import Mapping
from typing import Any

from ..runtime.program import Kind
from ._rule import Local, Reading, Site, lowers
from ._scores import floats, linear, post_transformed


def _transform(attributes: Mapping[str, Any], several: bool) -> str:
    """What is done to the scores."""
    asked = str(attributes.get("post_transform", "NONE"))
    return asked if several or asked == "PROBIT" else "NONE"


def _smooth(attributes: Mapping[str, Any], _: Reading) -> bool:
    return _transform(attributes, attributes.get("targets", 1) > 1) != "NONE"


def _affine(attributes: Mapping[str, Any], reading: Reading) -> bool:
    return not _smooth(attributes, reading)


@lowers("LinearRegressor", domain="ai.onnx.ml", when=_affine)
def scores(site: Site) -> Local:
    """The coefficients of each target."""
    coefficients = floats(site, "coefficients").reshape(site.attribute("targets", 1), -1)
    return linear(site, coefficients, floats(site, "intercepts"))


@lowers("LinearRegressor", domain="ai.onnx.ml", kind=Kind.SMOOTH, observes=(0,), when=_smooth)
def linear_regressor(site: Site) -> Local:
    """The tangent of the post_transform."""
    return post_transformed(site, scores(site), site.attribute("post_transform"))
