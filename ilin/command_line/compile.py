"""`ilin compile` and `ilin-compile`: W and b at one input or several, verified."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from .._version import __version__
from ..compiler.options import DTYPES, MODES, QUANTIZED
from ..compiler.pipeline import compile
from ..compiler.plan import DIRECTIONS, ENGINES
from ..compiler.rows import Rows
from ..report.layouts import AUTO
from ..runtime.errors import RowsError
from ..runtime.region import SECONDS
from ._guard import GuardedCommand, native_messages, typed
from .destination import check_apart, check_destination, check_folder, numbered
from .explained import Explained
from .inputs import instances, read
from .pages import Pages
from .run import Job, Shown, run

_HELP = """From an ONNX model and one input x to the exact affine map F(z) = W z + b around x.

Runs MODEL once at X with onnxruntime, and composes W and b from the operators' own equations; on a
piecewise-linear network the map is exact on the whole linear region around x, with smooth operators it is the
tangent at x. Checks the answer against onnxruntime, at x and at a fresh point of the region; --deep checks
step by step as well. Shows what each entry of x contributes to one output, the largest where --explain names
no other, and how closely all of that was verified.

X.npy holds one instance, or several along axis 0; X.npz names several inputs, by graph input name.

\b
Examples:
  ilin-compile model.onnx x.npy                    a summary
  ilin-compile model.onnx x.npy -o map.npz         keep W and b
  ilin-compile model.onnx x.npy --rows top5        the 5 largest outputs only
  ilin-compile model.onnx x.npy --outputs logits   a tensor before the softmax
  ilin-compile model.onnx x.npy --region           how far it holds, and why
  ilin-compile model.onnx x.npy --ties             which ties matter
  ilin-compile model.onnx x.npy --ledger           every term of the output
  ilin-compile model.onnx x.npy --explain 3        output 3, not the largest
  ilin-compile model.onnx x.npy --report page.html a page for people
  ilin-compile model.onnx several.npy --json       a document for machines
  ilin-compile model.onnx x.npy --out-dir MAP      a W too large for memory

\b
What -o holds: W (or W_data, W_indices and W_indptr where it is sparse), b,
rows, bias_shares (what each layer adds to b), x and y, fresh points and
bounds, and a header: names, shapes, hashes, versions, the certificate.
ilin verify checks it again, numpy.load reads it without pickle, ilin.load
gives the map back. An existing file is replaced whole or not at all. Several
instances go to OUT.0.npz, OUT.1.npz, ...

\b
--out-dir composes W block by block of rows into a folder, with the same
arrays as files: W.npy, b.npy, ..., and header.json. What the rows are made
of, where they go through a narrow layer, stands in folders inside it until
the end. Interrupted, it keeps every block that is finished, and the same
command goes on from there. ilin.load takes the folder; its W stays on disk.

\b
Exit codes:
  0  done and verified
  1  computed but not verified; standard error names the failure
  2  bad usage or bad input
  3  the model holds something unsupported; ilin inspect MODEL shows what
  70  an internal error; ILIN_DEBUG=1 shows where it was
  130  interrupted
