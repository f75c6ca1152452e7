"""Loop: the nodes of its body, once for each iteration that it runs at x.

What an iteration decides to go on by are decisions: the expansion holds where they come out the same.
https://onnx.ai/onnx/operators/onnx__Loop.html
"""

from __future__ import annotations

import numpy as np

from ._composite import Composite, Facts
from ._iterations import stacked
from ._registry import expands


def _enough(site: Composite) -> tuple[Facts, ...]:
    """Iterations after which every state depends on all that it can depend on."""
    return (Facts(trips=len(site.inputs)),)


@expands("Loop", values=(0, 1), trips=True, typical=_enough)
def loop(site: Composite) -> tuple[str, ...]:
    """Unroll it."""
    body, trips = site.attribute("body"), site.facts.trips or 0
    site.require_room(trips * len(body.node), f"its {trips:,} iterations")
    condition = site.inputs[1] if site.has(1) else site.constant(np.array(True))
    states = list(site.inputs[2:])
    scanned = []
    ends_by_count = site.has(0) and site.integer(0, trips) <= trips
    for i in range(trips):
        iteration = site.constant(np.array(i, np.int64))
        condition, *outputs = site.inline_graph(body, [iteration, condition, *states], f"{i}/")
        states, scans = outputs[: len(states)], outputs[len(states) :]
        scanned.append(scans)
        if i < trips - 1 or not ends_by_count:
            site.decisions.append((condition, np.array(i < trips - 1)))
    declared = list(body.output)[1 + len(states) :]
    return (*states, *stacked(site, declared, scanned, [0] * len(declared)))
