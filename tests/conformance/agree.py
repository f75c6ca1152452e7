"""Every engine against every other, in float32 and float64, printed by

    python -m tests.conformance.agree [--models FOLDER] [--only PART_OF_A_NAME] [-v]

in the repository's root: on all conformance cases and, with a folder, on the published networks in it.
Deviations are in units of the bound on rounding errors (see agreement.py): at most 1 where engines agree.
The reference is the sparse engine in float64. -v prints every model. The exit code is 1 where a deviation is
over 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ilin

from ..compiler.published import given, published
from .agreement import REFERENCE, Agreement, Linearize, Way, agreement
from .cases import choices, relevant_cases
from .check import SkippedCase, linearized, observed, rows_of

Subject = tuple[str, Linearize, Any]  # name, how to linearise, rows


def case_subjects(part: str = "") -> Iterator[Subject]:
    """The conformance cases that ilin answers, with all inputs active that may be."""
    for case in (case for case in relevant_cases() if part in case.name):
        for active in list(choices(case))[:1]:
            try:
                expected = observed(case)
                N = sum(case.feeds[name].size for name in active)
                rows = rows_of(case, N, sum(expected[name].size for name in case.floating_outputs))
                linearized(case, active, rows=rows)
            except (SkippedCase, ilin.IlinError):  # nothing to compare, or refused by name
                continue

            def linearize(engine: str, dtype: str, rows: Any, case=case, active=active) -> ilin.AffineMap:
                return linearized(case, active, rows=rows, engine=engine, dtype=dtype)

            yield case.name.removeprefix("test_"), linearize, rows


def model_subjects(folder: Path, part: str = "") -> Iterator[Subject]:
    """The published networks of a folder, at the input that lies beside each."""
    for model in (model for model in published(folder) if part in model["name"]):
        x, path = given(folder, model), folder / model["file"]

        def linearize(engine: str, dtype: str, rows: Any, path=path, x=x) -> ilin.AffineMap:
            return ilin.linearize(path, x, rows=rows, engine=engine, dtype=dtype)

        entries = model["n_float_inputs"] * model["n_outputs"]
        yield model["name"], linearize, "all" if entries <= 2e5 else min(3, model["n_outputs"])


def main() -> int:
    """Print how far each engine is from the reference at worst, and from each other."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.agree",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=Path, help="folder of published networks, with an INDEX.json")
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("-v", action="store_true", dest="verbose", help="print every model")
    arguments = parser.parse_args()
    subjects = [*case_subjects(arguments.only)]
    if arguments.models:
        subjects += model_subjects(arguments.models, arguments.only)
    found: dict[str, Agreement] = {}
    for name, linearize, rows in subjects:
        start = time.perf_counter()
        found[name] = agreement(linearize, rows)
        if arguments.verbose or found[name].worst > 1:
            print(f"{time.perf_counter() - start:6.1f} s  {_line(name, found[name])}", flush=True)
    _summarise(found)
    return 1 if any(each.worst > 1 for each in found.values()) else 0


def _line(name: str, each: Agreement) -> str:
    far = "  ".join(f"{_named(way)} {ratio:.2g}" for way, ratio in each.deviations.items())
    reference = "" if each.reference == REFERENCE else f"  (from {_named(each.reference)})"
    return f"{name}: {far}{reference}"


def _summarise(found: dict[str, Agreement]) -> None:
    print(f"\n{len(found)} models. Deviation from {_named(REFERENCE)} over the bound:")
    ways = sorted({way for each in found.values() for way in each.deviations}, key=lambda way: way[::-1])
    for way in ways:
        ratios = {name: each.deviations[way] for name, each in found.items() if way in each.deviations}
        worst = max(ratios, key=lambda name: ratios[name])
        over = sum(ratio > 1 for ratio in ratios.values())
        print(
            f"  {_named(way):22} {len(ratios):4} models, worst {ratios[worst]:8.2g} ({worst}), {over} over 1"
        )
    print("\nBetween any two, over the sum of their bounds:")
    pairs = dict.fromkeys(pair for each in found.values() for pair in each.pairs)
    for pair in pairs:
        ratios = {name: each.pairs[pair] for name, each in found.items() if pair in each.pairs}
        worst = max(ratios, key=lambda name: ratios[name])
        print(f"  {_named(pair[0]):22} {_named(pair[1]):22} worst {ratios[worst]:8.2g} ({worst})")
    refused = Counter((way, why) for each in found.values() for way, why in each.refused.items())
    if refused:
        print("\nNot run:")
    for (way, why), count in refused.most_common():
        print(f"  {_named(way):22} {count:4} models: {why[:150]}")


def _named(way: Way) -> str:
    return f"{way[0]} {way[1]}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
