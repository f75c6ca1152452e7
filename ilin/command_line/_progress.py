"""What standard error shows during the work.

A progress bar: on a terminal only, and only when the work exceeds two seconds. And what the library tells
through its logger, such as that kernels are being compiled.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from ._text import note, stderr_apart

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE = 2.0  # seconds


@contextmanager
def telling(meter: Meter, *, quiet: bool) -> Iterator[None]:
    """Show what the library tells meanwhile as notes, past the bar and whatever holds standard error back."""
    if quiet or sys.stderr is None:
        yield
        return
    logger = logging.getLogger("ilin")
    before, handler = logger.level, _Notes(meter)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()


class _Notes(logging.Handler):
    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter, self._stream = meter, stderr_apart()

    def emit(self, record: logging.LogRecord) -> None:
        with self._meter.aside():
            note(record.getMessage(), self._stream)

    def close(self) -> None:
        super().close()
        if self._stream is not sys.stderr:
            self._stream.close()


class Meter:
    """Shows how many of the passes of all instances are done. Call it as `CompiledModel.at` calls back."""

    def __init__(self, instances: int, *, quiet: bool) -> None:
        self._instances, self._instance, self._share = instances, 0, 0.0
        self._doing = "linearising"
        self._timer: threading.Timer | None = None
        self._bar: Progress | None = None
        self._lock = threading.RLock()
        self._terminal: TextIO | None = None  # a stream of its own: descriptor 2 is silenced meanwhile
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            self._terminal = stderr_apart()
            self._timer = threading.Timer(PATIENCE, self._show)
            self._timer.daemon = True

    def __enter__(self) -> Self:
        if self._timer:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer:
            self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._bar:
                self._bar.stop()
            if self._terminal:
                self._terminal.close()

    def __call__(self, done: int, total: int) -> None:
        """Passes done of the current instance."""
        self._share = done / max(1, total)
        self._update()

    def next_instance(self) -> None:
        """One more instance is done."""
        self._instance, self._share = self._instance + 1, 0.0
        self._update()

    @contextmanager
    def telling(self, doing: str) -> Iterator[None]:
        """Show another work meanwhile, of which calls tell how much is done."""
        before, share, self._doing = self._doing, self._share, doing
        self(0, 1)
        try:
            yield
        finally:
            self._doing, self._share = before, share
            self._update()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something else writes to the terminal."""
        with self._lock:
            if self._bar:
                self._bar.stop()
            yield
            if self._bar:
                self._bar.start()

    def _show(self) -> None:
        """Runs in the timer's thread; the imports are paid for only here."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._timer is None:  # the work ended meanwhile
                return
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=Console(file=self._terminal),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.add_task(self._doing, total=None)
            self._update()
            self._bar.start()

    def _update(self) -> None:
        with self._lock:
            if not self._bar:
                return
            several, done = self._instances > 1, self._instance + self._share
            which = f" {min(self._instance + 1, self._instances)} of {self._instances}" if several else ""
            total = self._instances if several or done else None  # None: it moves, but says nothing
            self._bar.update(
                self._bar.task_ids[0], total=total, completed=done, description=f"{self._doing}{which}"
            )
