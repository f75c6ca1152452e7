"""The command line: `ilin` with its commands, and `ilin-compile`, which is `ilin compile`."""

from __future__ import annotations

import click

from .._version import __version__
from ._guard import GuardedGroup
from .compile import compile_main
from .inspect import inspect_main
from .plan import plan_main
from .verify import verify_main

__all__ = ["compile_main", "main"]


_HELP = """From an ONNX model and one input x to the exact affine map F(z) = W z + b.

\b
ilin inspect MODEL.onnx        can it be linearised? a verdict on every node
ilin plan MODEL.onnx           what would W cost? engine, passes, memory, time
ilin compile MODEL.onnx X.npy  W and b at x, checked against onnxruntime;
                               ilin-compile is the same command
ilin verify OUT.npz MODEL.onnx does a saved map still hold? by onnxruntime
                               and numpy alone
"""


@click.group(
    "ilin",
    cls=GuardedGroup,
    help=_HELP,
    commands={"compile": compile_main, "inspect": inspect_main, "plan": plan_main, "verify": verify_main},
    no_args_is_help=False,  # `GuardedGroup` does it, alike in every version of click
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.version_option(__version__, "--version", prog_name="ilin", message="%(prog)s %(version)s")
def main() -> None:
    """See `_HELP`."""
