"""ZipMap: the columns of x under names, a sequence of maps.

It stands at the end of a model and only names what comes in, so its input is explained in its place.
https://onnx.ai/onnx/operators/onnx_aionnxml_ZipMap.html
"""

from ..runtime.primitives import Reshape
from ._rule import Local, Site, lowers


@lowers("ZipMap", domain="ai.onnx.ml")
def zip_map(site: Site) -> Local:
    """The identity."""
    return Local(Reshape(site.shape(), site.shape()))
