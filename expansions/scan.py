"""Scan: the nodes of its body, once for each entry along the scanned axis.

https://onnx.ai/onnx/operators/onnx__Scan.html
"""

from __future__ import annotations

from ._composite import Composite, Facts
from ._iterations import stacked
from ._registry import expands


def _enough(site: Composite) -> tuple[Facts, ...]:
    """Entries after which every state depends on all that it can depend on."""
    return (Facts(shapes={-1: (len(site.inputs),) * 8}),)


@expands("Scan", shapes=(-1,), typical=_enough)
def scan(site: Composite) -> tuple[str, ...]:
    """Unroll it."""
    if site.opset < 9:
        raise site.refuse("Scan is expanded from opset 9 on; convert the model to a newer opset")
    body, count = site.attribute("body"), site.attribute("num_scan_inputs")
    axes = site.attribute("scan_input_axes", [0] * count)
    backwards = site.attribute("scan_input_directions", [0] * count)
    states, sources = list(site.inputs[:-count]), site.inputs[-count:]
    trips = site.shape(-1)[axes[-1]]
    site.require_room(trips * (len(body.node) + count), f"its {trips:,} iterations")
    scanned = []
    for i in range(trips):
        entries = [
            site.take(source, trips - 1 - i if back else i, axis)
            for source, axis, back in zip(sources, axes, backwards, strict=True)
        ]
        outputs = site.inline_graph(body, [*states, *entries], f"{i}/")
        states = outputs[: len(states)]
        scanned.append(outputs[len(states) :])
    declared = list(body.output)[len(states) :]
    out_axes = site.attribute("scan_output_axes", [0] * len(declared))
    back = site.attribute("scan_output_directions", [0] * len(declared))
    return (*states, *stacked(site, declared, scanned, out_axes, back))
