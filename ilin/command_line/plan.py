"""`ilin plan`: what a map would cost, before it is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..compiler.cuts import width
from ..compiler.pipeline import compile
from ..compiler.plan import Plan, counted, duration, named
from ..compiler.rows import Rows
from ..runtime.memory import readable
from ._guard import GuardedCommand, native_messages
from ._text import labelled, plural, say
from .compile import model_options, rows_of
from .facts import Facts
from .inputs import instances, read

_HELP = """Say how W and b would be computed and what that would cost, before it is done.

The model is run once, for its shapes: at X, or at zeros with every free dimension set to 1. The cheapest of
all ways is chosen by a model of the cost: rows carried back from the outputs, columns carried on from the
inputs, or several sweeps joined at narrow layers; by explicit matrices, by numpy, by a model emitted for
onnxruntime, or by kernels that skip dead units.

\b
Examples:
  ilin plan model.onnx
  ilin plan model.onnx x.npy --rows top5
  ilin plan model.onnx --direction reverse    what the plain way would cost

\b
Exit codes:
  0  the map fits into memory
  2  bad usage or bad input, or it does not fit
  3  the model holds something unsupported
"""


@click.command(
    "plan",
    cls=GuardedCommand,
    help=_HELP,
    short_help="What a map would cost: engine, passes, memory, time.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("x", type=click.Path(path_type=Path), required=False)
@click.option("--rows", default="all", callback=rows_of, metavar="all|top5|3,5", help="Outputs to explain.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def plan_main(
    model: Path,
    x: Path | None,
    rows: Rows,
    options: Mapping[str, Any],
    as_json: bool,
) -> None:
    """See `_HELP`."""
    given = None if x is None else read(x)
    with native_messages(shown=False):
        compiled = compile(model, **options)
        point = None if given is None else instances(given, compiled.graph.inputs, whole=False)[0]
        plan = compiled.plan(point, rows)
    if as_json:
        say(json.dumps(plan_facts(plan), indent=2))
    else:
        _show(plan)
    plan.require_fit()


def plan_facts(plan: Plan) -> Facts:
    """A plan as plain data."""
    return {
        "rows": plan.rows,
        "columns": plan.columns,
        "W_bytes": plan.W_bytes,
        "engine": plan.engine,
        "direction": plan.direction,
        "passes": plan.passes,
        "multiply_adds": plan.multiply_adds,
        "peak_bytes": plan.peak_bytes,
        "seconds": plan.seconds,
        "checks": None if plan.checks is None else asdict(plan.checks),
        "memory_limit": plan.limit,
        "fits": plan.fits,
        "legs": [
            {
                "direction": leg.direction,
                "engine": leg.engine,
                "passes": leg.passes,
                "block": leg.block,
                "from": [name for name, _ in leg.above],
                "to": [name for name, _ in leg.below],
                "elements": [width(leg.above), width(leg.below)],
                "multiply_adds": leg.multiply_adds,
                "bytes": leg.bytes,
                "seconds": leg.seconds / plan.speed,
            }
            for leg in plan.legs
        ],
    }


def _show(plan: Plan) -> None:
    say(labelled("W", f"{plan.rows:,} × {plan.columns:,}, {readable(plan.W_bytes)}"))
    passes = plural(plan.passes, "pass", "passes")
    say(labelled("work", f"{counted(plan.multiply_adds)} multiply-adds, {passes}"))
    say(labelled("memory", f"about {readable(plan.peak_bytes)} beside the model"))
    say(labelled("time", f"about {duration(plan.seconds)} beside running the model"))
    if plan.checks:
        cost = f"about {duration(plan.checks.seconds)} more, and {readable(plan.checks.bytes)}"
        say(labelled("checks", f"{cost}, for the certificate"))
    for number, leg in enumerate(plan.legs, start=1):
        say("")
        reverse = leg.direction == "reverse"
        start, end = (leg.above, leg.below) if reverse else (leg.below, leg.above)
        what = f"{'rows back' if reverse else 'columns on'} from {named(start)}"
        say(labelled(f"sweep {number}", what))
        say(labelled("", f"to {named(end)}"))
        say(labelled("", f"{leg.engine}: {plural(leg.passes, 'pass', 'passes')}, {leg.block:,} at once"))
        parts = (counted(leg.multiply_adds) + " multiply-adds", readable(leg.bytes))
        say(labelled("", ", ".join((*parts, duration(leg.seconds / plan.speed)))))