"""


def names_of(
    _ctx: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> tuple[str, ...] | None:
    """Names from an option that may be repeated and may list several; None where none is given."""
    names = tuple(name.strip() for value in values for name in value.split(","))
    if not all(names):
        raise click.BadParameter("an empty name")
    return names or None


def rules_of(_ctx: click.Context, _parameter: click.Parameter, modules: Sequence[str]) -> None:
    """Import modules that register rules for operators of their own."""
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise click.BadParameter(f"{module} cannot be imported: {error}") from error


def rows_of(_ctx: click.Context, _parameter: click.Parameter, text: str) -> Rows:
    """`all`, `top5` or `3,5` as `CompiledModel.at` takes them."""
    text = text.strip()
    if text == "all":
        return text
    if match := re.fullmatch(r"top([1-9]\d*)", text):
        return int(match[1])
    if re.fullmatch(r"-?\d+(\s*,\s*-?\d+)*", text):
        return [int(row) for row in text.split(",")]
    raise RowsError(f"--rows {text!r} is not understood; write all, top5, or indices such as 3,5")


READING_OPTIONS = {  # what a verdict depends on, by the name that `compile` has for each
    "inputs": click.option(
        "--inputs",
        multiple=True,
        callback=names_of,
        metavar="NAME,...",
        help="Tensors to differentiate by; the others are held.  [default: every floating-point graph input]",
    ),
    "outputs": click.option(
        "--outputs",
        multiple=True,
        callback=names_of,
        metavar="NAME,...",
        help="Tensors to explain, intermediate ones included.  [default: every floating-point graph output]",
    ),
    "mode": click.option(
        "--mode",
        type=click.Choice(MODES),
        default="tangent",
        show_default=True,
        help="Smooth operators by their Jacobian at x, or with gates and denominators held.",
    ),
    "quantized": click.option(
        "--quantized",
        type=click.Choice(QUANTIZED),
        default="exact",
        show_default=True,
        help="Quantisation as locally constant, which it is, or as linear inside its range.",
    ),
    "custom_ops": click.option(
        "--custom-ops",
        multiple=True,
        type=click.Path(),
        metavar="LIBRARY",
        help="A shared library of operators for onnxruntime; may be repeated.",
    ),
}
_MODEL_OPTIONS = {
    **READING_OPTIONS,
    "dtype": click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        default="float32",
        show_default=True,
        help="Type that W and b are composed in.",
    ),
    "engine": click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="How steps are multiplied.",
    ),
    "direction": click.option(
        "--direction",
        type=click.Choice(DIRECTIONS),
        default="auto",
        show_default=True,
        help="Rows back, columns on, or through a narrow layer.",
    ),
    "memory_limit": click.option(
        "--memory-limit", metavar="SIZE", help="Such as 4GiB.  [default: 80 % of what is available]"
    ),
}
rules_option = click.option(
    "--rules",
    multiple=True,
    callback=rules_of,
    expose_value=False,
    metavar="MODULE",
    help="A Python module to import, which registers rules of its own; may be repeated.",
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options on how a model is compiled, which end up as `options` of the command's function."""
    return rules_option(gathered(command, _MODEL_OPTIONS))


