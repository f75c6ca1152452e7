"""One run of `ilin compile`: linearise at every point, show, save, and give the exit code."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..compiler.many import naming
from ..compiler.pipeline import CompiledModel
from ..compiler.rows import Rows
from ..compiler.trace import feeds_of
from ..runtime.affine_map import AffineMap
from ..runtime.errors import MemoryLimitError, UnsupportedError
from ..runtime.largest import entries_of
from ..runtime.ledger import Ledger
from ..runtime.memory import peak
from ..runtime.program import Kind
from ..runtime.region import NORMS, SECONDS
from ._guard import native_messages
from ._progress import Meter, telling
from ._text import error_line, note, say
from .depth import goes_deeper
from .destination import numbered
from .explained import Explained
from .facts import Facts, facts_of, flat, model_facts, strict
from .inputs import Instances
from .pages import Pages
from .several import table_head, table_row, totals
from .summary import summary

VERIFIED, NOT_VERIFIED = 0, 1


@dataclass(frozen=True)
class Shown:
    """What the user wants to see."""

    form: Literal["text", "json", "nothing"]
    verbose: bool

    @property
    def quiet(self) -> bool:
        """Nothing but errors."""
        return self.form == "nothing"


@dataclass(frozen=True)
class Job:
    """Everything that one run needs, checked."""

    compiled: CompiledModel
    source: Path  # of x
    points: Instances
    rows: Rows
    targets: Sequence[Path | None]  # files, one for each instance
    folders: Sequence[Path | None]  # or folders, likewise
    shown: Shown
    started: float  # by time.perf_counter
    region: bool = False  # whether to say how far a map holds
    region_seconds: float = SECONDS  # that this may take, for all norms together
    ties: bool = False  # whether to say which ties matter
    deep: bool | None = None  # whether to verify deeply; None where that alone tests W and takes little
    ledger: bool = False  # whether to show the explained output as a full sum
    explained: Explained = field(default_factory=Explained)
    pages: Pages = field(default_factory=Pages)  # for people


def run(job: Job) -> int:
    """Do the job.

    Returns:
        0 where every map is verified, else 1.
    """
    if len(job.points) == 1:
        return _exit_code([_one(job)])
    if not job.shown.quiet:
        note(f"{job.source}: {len(job.points)} instances along axis 0 (--whole takes it as one input)")
    _check_all(job)
    found = _several(job)
    if not job.shown.quiet:
        pages = [numbered(path, len(job.points)) for path in (job.pages.report, job.pages.plot)]
        written = zip(("files", "folders", "pages", "plots"), (job.targets, job.folders, *pages), strict=True)
        for what, places in written:
            if places[0] is not None:
                note(f"wrote {len(places)} {what}, {places[0]} to {places[-1]}")
    return _exit_code(found)


def _one(job: Job) -> Facts:
    """The single instance: one screen, or one document."""
    quiet = job.shown.quiet
    with Meter(1, quiet=quiet) as meter, telling(meter, quiet=quiet):
        affine, facts, ledger = _linearised(job, 0, meter)
    _notes(job, affine)
    saved = _saved(job, 0, affine)
    written = [*([] if saved is None else [saved]), *_pages(job, 0, affine)]
    for path in () if job.shown.quiet else written:
        note(f"wrote {path}")
    document = {**model_facts(job.compiled), **facts, "saved": saved, **_cost(job)}
    if job.shown.form == "json":
        _say_json(document)
    elif job.shown.form == "text":
        say(summary(document, None if ledger is None else str(ledger)))
    return facts


def _several(job: Job) -> list[Facts]:
    """Each instance: a table, line by line as they are done, or one document in the end."""
    common, found = model_facts(job.compiled), list[Facts]()
    text, quiet = job.shown.form == "text", job.shown.quiet
    with Meter(len(job.points), quiet=quiet) as meter, telling(meter, quiet=quiet):
        for index in range(len(job.points)):
            with naming(index):
                affine, facts, _ = _linearised(job, index, meter)
                saved = _saved(job, index, affine)
                _pages(job, index, affine)
            found.append({"instance": index, **facts, "saved": saved})
            meter.next_instance()
            with meter.aside():
                if index == 0:
                    _notes(job, affine)
                if text:
                    say(
                        table_row(index, facts)
                        if index
                        else f"{table_head(common, facts)}\n{table_row(index, facts)}"
                    )
    if job.shown.form == "json":
        _say_json({**common, "instances": found, **_cost(job)})
    elif text:
        say(totals(found, _cost(job)))
    return found


def _linearised(job: Job, index: int, meter: Meter) -> tuple[AffineMap, Facts, Ledger | None]:
    started, point, folder = time.perf_counter(), job.points[index], job.folders[index]
    try:
        if job.shown.verbose and not job.shown.quiet:
            with meter.aside():
                note(f"plan: {job.compiled.plan(point, job.rows)}")
        with native_messages(shown=job.shown.verbose):
            affine = _map(job, point, folder, meter)
            # Made here, where messages are held back and the time is counted.
            if job.deep:
                affine.certify_deeply()
            elif job.deep is None and folder is None and goes_deeper(affine, len(job.points)):
                affine.certify_deeply()
                with suppress(UnsupportedError):  # where x decides which nodes run
                    _ = affine.ties
            if job.region:
                _survey(affine, job.region_seconds, meter)
            if job.ties:
                _ = affine.ties
            row, against = _positions(job, affine)
            ledger = affine.ledger(row, against=against) if job.ledger else None
            told = {} if ledger is None else {"ledger": strict(ledger.as_dict())}
    except MemoryLimitError as error:
        what = str(error).split("; ")[0]  # what follows are remedies in Python's words
        raise MemoryLimitError(
            f"{what}; try --rows top3, --outputs NAME, --out-dir DIR or --memory-limit SIZE"
        ) from error
    seconds = time.perf_counter() - started
    facts = facts_of(affine, row, seconds, layers=job.shown.verbose, region=job.region, ties=job.ties)
    return affine, {**facts, **told}, ledger


def _map(job: Job, point: Any, folder: Path | None, meter: Meter) -> AffineMap:
    """The map at one point; what the pages and the ledger ask for is checked before it is composed."""
    asked = job.compiled._asked(point, job.rows)
    program = asked.program
    leading = entries_of(program.leading, dict(program.outputs))
    job.explained.positions(asked.rows, asked.trace.answered(program.outputs), leading)
    job.pages.require_fit(dict(program.inputs), dict(program.outputs))
    if folder is None:
        return job.compiled._answer(asked, job.compiled._compose(asked, meter))
    from ..compiler.to_folder import answer_to

    return answer_to(job.compiled, folder.resolve(), asked, progress=meter)


def _positions(job: Job, affine: AffineMap) -> tuple[int, int | None]:
    """Of the explained output and its rival, among the map's rows."""
    return job.explained.positions(affine.rows, flat(affine.outputs), affine._leading_entries())


