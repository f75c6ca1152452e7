"""Every backend case of the onnx package, by group: value right, W right, refused by name, wrong.

    python -m tests.conformance.report [-v] [--write] [PART_OF_A_CASE'S_NAME]

in the repository's root. -v prints every case with its time and the oracle of its slopes; --write puts the
table into docs/conformance.md.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import ilin
from ilin.compiler.graph import load
from ilin.compiler.judge import judge
from ilin.runtime.program import Kind

from .cases import Case, all_cases, choices
from .check import SkippedCase, check

DOCS = Path(__file__).parents[2] / "docs" / "conformance.md"
BEGIN, END = "<!-- backend cases: begin -->", "<!-- backend cases: end -->"
GROUPS = (
    *("affine", "piecewise-linear", "locally constant", "smooth", "bilinear"),
    *("unsupported", "integer", "strings, sequences", "not run by anything"),
)


@dataclass(frozen=True)
class Result:
    """How a case came out."""

    status: str  # right | refused | wrong | nothing
    why: str


def group_of(case: Case) -> str:
    """What kind of answer a case asks for, by what its operators are."""
    if case.holds_other_than_tensors or _has_strings(case.model):
        return "strings, sequences"
    if not case.floating_inputs or not case.floating_outputs:
        return "integer"
    try:
        graph = load(case.model)
    except ilin.IlinError:
        return "unsupported"
    for active in choices(case):
        moved = [verdict for verdict in judge(graph, active) if verdict.depends_on_x]
        kinds = {verdict.kind for verdict in moved}
        if None not in kinds:
            break
    else:
        return "unsupported"
    if Kind.SMOOTH in kinds:
        alone = any(verdict.entry is not None and verdict.entry.kind is Kind.SMOOTH for verdict in moved)
        return "smooth" if alone else "bilinear"
    reached = set(case.floating_inputs).union(
        *(verdict.node.outputs for verdict in moved if verdict.kind is not Kind.LOCALLY_CONSTANT)
    )
    if not reached.intersection(case.floating_outputs):
        return "locally constant"
    return "piecewise-linear" if Kind.PIECEWISE_LINEAR in kinds else "affine"


def result_of(case: Case) -> Result:
    """Check a case with every choice of active inputs; the worst that happens counts."""
    if not case.floating_inputs or not case.floating_outputs or case.holds_other_than_tensors:
        return _refused_for_types(case)
    found: Counter[str] = Counter()
    skipped = ""
    for active in choices(case):
        try:
            outcome = check(case, active)
            found[f"slopes from the {outcome.oracle}"] += 1
        except SkippedCase as reason:
            skipped = str(reason)
        except ilin.IlinError as error:
            return Result("refused", _one_line(error))
        except Exception as error:  # a report goes on
            return Result("wrong", f"[{'+'.join(active)}] {type(error).__name__}: {_one_line(error)}")
    if found:
        return Result("right", ", ".join(found))
    if skipped.startswith("refused by design"):
        return Result("refused", skipped)
    return Result("nothing", skipped)


def _refused_for_types(case: Case) -> Result:
    """A model with nothing to differentiate must be refused, in words."""
    try:
        ilin.compile(case.model)
    except ilin.IlinError as error:
        return Result("refused", _one_line(error))
    except Exception as error:  # a report goes on
        return Result("wrong", f"{type(error).__name__}: {_one_line(error)}")
    return Result("nothing", "no float tensors go in and come out, beside what it takes as constants")


def main(arguments: list[str]) -> int:
    """Print the table; the exit code is 1 where a case is wrong."""
    verbose = "-v" in arguments
    part = next((argument for argument in arguments if not argument.startswith("-")), "")
    table: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for case in (case for case in all_cases() if part in case.name):
        start = time.perf_counter()
        group, result = group_of(case), result_of(case)
        if result.status == "nothing" and result.why.startswith("nothing runs it"):
            group = "not run by anything"
        table[group]["cases"] += 1
        table[group][result.status] += 1
        if result.status in ("refused", "nothing"):
            reasons[group][f"{result.status}: {_kind_of_reason(result.why)}"] += 1
        if verbose or result.status == "wrong":
            took = time.perf_counter() - start
            print(
                f"{result.status:8} {case.suite}/{case.name} ({group}) {took:.2f} s: {result.why}", flush=True
            )
    text = _written(table, reasons)
    print(text)
    if "--write" in arguments:
        page = DOCS.read_text()
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        DOCS.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")
    return 1 if any(row["wrong"] for row in table.values()) else 0


def _written(table: dict[str, Counter[str]], reasons: dict[str, Counter[str]]) -> str:
    """The table as Markdown, and behind it every reason."""
    columns = ("cases", "right", "refused", "nothing", "wrong")
    lines = [
        "| group | cases | value and W right | refused by name | nothing to compare | wrong |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    total: Counter[str] = Counter()
    for group in (group for group in GROUPS if group in table):
        total.update(table[group])
        lines.append(f"| {group} | " + " | ".join(str(table[group][column]) for column in columns) + " |")
    lines.append("| **all** | " + " | ".join(str(total[column]) for column in columns) + " |")
    for group in (group for group in GROUPS if reasons.get(group)):
        lines += ["", f"{group[0].upper()}{group[1:]}:", ""]
        lines += [f"- {count} {reason}" for reason, count in reasons[group].most_common()]
    return "\n".join(lines)


def _kind_of_reason(why: str) -> str:
    """A reason without the names of one case."""
    why = re.sub(r"^node '[^']*' ", "", why)
    why = re.sub(r"; \d+ operators? .*$|; no operator of this domain.*$", "", why)
    why = re.sub(r", ai\.onnx opset \d+|'[^']*'", "", why)
    why = re.sub(r" \(it declares .*\)", "", why)
    why = re.sub(r"\s+", " ", why.replace("( and )", ""))
    return why[:150].replace("|", "/")


def _has_strings(model: onnx.ModelProto) -> bool:
    puts = (*model.graph.input, *model.graph.output)
    return any(put.type.tensor_type.elem_type == onnx.TensorProto.STRING for put in puts)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with np.errstate(all="ignore"):
        sys.exit(main(sys.argv[1:]))
