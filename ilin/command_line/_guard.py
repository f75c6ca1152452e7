"""What may go wrong around a command, in one place: one line on standard error, and an exit code.

0 done and verified; 1 computed but not verified; 2 bad usage or bad input; 3 unsupported in the model;
130 interrupted; 141 the reader of standard output went away. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TextIO

import click

from ..runtime.errors import IlinError
from ._text import error_line

INTERRUPTED, BROKEN_PIPE = 130, 141


class _Guarded(click.Command):
    """A command that reports every failure in one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command and exit; with `standalone_mode=False`, as click does."""
        call: Callable[[], Any] = partial(
            super().main,
            args=args,
            prog_name=prog_name or self.name,
            complete_var=complete_var,
            windows_expand_args=windows_expand_args,
            standalone_mode=False,
            **extra,
        )
        if not standalone_mode:
            return call()
        _never_fail_to_encode()
        try:
            code: Any = call()
        except click.ClickException as error:
            error_line(_usage(error))
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command's function, or the subcommand."""
        try:
            return super().invoke(ctx)
        except IlinError as error:
            error_line(str(error))
            raise click.exceptions.Exit(error.exit_code) from error
        except MemoryError as error:
            error_line("out of memory; ask for fewer rows (--rows top5), or lower --memory-limit")
            raise click.exceptions.Exit(2) from error
        except KeyboardInterrupt as error:
            error_line("interrupted", after_echo=True)
            raise click.exceptions.Exit(INTERRUPTED) from error
        except OSError as error:
            _stop_if_unwritable(error)
            raise


class GuardedCommand(_Guarded):
    """A guarded command."""


class GuardedGroup(_Guarded, click.Group):
    """A guarded group of commands."""


class StandardOutputError(OSError):
    """Standard output does not take what is written to it."""


@contextmanager
def native_messages(shown: bool) -> Iterator[None]:
    """Keep what C++ code prints, and Python's warnings, off standard error; our own lines still pass.

    Args:
        shown: leave everything as it is.
    """
    keep = None if shown else _duplicate_of_stderr()
    if keep is None:
        yield
        return
    ours, own = sys.stderr, _is_descriptor_two(sys.stderr)
    if own:
        ours.flush()
        sys.stderr = os.fdopen(os.dup(keep), "w", encoding=ours.encoding, errors="replace", buffering=1)
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
        os.dup2(nowhere.fileno(), 2)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(keep, 2)
        os.close(keep)
        if own:
            sys.stderr.close()
            sys.stderr = ours


def _duplicate_of_stderr() -> int | None:
    """A copy of file descriptor 2, or None where it is closed."""
    try:
        return os.dup(2)
    except OSError:
        return None


def _is_descriptor_two(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 2
    except (OSError, ValueError):  # a test's or an embedder's stream
        return False


def _usage(error: click.ClickException) -> str:
    """Click's message in one line, with where to read on."""
    message = " ".join(error.format_message().split())
    ctx = getattr(error, "ctx", None)
    return f"{message} (see {ctx.command_path} --help)" if ctx else message


def _never_fail_to_encode() -> None:
    """Characters that a narrow terminal encoding lacks become question marks, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _stop_if_unwritable(error: OSError) -> None:
    """Leave quietly when the reader of standard output went away, and in one line when it is full."""
    if not isinstance(error, StandardOutputError | BrokenPipeError):
        return
    _silence_stdout()
    if error.errno == errno.EPIPE:
        raise click.exceptions.Exit(BROKEN_PIPE) from error
    error_line(f"cannot write to standard output: {error.strerror}")
    raise click.exceptions.Exit(2) from error


def _silence_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush does not fail again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
