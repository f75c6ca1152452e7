"""Softplus: y = log(1 + exp(x)); Softsign: y = x / (1 + |x|).

Smooth: at x the slopes are 1 / (1 + exp(-x)) and 1 / (1 + |x|)². Frozen mode holds Softsign's denominator.
https://onnx.ai/onnx/operators/onnx__Softplus.html, …Softsign.html
"""

import numpy as np

from ..runtime.emit import Builder
from ..runtime.primitives import Array
from ..runtime.program import Kind
from . import _functions
from ._rule import Local, Site, explains, lowers
from ._smooth import elementwise, elementwise_in_graph


@lowers("Softplus", kind=Kind.SMOOTH, observes=(0,))
def softplus(site: Site) -> Local:
    """The tangent at x."""
    return elementwise(site, _functions.softplus, _functions.logistic)


@lowers("Softsign", kind=Kind.SMOOTH, observes=(0,))
def softsign(site: Site) -> Local:
    """The tangent at x, or its gate."""
    return elementwise(site, lambda x: x * _share(x), lambda x: _share(x) ** 2, gate=_share)


def _share(x: Array) -> Array:
    return np.asarray(1 / (1 + np.abs(x)))


@explains("Softplus")
def softplus_in_graph(site: Site, graph: Builder) -> tuple[str, ...]:
    """The tangent."""
    return elementwise_in_graph(site, graph, graph.node("Sigmoid", site.tensor()))