def _pages(job: Job, index: int, affine: AffineMap) -> list[Path]:
    return job.pages.write(affine, index, len(job.points), *_positions(job, affine))


def _survey(affine: AffineMap, seconds: float, meter: Meter) -> None:
    """Work out how far a map holds; one of a smooth network holds at x only.

    Norms share the seconds: what one leaves, the next ones have, and what one learns of the slopes.
    """
    if affine.kind is Kind.SMOOTH:
        return
    end = time.perf_counter() + seconds
    with meter.telling("measuring the region"):
        for place, norm in enumerate(NORMS):
            meter(place, len(NORMS))
            left = max(0.0, end - time.perf_counter())
            affine.region.radius(norm, seconds=left / (len(NORMS) - place))
    _ = affine.region.pattern_sha256


def _check_all(job: Job) -> None:
    """Refuse a bad instance before the first one is computed."""
    for index in range(len(job.points)):
        with naming(index):
            feeds_of(job.compiled.graph, job.points[index])


def _notes(job: Job, affine: AffineMap) -> None:
    for text in () if job.shown.quiet else affine.notes:
        note(text)


def _cost(job: Job) -> Facts:
    return {"total_seconds": time.perf_counter() - job.started, "peak_memory_bytes": peak()}


def _say_json(document: Any) -> None:
    say(json.dumps(document, indent=2, allow_nan=False))


def _saved(job: Job, index: int, affine: AffineMap) -> str | None:
    """Save a map where that is asked for, and say where; a folder holds it already."""
    target, folder = job.targets[index], job.folders[index]
    if target is not None:
        affine.save(target.resolve())
    place = target or folder
    return None if place is None else str(place)


def _exit_code(found: Sequence[Facts]) -> int:
    """0 where all is verified; else 1, and the failure on standard error."""
    bad = [i for i, facts in enumerate(found) if not facts["certificate"]["verified"]]
    if not bad:
        return VERIFIED
    reason = found[bad[0]]["certificate"]["reason"]
    which = (
        f"{len(bad)} of {len(found)} instances, the first is instance {bad[0]}: " if len(found) > 1 else ""
    )
    error_line(f"computed but not verified: {which}{reason}")
    return NOT_VERIFIED
