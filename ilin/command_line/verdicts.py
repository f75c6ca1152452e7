"""What can be said of a model before anything runs, as plain data and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..compiler.graph import Graph
from ..compiler.judge import entry_of, judge
from ..compiler.scope import Scope, scope_of
from ..compiler.verdict import Verdict
from ..ops import Reading
from ..runtime.errors import UnsupportedError
from ..runtime.program import Kind
from ..runtime.text import one_line, shortened
from ._text import dimensions, labelled
from .facts import Facts, graph_facts, put_facts
from .summary import holds, model_lines, smooth_line
from .tables import Table


def inspected(
    graph: Graph, inputs: Sequence[str] | None, outputs: Sequence[str] | None, reading: Reading
) -> Facts:
    """Judge every node, and find the first obstacle between inputs and outputs.

    Args:
        graph: the model.
        inputs: tensors to differentiate by; None for every floating-point graph input.
        outputs: tensors to explain; None for every floating-point graph output.
        reading: how operators are read that are not piecewise linear.

    Raises:
        UnknownTensorError: a name that the graph does not have.
    """
    reason, scope = None, None
    try:
        scope = scope_of(graph, inputs, outputs, reading)
    except UnsupportedError as error:
        reason = str(error)
    free = inputs or [put.name for put in graph.inputs if put.floating]
    asked = outputs or [put.explained for put in graph.outputs if put.explained]
    needed = _needed(graph, asked, set(free))
    verdicts = judge(graph, free, reading)
    nodes = [_node(verdict, verdict.node.position in needed) for verdict in verdicts]
    return {
        "model": graph_facts(graph),
        "inputs": [put_facts(put) for put in graph.inputs],
        "outputs": [put_facts(put) for put in graph.outputs],
        "settings": reading.names,
        "linearizable": reason is None,
        "kind": None if scope is None else str(_kind(scope)),
        "smooth": None if scope is None else _smooth(graph, inputs, scope),
        "jumps": None if scope is None else _jumps(scope),
        "obstacle": None if reason is None else _obstacle(graph, inputs, reading, reason, verdicts, needed),
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
        "outputs": [name for name in node.outputs if name],
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


def _kind(scope: Scope) -> Kind:
    """How far an answer holds at most: as far as the most restricted node on the way."""
    kinds = {use.kind for use in scope.uses}
    if Kind.SMOOTH in kinds:
        return Kind.SMOOTH
    if not scope.active.intersection(scope.outputs):
        return Kind.LOCALLY_CONSTANT
    return Kind.PIECEWISE_LINEAR if Kind.PIECEWISE_LINEAR in kinds or scope.discrete else Kind.AFFINE


def _smooth(graph: Graph, inputs: Sequence[str] | None, scope: Scope) -> Facts | None:
    """The nodes that make an answer smooth, and what just before the first of them holds on a region."""
    found = [use.node for use in scope.uses if use.kind is Kind.SMOOTH]
    if not found:
        return None
    first = found[0]
    before = [name for name in dict.fromkeys(first.inputs) if name in scope.active - {*scope.inputs}]
    instead = [
        name for name in before if _kind(scope_of(graph, inputs, [name], scope.reading)) is not Kind.SMOOTH
    ]
    return {"node": first.name, "op": first.op_type, "count": len(found), "instead": instead}


def _jumps(scope: Scope) -> Facts | None:
    """The nodes that x moves only by jumps, and whether they are linear where quantisation is read so."""
    if not scope.discrete:
        return None
    first = scope.discrete[0].node
    through = Reading(scope.reading.frozen, straight_through=True)
    entries = [entry_of(one.node, through) for one in scope.discrete]
    linear = sum(entry is not None and entry.kind is not Kind.LOCALLY_CONSTANT for entry in entries)
    return {
        "node": first.name,
        "op": first.op_type,
        "count": len(scope.discrete),
        "linear_straight_through": linear,
    }


def _obstacle(
    graph: Graph,
    inputs: Sequence[str] | None,
    reading: Reading,
    reason: str,
    verdicts: Sequence[Verdict],
    needed: set[int],
) -> Facts:
    """The first obstacle on the way, and the tensors just before it that can be explained instead."""
    first = next((v.node for v in verdicts if v.kind is None and v.node.position in needed), None)
    if first is None:  # nothing to start from or to arrive at, rather than a node
        return {"node": None, "op": None, "domain": None, "opset": None, "reason": reason, "instead": []}
    before = [name for name in dict.fromkeys(first.inputs) if name and _works(graph, inputs, reading, name)]
    return {
        "node": first.name,
        "op": first.op_type,
        "domain": first.domain or "ai.onnx",
        "opset": first.opset,
        "reason": reason,
        "instead": before,
    }


def _works(graph: Graph, inputs: Sequence[str] | None, reading: Reading, output: str) -> bool:
    """Whether a tensor that depends on x could be explained."""
    try:
        scope = scope_of(graph, inputs, [output], reading)
    except UnsupportedError:
        return False
    return output in scope.active and output not in scope.inputs


def verdict_lines(facts: Facts, *, tensors: bool = False) -> tuple[str, Table, str]:
    """What stands above the table, the table, and what stands below it.

    Args:
        facts: of `inspected`.
        tensors: name what each node puts out, too.
    """
    return "\n".join(_head(facts)), _table(facts, tensors), "\n".join(_tail(facts))


def _head(facts: Facts) -> list[str]:
    return [
        *model_lines(facts["model"]),
        *(labelled("input", _put(put)) for put in facts["inputs"]),
        *(labelled("output", _put(put)) for put in facts["outputs"]),
        "",
    ]


def _put(put: Facts) -> str:
    return f"{one_line(put['name'])} {dimensions(put['shape'])} {put['dtype'] or '(no tensor)'}"


def _table(facts: Facts, tensors: bool) -> Table:
    rows = [
        [
            node["name"],
            node["op"] if node["domain"] == "ai.onnx" else f"{node['domain']}.{node['op']}",
            str(node["opset"]),
            node["verdict"],
            "" if node["needed"] else "not needed for the outputs",
            ", ".join(node["outputs"]),
        ]
        for node in facts["nodes"]
    ]
    header = ("node", "operator", "opset", "verdict", "", "tensors")
    all_needed = all(node["needed"] for node in facts["nodes"])
    columns = [0, 1, 2, 3, *([] if all_needed else [4]), *([5] if tensors else [])]
    return Table([header[i] for i in columns], [[row[i] for i in columns] for row in rows])


def _tail(facts: Facts) -> list[str]:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in facts["counts"].items())
    lines = ["", labelled("nodes", counts or "none")]
    obstacle = facts["obstacle"]
    if obstacle is None:
        answer = f"yes, {holds(facts['kind'], facts['settings']['mode'])}"
        return [*lines, labelled("answer", answer, "green"), *_restrictions(facts)]
    lines.append(labelled("obstacle", one_line(obstacle["reason"]), "red"))
    if obstacle["instead"]:
        names = ",".join(map(one_line, obstacle["instead"][:3]))
        lines.append(labelled("instead", f"--outputs {names} explains what goes into that node"))
    return lines


def _restrictions(facts: Facts) -> Iterator[str]:
    """What keeps an answer from holding further, and the way around it."""
    smooth, jumps = facts["smooth"], facts["jumps"]
    if smooth:
        yield labelled("smooth", smooth_line(smooth))
        if smooth["instead"]:
            names = ",".join(map(one_line, smooth["instead"][:3]))
            yield labelled("instead", f"--outputs {names} explains what goes into that node, on a region")
    if jumps:
        rest = f" and {jumps['count'] - 1:,} more" if jumps["count"] > 1 else ""
        what = f"({jumps['op']}){rest}: W does not show them"
        yield labelled("jumps", f"at node '{shortened(jumps['node'], max(16, 57 - len(what)))}' {what}")
        if jumps["linear_straight_through"]:
            yield labelled(
                "instead", "--quantized straight-through takes quantisation as linear in its range"
            )
