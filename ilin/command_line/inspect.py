"""`ilin inspect`: a verdict on every node before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from ..compiler.graph import load
from ..expansions import EXPANSIONS
from ..ops import REGISTRY
from ._guard import GuardedCommand, native_messages
from ._text import say
from .compile import names_of
from .tables import Table, show
from .verdicts import inspected, verdict_lines

_HELP = """Give a verdict on every node of MODEL before anything runs.

Where no rule can lower a node exactly, names the first such node on the way to the outputs, and a way
around it.

\b
Verdicts:
  affine            exact everywhere
  piecewise-linear  exact on the linear region around x
  locally constant  does not change around x: contributes W = 0
  smooth            a tangent, exact at x only
  constant          does not depend on x
  unsupported       no rule, or a use of the operator that is not linear

\b
Examples:
  ilin inspect model.onnx
  ilin inspect model.onnx --outputs logits   only what leads to this tensor
  ilin inspect --operators                   all operators that have a rule

\b
Exit codes:
  0  the model can be linearised
  2  bad usage or bad input
  3  an obstacle lies on the way to its outputs
"""

_BY_NODES = "as its nodes are"  # the verdict on an operator that is written out in others


@click.command(
    "inspect",
    cls=GuardedCommand,
    help=_HELP,
    short_help="A verdict per node, before anything runs.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--inputs", multiple=True, callback=names_of, metavar="NAME,...", help="Tensors to differentiate by."
)
@click.option("--outputs", multiple=True, callback=names_of, metavar="NAME,...", help="Tensors to explain.")
@click.option("--operators", is_flag=True, help="List the supported operators; needs no MODEL.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
@click.pass_context
def inspect_main(
    ctx: click.Context,
    /,
    model: Path | None,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    operators: bool,
    as_json: bool,
) -> None:
    """See `_HELP`."""
    if operators:
        _operators(as_json)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.", ctx)
    with native_messages(shown=False):
        facts = inspected(load(model), inputs, outputs)
    if as_json:
        say(json.dumps(facts, indent=2, allow_nan=False))
    else:
        head, table, tail = verdict_lines(facts)
        say(head)
        show(table)
        say(tail)
    ctx.exit(0 if facts["linearizable"] else 3)


def _operators(as_json: bool) -> None:
    """Every registered operator."""
    rules = {key: (str(entry.kind), entry.module) for key, entry in REGISTRY.items()}
    written_out = {
        key: (str(put.kind or _BY_NODES), put.expand.__module__) for key, put in EXPANSIONS.items()
    }
    found = [
        {
            "domain": domain or "ai.onnx",
            "op": op_type,
            "kind": kind,
            "file": module.removeprefix("ilin.").replace(".", "/") + ".py" if module else None,
        }
        for (domain, op_type), (kind, module) in sorted({**written_out, **rules}.items())
    ]
    if as_json:
        say(json.dumps({"operators": found}, indent=2, allow_nan=False))
        return
    show(
        Table(
            ("domain", "operator", "verdict", "file"), [[str(v or "") for v in row.values()] for row in found]
        )
    )
    say(f"\n{len(found)} operators")
