"""`ilin inspect`: a verdict on every node before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ..compiler.catalogue import Operator, catalogue, page
from ..compiler.graph import load
from ..ops import Reading
from ._guard import GuardedCommand, native_messages
from ._text import say
from .compile import READING_OPTIONS, gathered, rules_option
from .facts import Facts
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
  smooth            a tangent, or with gates held (--mode frozen): at x only
  constant          does not depend on x
  unsupported       no rule, or a use of the operator that is not linear

\b
Examples:
  ilin inspect model.onnx
  ilin inspect model.onnx --outputs logits   only what leads to this tensor
  ilin inspect model.onnx --mode frozen      as it is read with gates held
  ilin inspect --operators                   all operators that have a rule
  ilin inspect --operators --markdown        the same as docs/operators.md

\b
Exit codes:
  0  the model can be linearised
  2  bad usage or bad input
  3  an obstacle lies on the way to its outputs
"""

_BY_NODES = "as its nodes are"  # the verdict on an operator that is written out in others


def _reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return rules_option(gathered(command, READING_OPTIONS))


@click.command(
    "inspect",
    cls=GuardedCommand,
    help=_HELP,
    short_help="A verdict per node, before anything runs.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@_reading_options
@click.option("--operators", is_flag=True, help="List the supported operators; needs no MODEL.")
@click.option("--markdown", is_flag=True, help="With --operators: a page, of ilin's own rules.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Write nothing but errors; the exit code tells.")
@click.option("-v", "--verbose", is_flag=True, help="Add the names of the tensors that each node puts out.")
@click.pass_context
def inspect_main(
    ctx: click.Context,
    /,
    model: Path | None,
    options: Mapping[str, Any],
    operators: bool,
    markdown: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """See `_HELP`."""
    if markdown and not operators:
        raise click.UsageError("--markdown goes with --operators", ctx)
    if operators:
        if markdown:
            say(page().removesuffix("\n"))
        else:
            _operators(as_json)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.", ctx)
    with native_messages(shown=False):
        reading = Reading.of(options["mode"], options["quantized"])
        facts = inspected(load(model, options["custom_ops"]), options["inputs"], options["outputs"], reading)
    if quiet:
        ctx.exit(0 if facts["linearizable"] else 3)
    if as_json:
        say(json.dumps(facts, indent=2, allow_nan=False))
    else:
        head, table, tail = verdict_lines(facts, tensors=verbose)
        say(head)
        show(table)
        say(tail)
    ctx.exit(0 if facts["linearizable"] else 3)


def _operators(as_json: bool) -> None:
    """Every registered operator."""
    found = catalogue()
    if as_json:
        say(json.dumps({"operators": [_operator(one) for one in found]}, indent=2, allow_nan=False))
        return
    rows = [
        [
            one.domain,
            one.op_type,
            ", ".join(map(str, one.opsets)),
            " or ".join(one.verdicts),
            one.file,
            one.linear_in,
        ]
        for one in found
    ]
    show(Table(("domain", "operator", "opsets", "verdict", "file", "linear in"), rows))
    say(f"\n{len(found)} operators")


def _operator(one: Operator) -> Facts:
    return {
        "domain": one.domain,
        "op": one.op_type,
        "opsets": list(one.opsets),
        "kinds": list(one.verdicts),
        "linear_in": one.linear_in,
        "equation": one.title,
        "at_x": one.at_x,
        "file": one.file,
    }
