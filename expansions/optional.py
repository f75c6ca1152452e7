"""Optionals: whether they hold something is known once branches are taken, so they need no nodes.

https://onnx.ai/onnx/operators/onnx__Optional.html and its neighbours.
"""

from __future__ import annotations

import numpy as np

from ..runtime.program import Kind
from ._composite import Composite, Held, Result
from ._registry import expands


@expands("Optional", kind=Kind.AFFINE, container=True)
def optional(site: Composite) -> tuple[Result]:
    """What it is given, or nothing."""
    if not site.has(0):
        return (None,)
    name = site.inputs[0]
    return (site.sequences[name] if name in site.sequences else Held(name),)


@expands("OptionalGetElement", kind=Kind.AFFINE, container=True)
def optional_get_element(site: Composite) -> tuple[Result]:
    """What it holds; since opset 18 the input may be a tensor or a sequence itself."""
    name = site.inputs[0]
    if name not in site.sequences:
        return (name,)
    held = site.sequences[name]
    if held is None:
        raise site.refuse(f"its input {name!r} is an optional without a value")
    return (held.tensor if isinstance(held, Held) else held,)


@expands("OptionalHasElement", kind=Kind.LOCALLY_CONSTANT, container=True)
def optional_has_element(site: Composite) -> tuple[Result]:
    """Whether it holds something."""
    holds = site.has(0) and site.sequences.get(site.inputs[0], Held("")) is not None
    return (site.constant(np.array(holds)),)
