"""Several instances as a table: one line each, and totals."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ._text import labelled, number, plural, shortened
from .facts import Facts
from .summary import cost_of, label_of, model_lines, small, tensor_lines

_COLUMNS = {
    "instance": 8,
    "output": 12,
    "value": 10,
    "b": 10,
    "nonzero": 8,
    "at x": 8,
    "region": 8,
    "verified": 8,
}


def table_head(facts: Facts, shape: Facts) -> str:
    """What is the same for all instances, and the table's first line."""
    lines = [*model_lines(facts["model"]), *tensor_lines({**facts, **shape}), ""]
    return "\n".join([*lines, click.style(_cells(list(_COLUMNS)), bold=True)])


def table_row(index: int, facts: Facts) -> str:
    """One line for one instance."""
    told, certificate, W = facts["explained"], facts["certificate"], facts["map"]
    share = f"{100 * W['nnz'] / max(1, W['K'] * W['N']):.3g} %"
    cells = [
        str(index),
        shortened(label_of(told, facts["outputs"]), 12),
        number(told["value"]),
        number(told["b"]),
        share,
        small(certificate["at_x"]),
        small(certificate["in_region"]) if certificate["points_held"] else "-",
        "yes" if certificate["verified"] else click.style("NO".rjust(8), fg="red"),
    ]
    return _cells(cells)


def _cells(cells: Sequence[str]) -> str:
    return " ".join(cell.rjust(width) for cell, width in zip(cells, _COLUMNS.values(), strict=True))


def totals(all_facts: Sequence[Facts], cost: Facts) -> str:
    """The table's last lines."""
    certificates = [facts["certificate"] for facts in all_facts]
    good = sum(certificate["verified"] for certificate in certificates)
    kinds = sorted({facts["map"]["kind"] for facts in all_facts})
    W = all_facts[0]["map"]
    ties, units = (sum(certificate[name] for certificate in certificates) for name in ("ties", "guards"))
    colour = "green" if good == len(all_facts) else "red"
    lines = [
        click.style("at x, region: largest deviation from onnxruntime there", dim=True),
        "",
        labelled("map", f"W {W['K']:,} × {W['N']:,} {W['dtype']} each; {' or '.join(kinds)}"),
        labelled("verified", f"{good} of {plural(len(all_facts), 'instance')}", colour),
        labelled("ties", f"{ties:,} of {units:,} units"),
        labelled("took", cost_of(cost)),
    ]
    return "\n".join(lines)
