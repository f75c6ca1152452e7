"""If: the nodes of the branch taken at x.

https://onnx.ai/onnx/operators/onnx__If.html
"""

from __future__ import annotations

import numpy as np

from ._composite import Composite, Facts
from ._registry import expands


def _branches(_: Composite) -> tuple[Facts, ...]:
    return tuple(Facts(values={0: np.array(taken)}) for taken in (True, False))


@expands("If", values=(0,), typical=_branches)
def if_(site: Composite) -> tuple[str, ...]:
    """The branch that the condition at x takes."""
    branch = "then" if site.integer(0, 0) else "else"
    return tuple(site.inline_graph(site.attribute(f"{branch}_branch"), (), f"{branch}/"))
