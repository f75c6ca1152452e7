"""LayerNormalization: y = scale · (x - mean) / sqrt(var + epsilon) + bias, over the axes from `axis` on.

RMSNormalization: y = scale · x / sqrt(mean(x²) + epsilon). Smooth; frozen mode holds the denominators.
SimplifiedLayerNormalization is onnxruntime's name of the second, in the domain of ONNX.
https://onnx.ai/onnx/operators/onnx__LayerNormalization.html, …RMSNormalization.html
"""

from ..runtime.primitives import Array, Primitive, Scale, chain
from ..runtime.program import Kind
from ._normalised import Groups, Layout, normalised, over_deviation
from ._rule import Local, Site, lowers
from ._smooth import TRANSCENDENTAL, tangent

EPSILON = 1e-5  # the default


@lowers("LayerNormalization", kind=Kind.SMOOTH, observes=(0, 1, 2), products=((0, 1),), tangent=True)
def layer_normalization(site: Site) -> tuple[Local, ...]:
    """Normalise about the mean; then, where they are asked for, the mean and the inverse deviation."""
    return layer_outputs(site, centred=True)


@lowers(
    *("RMSNormalization", "SimplifiedLayerNormalization"),
    kind=Kind.SMOOTH,
    observes=(0, 1),
    products=((0, 1),),
    tangent=True,
)
def rms_normalization(site: Site) -> tuple[Local, ...]:
    """Normalise about 0; SimplifiedLayerNormalization also returns the inverse root mean square."""
    return layer_outputs(site, centred=False)


def layer_outputs(site: Site, *, centred: bool, epsilon: float = EPSILON) -> tuple[Local, ...]:
    """Y, and what else the node returns: the mean (where it is taken away) and 1 / sqrt(var + epsilon)."""
    shape = site.shape()
    axes = tuple(range(site.attribute("axis", -1) % len(shape), len(shape)))
    inverse = over_deviation(site.attribute("epsilon", epsilon))
    y = normalised(Layout(site, shape), axes, inverse, centred=centred)
    if len(site.outputs) == 1:
        return (y,)
    groups = Groups(site.value(), axes, centred)
    r, kappa = inverse(groups.v)
    means = [(groups.mean, groups.average())] if centred else []
    deviation = (r, chain(Scale(shape, groups.c), groups.average(), Scale(r.shape, -kappa)))
    statistics = [_statistic(site, groups, *pair) for pair in (*means, deviation)]
    return (y, *statistics)[: len(site.outputs)]


def _statistic(site: Site, groups: Groups, value: Array, L: Primitive) -> Local:
    """A value of every group, with its slope in x."""
    terms = [(0, L)] if site.active() else []
    return tangent(site, value, terms, roundings=groups.count + TRANSCENDENTAL)
