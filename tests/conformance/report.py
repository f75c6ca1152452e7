"""Run, passed and skipped cases by operator, printed by

    python -m tests.conformance.report [-v] [PART_OF_A_CASE'S_NAME]

in the repository's root. -v prints every case with its time and the oracle of its slopes.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter, defaultdict

from .cases import Case, blocked_cases, choices, relevant_cases
from .check import Outcome, SkippedCase, check


def result_of(case: Case, active: tuple[str, ...]) -> tuple[str, str]:
    """("passed" | "skipped" | "FAILED", why)."""
    try:
        outcome: Outcome = check(case, active)
    except SkippedCase as skipped:
        return "skipped", str(skipped)
    except Exception as error:  # a report goes on
        return "FAILED", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return "passed", f"slopes from the {outcome.oracle}" + (", kinks" if outcome.kinks else "")


def main(arguments: list[str]) -> int:
    """Print the table; the exit code is 1 where a case fails."""
    verbose = "-v" in arguments
    part = next((argument for argument in arguments if not argument.startswith("-")), "")
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for case in (case for case in relevant_cases() if part in case.name):
        for active in list(choices(case)) or [()]:
            start = time.perf_counter()
            status, why = result_of(case, active)
            rows[case.subject][status] += 1
            reasons[case.subject][status, why] += 1
            if verbose or status == "FAILED":
                took = time.perf_counter() - start
                print(f"{status:8}{case.name}[{'+'.join(active)}] {took:.2f} s: {why}", flush=True)
    print(f"{'operator':24}{'run':>6}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for operator, row in sorted(rows.items()):
        _line(operator, row)
        for (status, why), count in sorted(reasons[operator].items()):
            if status == "skipped" or "onnxruntime" in why:
                print(f"{'':26}{count} {status}: {why}")
    total = sum(rows.values(), Counter())
    _line("all", total)
    missing = Counter(", ".join(case.without_rule) for case in blocked_cases())
    print(f"\n{sum(missing.values())} more cases hold an operator with a rule behind or before one without:")
    for operators, count in missing.most_common():
        print(f"  {count:4} need {operators}")
    return 1 if total["FAILED"] else 0


def _line(operator: str, row: Counter[str]) -> None:
    run = row["passed"] + row["FAILED"]
    print(f"{operator:24}{run:6}{row['passed']:8}{row['FAILED']:8}{row['skipped']:9}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(sys.argv[1:]))
