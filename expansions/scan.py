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
        return _batches(site)
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


def _batches(site: Composite) -> tuple[str, ...]:
    """Opset 8: along axis 1, for each entry of the batch in axis 0 by itself."""
    if site.has(0):
        raise site.refuse("sequence_lens of Scan at opset 8 is not supported; convert the model to opset 9")
    body, count = site.attribute("body"), site.attribute("num_scan_inputs")
    backwards = site.attribute("directions", [0] * count)
    first, sources = site.inputs[1:-count], site.inputs[-count:]
    batch, trips = site.shape(-1)[:2]
    site.require_room(batch * trips * (len(body.node) + count), f"its {batch * trips:,} iterations")
    declared = list(body.output)[len(first) :]
    rows = []
    for b in range(batch):
        states, scanned = [site.take(state, b, 0) for state in first], []
        own = [site.take(source, b, 0) for source in sources]
        for i in range(trips):
            at = [trips - 1 - i if back else i for back in backwards]
            entries = [site.take(source, place, 0) for source, place in zip(own, at, strict=True)]
            outputs = site.inline_graph(body, [*states, *entries], f"{b}/{i}/")
            states = outputs[: len(states)]
            scanned.append(outputs[len(states) :])
        rows.append([*states, *stacked(site, declared, scanned, [0] * len(declared))])
    return tuple(site.stack(column, 0) for column in zip(*rows, strict=True))
