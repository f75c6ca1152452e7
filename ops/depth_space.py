"""DepthToSpace, SpaceToDepth: channels to blocks of pixels, and back.

https://onnx.ai/onnx/operators/onnx__DepthToSpace.html, …SpaceToDepth.html
"""

from ._moves import gathered, positions
from ._rule import Local, Site, lowers


@lowers("DepthToSpace")
def depth_to_space(site: Site) -> Local:
    """Spread channels over b × b pixels; in DCR order the block comes first in depth, in CRD order last."""
    n, c, h, w = site.shape()
    b = site.attribute("blocksize")
    own = positions(site)
    if site.attribute("mode", "DCR") == "DCR":
        blocks = own.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = own.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return Local(gathered(site, blocks.reshape(n, c // b**2, h * b, w * b)))


@lowers("SpaceToDepth")
def space_to_depth(site: Site) -> Local:
    """Stack b × b pixels as channels; in DCR order the block comes first in depth, in CRD order last."""
    n, c, h, w = site.shape()
    b = site.attribute("blocksize")
    order = (0, 3, 5, 1, 2, 4) if site.attribute("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    blocks = positions(site).reshape(n, c, h // b, b, w // b, b).transpose(order)
    return Local(gathered(site, blocks.reshape(n, c * b**2, h // b, w // b)))