def gathered(command: Callable[..., Any], wanted: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """A command's function with further options, which it is given as the mapping `options`."""

    @wraps(command)
    def call(*arguments: Any, **given: Any) -> Any:
        options = {name: given.pop(name) for name in wanted}
        return command(*arguments, options=options, **given)

    decorated: Callable[..., Any] = call
    for option in reversed([*wanted.values()]):
        decorated = option(decorated)
    return decorated


@click.command(
    "ilin-compile",
    cls=GuardedCommand,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    short_help="W and b at x, verified against onnxruntime.",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("x", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="OUT.npz", help="Write the map to this file."
)
@click.option(
    "--out-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the map to this folder instead, W block by block; goes on where it stopped.",
)
@click.option(
    "--rows",
    default="all",
    callback=rows_of,
    metavar="all|top5|3,5",
    help="Outputs to explain: all, the largest few, or flat indices.  [default: all]",
)
@model_options
@click.option(
    "--region",
    is_flag=True,
    help="Add how far the map holds: the nearest boundary in L1, L2 and L∞, and which unit it is.",
)
@click.option(
    "--region-seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help=f"Seconds for --region, which this implies; then it says what is known.  [default: {SECONDS:g}]",
)
@click.option(
    "--ties",
    is_flag=True,
    help="Add which units exactly on a kink at X matter, and how W differs on either side.",
)
@click.option(
    "--deep/--no-deep",
    default=None,
    help="Verify deeply: every step, every row, more fresh points, and W in float64. By default, where the "
    "region is too narrow for float32 to test W, and it takes about a second or less.",
)
@click.option(
    "--ledger",
    is_flag=True,
    help="Show the explained output as a full sum: contributions, and b by step and channel.",
)
@click.option(
    "--explain",
    type=int,
    metavar="K",
    help="Output to explain, a flat index as in --rows.  [default: the largest of --rows]",
)
@click.option(
    "--against",
    type=int,
    metavar="K",
    help="Output to set it against, likewise, in --ledger, --report and --plot; alone it implies --ledger.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="PAGE.html",
    help="Write a page about the explained output that a stranger can read, complete in one file.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="MAP.png",
    help="Draw what the input adds to the explained output; .png, .svg or .pdf.",
)
@click.option(
    "--class-names",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --report or --plot: names of the outputs, one a line.",
)
@click.option(
    "--feature-names",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --report or --plot: names of the input's entries, one a line.",
)
@click.option(
    "--layout",
    default=AUTO,
    metavar="nchw|nhwc|...",
    help="With --report or --plot: a letter for each axis of X, or entries.  [default: recognised]",
)
@click.option("--whole", is_flag=True, help="Take X as one input, even where it could be several instances.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document instead of the summary.")
@click.option("-q", "--quiet", is_flag=True, help="Write nothing but errors; the exit code tells.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Show the plan first, add each layer's bias share, let messages of onnxruntime through.",
)
@click.version_option(__version__, "--version", prog_name="ilin-compile", message="%(prog)s %(version)s")
@click.pass_context
def compile_main(
    ctx: click.Context,
    /,
    model: Path,
    x: Path,
    output: Path | None,
    out_dir: Path | None,
    rows: Rows,
    options: Mapping[str, Any],
    region: bool,
    region_seconds: float | None,
    ties: bool,
    deep: bool | None,
    ledger: bool,
    explain: int | None,
    against: int | None,
    report: Path | None,
    plot: Path | None,
    class_names: Path | None,
    feature_names: Path | None,
    layout: str,
    whole: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """See `_HELP`."""
    started = time.perf_counter()
    shown = Shown("nothing" if quiet else "json" if as_json else "text", verbose)
    if output is not None and out_dir is not None:
        raise click.UsageError("-o and --out-dir exclude each other: one file, or a folder of blocks", ctx)
    pages = report is not None or plot is not None
    ledger = ledger or (against is not None and not pages)
    settings = {"class-names": class_names, "feature-names": feature_names, "layout": layout != AUTO}
    if not pages and any(settings.values()):
        first = next(name for name, given in settings.items() if given)
        raise click.UsageError(f"--{first} belongs to --report or --plot", ctx)
    check_apart({"-o": output, "--out-dir": out_dir, "--report": report, "--plot": plot})
    pages_of = Pages.checked(report, plot, class_names, feature_names, layout, typed(ctx))
    for path in (output, report, plot):
        if path is not None:
            check_destination(path, sources=(model, x))
    if deep and out_dir is not None:
        raise click.UsageError("--deep and --out-dir exclude each other: float64 needs W in memory", ctx)
    if out_dir is not None:
        check_folder(out_dir)
    given = read(x)
    with native_messages(shown=verbose):
        compiled = compile(model, **options)
    points = instances(given, compiled.graph.inputs, whole=whole)
    if ledger and len(points) > 1 and shown.form == "text":
        raise click.UsageError(f"--ledger shows one instance, not {len(points)}: add --json", ctx)
    targets = numbered(output, len(points))
    for path in (output, report, plot):
        for target in numbered(path, len(points)):
            if target is not None and target != path:
                check_destination(target, sources=(model, x))
    folders = numbered(out_dir, len(points))
    job = Job(
        *(compiled, x, points, rows, targets, folders, shown, started),
        region=region or region_seconds is not None,
        region_seconds=SECONDS if region_seconds is None else region_seconds,
        ties=ties,
        deep=deep,
        ledger=ledger,
        explained=Explained(explain, against),
        pages=pages_of,
    )
    ctx.exit(run(job))
