"""The facts of one map, or of several, as text that fits one screen of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import click

from ..runtime.memory import readable
from ..runtime.region import GIVEN_UP
from ..runtime.ties import verdict
from ._text import NOT_FINITE, column, dimensions, labelled, listed, number, plural, shortened
from .facts import Facts

WIDTH = 80
_WHERE = {
    "affine": "everywhere",
    "piecewise-linear": "on the linear region around x",
    "locally constant": "around x, with W = 0",
}
_SMOOTH = {"tangent": "where it is the tangent", "frozen": "with what weighs x held"}


def holds(kind: str, mode: str) -> str:
    """How far an answer of a kind holds; in which mode matters to smooth ones."""
    return f"{kind}: F(z) = W z + b {_WHERE.get(kind) or f'at x only, {_SMOOTH[mode]}'}"


def smooth_line(smooth: Facts) -> str:
    """Which nodes make an answer smooth."""
    rest = f" and {smooth['count'] - 1:,} more" if smooth["count"] > 1 else ""
    width = WIDTH - 11 - len(f"by node '' ({smooth['op']}){rest}")
    return f"by node '{shortened(smooth['node'], max(8, width))}' ({smooth['op']}){rest}"


def summary(facts: Facts, ledger: str | None = None) -> str:
    """One instance on one screen.

    Args:
        facts: of the model, the instance and the run; with its layers it may not fit one screen.
        ledger: of the top output, in full; None for its largest contributions.
    """
    lines = [
        *model_lines(facts["model"]),
        *tensor_lines(facts),
        _prediction(facts),
        *_besides(facts),
        _map(facts["map"], facts["settings"]["mode"]),
        "",
        *(_explained(facts) if ledger is None else [ledger]),
        "",
        *(_layers(facts["layers"]) if "layers" in facts else ()),
        *_verified(facts["certificate"], facts["map"]["kind"]),
        *(_region(facts["region"]) if "region" in facts else ()),
        *(_ties(facts["ties"], facts["map"]["K"]) if "ties" in facts else ()),
        labelled("took", cost_of(facts)),
    ]
    return "\n".join(lines)


def model_lines(model: Facts) -> Iterator[str]:
    """The model: one line, or two where its name is long."""
    producer = f"{shortened(model['producer'], 24)}, " if model["producer"] else ""
    about = f"{producer}opset {_opsets(model['opsets'])}, {plural(model['nodes'], 'node')}"
    file = shortened(model["file"] or "(unnamed)", WIDTH - 11)
    if len(file) + len(about) + 13 <= WIDTH:
        yield labelled("model", f"{file}: {about}")
    else:
        yield labelled("model", file)
        yield labelled("", about)


def _opsets(opsets: Mapping[str, int]) -> str:
    own = [str(version) for domain, version in opsets.items() if domain == "ai.onnx"]
    others = [
        f"{shortened(domain, 16)} {version}" for domain, version in opsets.items() if domain != "ai.onnx"
    ]
    return listed([*own, *others], 2)


def tensor_lines(facts: Facts) -> Iterator[str]:
    """Inputs, held inputs and outputs with their shapes at x."""
    yield labelled("input", _shapes(facts["inputs"]))
    if facts["model"]["held_inputs"]:
        yield labelled("held", _shapes(facts["model"]["held_inputs"]))
    yield labelled("output", _shapes(facts["outputs"]))


def _shapes(tensors: Sequence[Facts]) -> str:
    """As many tensors as fit one line, at least one."""
    texts = [f"{shortened(t['name'], 32)} {dimensions(t['shape'])} {t['dtype']}" for t in tensors]
    return listed(texts, next((n for n in range(len(texts), 1, -1) if _fits(listed(texts, n))), 1))


def _fits(text: str) -> bool:
    """Whether a text fits one line behind its label."""
    return len(text) <= WIDTH - 11


def _prediction(facts: Facts) -> str:
    """The largest outputs, as many as fit one line."""
    parts = [
        f"{label_of(output, facts['outputs'])}: {number(output['value'])}" for output in facts["prediction"]
    ]
    kept = [part for i, part in enumerate(parts) if not i or len("   ".join(parts[: i + 1])) <= WIDTH - 11]
    return labelled("prediction", "   ".join(kept))


def _besides(facts: Facts) -> Iterator[str]:
    """The outputs that the prediction is not of, and how to have them explained."""
    others = [put for put in facts["outputs"] if put["name"] != facts["prediction"][0]["output"]]
    if others:
        remedy = "; --outputs NAME explains one"
        names = [shortened(put["name"], WIDTH - 24 - len(remedy)) for put in others]
        most = next((n for n in range(len(names), 1, -1) if _fits(listed(names, n) + remedy)), 1)
        yield labelled("besides", listed(names, most) + remedy)


def label_of(place: Facts, tensors: Sequence[Facts], key: str = "output", width: int = 20) -> str:
    """An entry of a tensor: its number in a vector, else its index; with a name where there are several."""
    shape = next(t["shape"] for t in tensors if t["name"] == place[key])
    if math.prod(shape) == math.prod(shape[-1:]):
        index = str(place["index"][-1] if shape else 0)
    else:
        index = f"[{', '.join(map(str, place['index']))}]"
    if len(tensors) == 1:
        return index
    index = index if index.startswith("[") else f"[{index}]"
    return shortened(place[key], max(5, width - len(index))) + index


def _map(facts: Facts, mode: str) -> str:
    size = f"W {facts['K']:,} × {facts['N']:,} {facts['dtype']}, {readable(facts['bytes'])}"
    nonzero = (
        f"{facts['nnz']:,} entries nonzero ({100 * facts['nnz'] / max(1, facts['K'] * facts['N']):.3g} %)"
    )
    lines = [labelled("map", holds(facts["kind"], mode)), labelled("", f"{size}, {nonzero}")]
    if facts["smooth"]:
        lines.append(labelled("smooth", smooth_line(facts["smooth"])))
    return "\n".join(lines)


def _explained(facts: Facts) -> Iterator[str]:
    """The ledger of the top output, added up as one would on paper."""
    told = facts["explained"]
    entries = told["contributions"]
    name = label_of(told, facts["outputs"])
    if told["largest"] and told["row"] != facts["prediction"][0]["row"]:
        yield f"of the {plural(facts['map']['K'], 'row')} asked for, the largest is"
    heading = f"output {name}" + (f", row {told['row']}" if name.endswith("]") else "")
    yield click.style(_row(heading, "x", "weight", "contribution", margin=0), bold=True)
    x = column([entry["x"] for entry in entries])
    weights = column([entry["weight"] for entry in entries], signed=True)
    terms = [*(entry["contribution"] for entry in entries), told["others"]["contribution"], told["b"]]
    *amounts, others, b, total = column([*terms, told["sum"]], signed=True)
    for entry, value, weight, amount in zip(entries, x, weights, amounts, strict=True):
        yield _row(label_of(entry, facts["inputs"], "input"), value, weight, amount)
    if told["others"]["count"]:
        yield _row(plural(told["others"]["count"], "other"), "", "", others)
    share = told["b_share"]
    yield _row("b", "", "", b, "" if share is None else f"{100 * share:.3g} % of the sum")
    yield _row("sum", "", "", total, f"onnxruntime {number(told['value'])}")


def _row(entry: str, x: str, weight: str, amount: str, remark: str = "", margin: int = 2) -> str:
    start = f"{'':{margin}}{entry}"
    return f"{start}{x:>{max(33 - len(start), len(x) + 1)}} {weight:>10} {amount:>12}  {remark}".rstrip()


def _layers(layers: Sequence[Facts]) -> Iterator[str]:
    yield click.style("what each layer adds to b", bold=True)
    shares = column([layer["bias_share"] for layer in layers], signed=True)
    for layer, share in zip(layers, shares, strict=True):
        yield f"  {shortened(layer['name'], 27):<27} {layer['op']:<18} {layer['kind']:<16} {share:>12}"
    yield ""


_LEVELS = {"default": "against onnxruntime", "deep": "against onnxruntime, deeply"}


def _verified(certificate: Facts, kind: str) -> Iterator[str]:
    if certificate["verified"]:
        yield labelled(
            "verified", f"{_LEVELS[certificate['level']]:<36} {'deviation':>10} {'of its bound':>13}", "green"
        )
    else:
        reason = shortened(certificate["reason"], WIDTH - 13)
        yield f"{click.style('NOT verified', fg='red', bold=True)} {reason}"
    steps = certificate["steps"]
    if steps is not None:
        yield _check(f"{plural(steps['compared'], 'step')} at x, one by one", "", steps["worst"])
    yield _check("W x + b at x", small(certificate["at_x"]), certificate["at_x_over_bound"])
    if certificate["slopes"] is not None:
        slopes = certificate["slopes"]
        what = f"slopes of {plural(slopes['compared'], 'smooth step')}"
        yield _check(what, "", slopes["worst"])
    held, tried = certificate["points_held"], certificate["points_tried"]
    if held:
        within = f"{plural(held, 'fresh point')} of the region"
        yield _check(within, small(certificate["in_region"]), certificate["in_region_over_bound"])
    elif tried:
        yield labelled("", f"no fresh point of the region found; points tried: {tried}")
    elif kind == "smooth":
        yield labelled("", "no region is claimed, so no fresh points were tried")
    if certificate["double"] is not None:
        yield from _in_double(certificate["double"], certificate["ties"])
    if certificate["verified"] and certificate["untested"]:
        yield _untested(certificate)
    if certificate["guards"]:
        ties = f"{certificate['ties']:,} of {plural(certificate['guards'], 'unit')}"
        lie = "lies" if certificate["ties"] == 1 else "lie"
        yield labelled("", f"{ties} {lie} exactly on a kink at x (ties{_seen(certificate)})")


def _untested(certificate: Facts) -> str:
    """That W itself is not tested, and why."""
    remedy = "; --deep tests it" if certificate["double"] is None else ""
    return labelled(
        "", shortened(f"W untested: {certificate['untested']}", WIDTH - 11 - len(remedy)) + remedy
    )


def _seen(certificate: Facts) -> str:
    """What is known of the ties."""
    matter = certificate["ties_that_matter"]
    if not certificate["ties"]:
        return ""
    if matter is None:
        return "; see --ties"
    return f", {matter:,} of them may matter" if matter else ", all harmless"


def _in_double(double: Facts, ties: int) -> Iterator[str]:
    """How far float64 is from the map, and the units whose side rounding may decide."""
    if double["over_bound"] is not None:
        yield _check("W z + b composed in float64", "", double["over_bound"])
    if double["W"] is not None:
        largest = small(double["W_largest"])
        yield labelled("", f"W is within {small(double['W'])} of that, and its largest entry is {largest}")
    if double["points"]:
        within = f"W (z - x) at {plural(double['points'], 'point')} in float64"
        yield _check(within, small(double["in_region"]), double["in_region_over_bound"])
    if double["uncertain"] > ties or double["otherwise"]:  # ties are told of anyway
        units, other = plural(double["uncertain"], "unit"), f"{double['otherwise']:,}"
        yield labelled("", f"{units} within rounding of a kink; on its other side in float64: {other}")


def _region(region: Facts) -> Iterator[str]:
    """How far the map holds: one line for each norm."""
    if not region["radii"]:
        yield labelled("region", "x alone: the map is smooth")
    for place, radius in enumerate(region["radii"]):
        norm = {"inf": "L∞"}.get(radius["norm"], f"L{radius['norm']}")
        yield labelled("" if place else "region", f"{norm}  {_extent(radius)}")
    yield from _unsettled(region["radii"])
    if region["radii"] and region["radii"][0]["ties"]:
        yield labelled("", "the ties do not limit: what they compare is the same all over the region")


def _unsettled(radii: list[Facts]) -> Iterator[str]:
    """What two numbers in place of a distance mean, and why there are two."""
    between = [radius for radius in radii if not radius["exact"] and radius["boundary"] is not None]
    if between:
        yield labelled("", "not settled: the map holds as far as the first number at least,")
        yield labelled("", "and no farther than the second, as a boundary was found there")
        for text in dict.fromkeys(radius["note"] for radius in between):
            yield labelled("", shortened(text, WIDTH - 11))
    if any(radius["note"] == GIVEN_UP for radius in radii):
        yield labelled("", "--region-seconds S gives the search more time")


def _ties(ties: Facts, rows: int) -> Iterator[str]:
    """Which ties matter: the verdict, the nodes whose ties do, and the maps on either side."""
    said = verdict(ties["matter"], ties["genuine"]) if ties["count"] else "none"
    yield labelled("ties", said)
    for node in ties["nodes"]:
        matter = node["ties"] - node["still"] - node["unfelt"]
        if matter:
            counts = f"{matter:,} of {node['ties']:,}"
            room = WIDTH - 14 - len(counts) - len(node["op_type"]) - len(node["convention"])
            name = shortened(node["node"], max(8, room))
            yield labelled("", f"{counts} {node['op_type']} {name}: {node['convention']}")
    for place, side in zip(("ahead", "behind"), ties["sides"], strict=False):
        yield labelled("", f"{place:<7} {_differs(side, rows)}")


def _differs(side: Facts, rows: int) -> str:
    """How the map on one side differs from the reported one."""
    if side["note"]:
        return shortened(side["note"], WIDTH - 19)
    if not side["rows"]:
        return f"the same map ({plural(side['turned'], 'unit')} choose otherwise)"
    size = "" if side["change"] is None else f", W by up to {number(side['change'])}"  # which may not fit
    return f"differs in {len(side['rows']):,} of {plural(rows, 'row')}{size}"


def _extent(radius: Facts) -> str:
    """How far it is to the nearest boundary, and what that is."""
    distance, least, boundary = radius["distance"], radius["at_least"], radius["boundary"]
    if boundary is None:
        return "unbounded" if radius["exact"] else f"at least {number(least or 0.0)}: {radius['note']}"
    between = f"at least {number(least)}, at most {number(distance)}"
    size = f"{number(distance):<10}" if radius["exact"] else between
    unit = f"[{', '.join(map(str, boundary['unit']))}]"
    room = WIDTH - 17 - len(size) - len(boundary["op_type"]) - len(unit)
    return f"{size} {boundary['op_type']} {shortened(boundary['node'], max(8, room))} {unit}"


def _check(what: str, deviation: str, ratio: float | None) -> str:
    share = "over any bound" if ratio is None else _percent(100 * ratio)
    return labelled("", f"{what:<36} {deviation:>10} {share:>13}")


def _percent(size: float) -> str:
    """Two digits, and all of those before the point."""
    return f"{size:.2g} %" if size < 99.5 else f"{size:,.0f} %"


def small(value: float | None) -> str:
    """A deviation in two digits."""
    return NOT_FINITE if value is None else f"{value:.1e}" if value else "0"


def cost_of(facts: Facts) -> str:
    """Time and memory of a run."""
    memory = facts["peak_memory_bytes"]
    return f"{facts['total_seconds']:.2f} s" + ("" if memory is None else f", peak memory {readable(memory)}")
