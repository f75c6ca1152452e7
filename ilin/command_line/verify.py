"""`ilin verify`: a saved map against its model again, by onnxruntime and numpy alone."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..runtime.recheck import Verification, verify
from ._guard import GuardedCommand, native_messages
from ._text import error_line, labelled, listed, one_line, say
from .facts import strict
from .inputs import read
from .run import NOT_VERIFIED, VERIFIED

_HELP = """Check a saved map against its model again: later, on another machine, by somebody else.

OUT.npz is what ilin-compile -o wrote, or the folder of --out-dir. Nothing is lowered or composed:
onnxruntime runs the model, and everything else is numpy. Each check has its line: whether the file fits
together; its hashes of the header, x, the result and the evidence; whether it was verified when it was made;
the model's hash; X, if given, against the map's x; y and W x + b at x; W z + b at fresh points of the region,
those on record and others made afresh between them. The bounds on rounding errors are on record, and are
good for any machine and any version of onnxruntime. A model of another hash is run all the same, to tell how
far off it is.

In float32 the outputs often move less inside the region than they round, so that fresh points tell nothing of
W. So W (z - x) is also compared with the model evaluated in float64, by onnxruntime or onnx's reference
evaluator, at points inside the region that are on record: by itself where that should take up to 5 s.

\b
Examples:
  ilin verify map.npz model.onnx
  ilin verify map.npz model.onnx x.npy    is it the map of this x?
  ilin verify MAP model.onnx --json       a folder; a document for machines

\b
Exit codes:
  0  every check holds
  1  one does not; standard error names it
  2  bad usage, or a file that cannot be read
"""


@click.command(
    "verify",
    cls=GuardedCommand,
    help=_HELP,
    short_help="Check a saved map against its model again.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.argument("out", metavar="OUT.npz", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("x", type=click.Path(path_type=Path), required=False)
@click.option(
    "--double/--no-double",
    default=None,
    help="Compare W with the model in float64, however long it takes; or do not.",
)
@click.option(
    "--custom-ops",
    multiple=True,
    type=click.Path(),
    metavar="LIBRARY",
    help="A shared library of operators for onnxruntime; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Write nothing but errors; the exit code tells.")
@click.pass_context
def verify_main(
    ctx: click.Context,
    out: Path,
    model: Path,
    x: Path | None,
    double: bool | None,
    custom_ops: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """See `_HELP`."""
    given = None if x is None else read(x)
    with native_messages(shown=False):
        found = verify(out, model, given, double=double, custom_ops=custom_ops)
    if as_json and not quiet:
        say(json.dumps(strict({"file": str(out), "model": str(model), **found.as_dict()}), indent=2))
    elif not quiet:
        _show(out, found)
    if not found.holds:
        error_line(f"does not hold: {listed(found.failed, most=len(found.failed))}")
    ctx.exit(VERIFIED if found.holds else NOT_VERIFIED)


def _show(out: Path, found: Verification) -> None:
    K, N = found.shape
    say(labelled("map", one_line(f"{out}: {found.kind}, W {K:,} × {N:,}")))
    say(labelled("made with", _made(found.made_with)))
    if not found.made_here:
        say(labelled("here", "another machine or onnxruntime: last bits may differ, within the bounds"))
    say("")
    for finding in found.findings:
        colour = {True: "green", False: "red", None: "yellow"}[finding.passed]
        told = one_line(str(finding))
        first, *rest = textwrap.wrap(told[6:], 74, break_on_hyphens=False) or [""]
        say(click.style(told[:6], fg=colour, bold=True) + first)
        for line in rest:
            say(f"      {line}")


def _made(made: Mapping[str, Any]) -> str:
    names = ("ilin", "onnxruntime", "numpy")
    versions = ", ".join(f"{name} {made[name]}" for name in names if name in made)
    return one_line(f"{versions} on {made['machine']}" if "machine" in made else versions)
