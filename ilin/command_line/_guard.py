"""What may go wrong around a command, in one place: one line on standard error, and an exit code.

0 done and verified; 1 computed but not verified; 2 bad usage or bad input; 3 unsupported in the model;
70 a fault in ilin itself (sysexits.h, EX_SOFTWARE), with its traceback where ILIN_DEBUG is set; 130
interrupted; 141 the reader of standard output went away.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import click

from ..runtime.errors import IlinError
from ._text import StandardOutputError, error_line

BAD_USAGE, INTERNAL, INTERRUPTED, BROKEN_PIPE = 2, 70, 130, 141
_TYPED = "ilin.typed"  # in a context's meta: the arguments


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
        sys.exit(_exit_code_of(call))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command's function, or the subcommand."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # here, as click would write a blank line and exit with 1
            error_line(str(error) or "interrupted", after_echo=True)
            raise click.exceptions.Exit(INTERRUPTED) from error


class GuardedCommand(_Guarded):
    """A guarded command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep what was typed for `typed`."""
        ctx.meta[_TYPED] = tuple(args)
        return super().parse_args(ctx, args)


def typed(ctx: click.Context) -> str:
    """The command as it was typed, for a shell."""
    return shlex.join([*ctx.command_path.split(), *ctx.meta[_TYPED]])


class GuardedGroup(_Guarded, click.Group):
    """A guarded group of commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; without any argument, show the help."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True, color=ctx.color)
            ctx.exit(BAD_USAGE)
        return super().parse_args(ctx, args)


@contextmanager
def native_messages(shown: bool) -> Iterator[None]:
    """Keep what C++ code prints, and Python's warnings, off both streams. Wrap calls into the library only.

    Args:
        shown: leave everything as it is.
    """
    if shown:
        yield
        return
    with _nowhere(1), _nowhere(2), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


@contextmanager
def _nowhere(descriptor: int) -> Iterator[None]:
    """Point a file descriptor nowhere for a while; one that is closed stays so."""
    try:
        keep = os.dup(descriptor)
    except OSError:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
    try:
        yield
    finally:
        with suppress(OSError, TypeError, AttributeError):  # Windows has no CDLL(None)
            ctypes.CDLL(None).fflush(None)  # what C still buffers must not come out later
        os.dup2(keep, descriptor)
        os.close(keep)


def _exit_code_of(call: Callable[[], Any]) -> int:
    """Run a command, report what went wrong, and say how to exit."""
    try:
        code = call()
    except click.ClickException as error:
        error_line(_usage(error))
        return error.exit_code
    except IlinError as error:
        error_line(str(error))
        return error.exit_code
    except MemoryError:
        error_line("out of memory; ask for fewer rows (--rows top5), or lower --memory-limit")
        return BAD_USAGE
    except StandardOutputError as error:
        return _unwritable(error)
    except Exception as error:  # whatever it is, nobody above would know more of it
        if os.environ.get("ILIN_DEBUG"):
            traceback.print_exc()
        error_line(
            f"internal error: {type(error).__name__}: {error}; please report it (ILIN_DEBUG=1 shows where)"
        )
        return INTERNAL
    return code if isinstance(code, int) else 0


def _usage(error: click.ClickException) -> str:
    """Click's message in one line, with where to read on."""
    message = " ".join(error.format_message().split()).rstrip(".")
    message = re.sub(r"^Invalid value for '(.+?)': ", r"\1: ", message)
    ctx = getattr(error, "ctx", None)
    return f"{message} (see {ctx.command_path} --help)" if ctx else message


def _never_fail_to_encode() -> None:
    """Characters that a narrow terminal encoding lacks become question marks, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _unwritable(error: StandardOutputError) -> int:
    """Leave quietly where the reader of standard output went away, and in one line where it is full."""
    _silence_stdout()
    if error.reader_gone:
        return BROKEN_PIPE
    error_line(f"cannot write to standard output: {error}")
    return BAD_USAGE


def _silence_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush does not fail again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
