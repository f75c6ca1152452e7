"""What can be said of a model before anything runs, as plain data and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..compiler.graph import Graph
from ..compiler.scope import Verdict, judge, scope_of
from ..runtime.errors import UnsupportedError
from ._text import dimensions, labelled, one_line
from .facts import Facts, graph_facts, put_facts
from .summary import holds, model_lines
from .tables import Table


def inspected(graph: Graph, inputs: Sequence[str] | None, outputs: Sequence[str] | None) -> Facts:
    """Judge every node, and find the first obstacle between inputs and outputs.

    Raises:
        UnknownTensorError: a name that the graph does not have.
    """
    reason = None
    try:
        scope_of(graph, inputs, outputs)
    except UnsupportedError as error:
        reason = str(error)
    free = inputs or [put.name for put in graph.inputs if put.floating]
    asked = outputs or [put.explained for put in graph.outputs if put.explained]
    needed = _needed(graph, asked, set(free))
    verdicts = judge(graph, free)
    nodes = [_node(verdict, verdict.node.position in needed) for verdict in verdicts]
    return {
        "model": graph_facts(graph),
        "inputs": [put_facts(put) for put in graph.inputs],
        "outputs": [put_facts(put) for put in graph.outputs],
        "linearizable": reason is None,
        "obstacle": None if reason is None else _obstacle(graph, inputs, reason, verdicts, needed),
        "counts": dict(Counter(node["verdict"] for node in nodes).most_common()),
        "nodes": nodes,
    }


def _node(verdict: Verdict, needed: bool) -> Facts:
    node = verdict.node
    kind = (
        "unsupported" if verdict.kind is None else str(verdict.kind) if verdict.depends_on_x else "constant"
    )
    return {
        "name": node.name,
        "op": node.op_type,
        "domain": node.domain or "ai.onnx",
        "opset": node.opset,
        "verdict": kind,
        "depends_on_x": verdict.depends_on_x,
        "needed": needed,
        "reason": verdict.reason,
    }


def _needed(graph: Graph, outputs: Sequence[str], free: set[str]) -> set[int]:
    """Positions of the nodes that an output depends on, up to the free tensors."""
    wanted, needed = set(outputs) - free, set[int]()
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            needed.add(node.position)
            wanted.update({*node.inputs, *node.captured} - free - {""})
    return needed


def _obstacle(
    graph: Graph, inputs: Sequence[str] | None, reason: str, verdicts: Sequence[Verdict], needed: set[int]
) -> Facts:
    """The first obstacle on the way, and the tensors just before it that can be explained instead."""
    first = next((v.node for v in verdicts if v.kind is None and v.node.position in needed), None)
    if first is None:  # nothing to start from or to arrive at, rather than a node
        return {"node": None, "op": None, "domain": None, "opset": None, "reason": reason, "instead": []}
    before = [name for name in dict.fromkeys(first.inputs) if name and _works(graph, inputs, name)]
    return {
        "node": first.name,
        "op": first.op_type,
        "domain": first.domain or "ai.onnx",
        "opset": first.opset,
        "reason": reason,
        "instead": before,
    }


def _works(graph: Graph, inputs: Sequence[str] | None, output: str) -> bool:
    """Whether a tensor that depends on x could be explained."""
    try:
        scope = scope_of(graph, inputs, [output])
    except UnsupportedError:
        return False
    return output in scope.active and output not in scope.inputs


def verdict_lines(facts: Facts) -> tuple[str, Table, str]:
    """What stands above the table, the table, and what stands below it."""
    return "\n".join(_head(facts)), _table(facts), "\n".join(_tail(facts))


def _head(facts: Facts) -> list[str]:
    return [
        *model_lines(facts["model"]),
        *(labelled("input", _put(put)) for put in facts["inputs"]),
        *(labelled("output", _put(put)) for put in facts["outputs"]),
        "",
    ]


def _put(put: Facts) -> str:
    return f"{one_line(put['name'])} {dimensions(put['shape'])} {put['dtype'] or '(no tensor)'}"


def _table(facts: Facts) -> Table:
    rows = [
        [
            node["name"],
            node["op"] if node["domain"] == "ai.onnx" else f"{node['domain']}.{node['op']}",
            str(node["opset"]),
            node["verdict"],
            "" if node["needed"] else "not needed for the outputs",
        ]
        for node in facts["nodes"]
    ]
    if all(node["needed"] for node in facts["nodes"]):
        return Table(("node", "operator", "opset", "verdict"), [row[:4] for row in rows])
    return Table(("node", "operator", "opset", "verdict", ""), rows)


def _tail(facts: Facts) -> list[str]:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in facts["counts"].items())
    lines = ["", labelled("nodes", counts or "none")]
    obstacle = facts["obstacle"]
    if obstacle is None:
        return [*lines, labelled("answer", f"yes, {holds(_kind(facts))}", "green")]
    lines.append(labelled("obstacle", one_line(obstacle["reason"]), "red"))
    if obstacle["instead"]:
        names = ",".join(map(one_line, obstacle["instead"][:3]))
        lines.append(labelled("instead", f"--outputs {names} explains what goes into that node"))
    return lines


def _kind(facts: Facts) -> str:
    """How far an answer holds: as far as the most restricted node on the way."""
    found = {node["verdict"] for node in facts["nodes"] if node["needed"]}
    return next((kind for kind in ("smooth", "piecewise-linear") if kind in found), "affine")
