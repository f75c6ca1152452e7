"""Sweep a folder of ONNX models with inputs: how much does the ledger of the largest output leave over?

    python benchmarks/ledger.py ../shared/models --write docs/ledger.md

For every model of the folder's INDEX.json that answers: the relative residual of its largest output's ledger,
|output of onnxruntime - Σ terms| / Σ |terms|, and the largest by kind of the answer. Where that is over 10⁻⁵
the certificate is read too, and answers that are not verified are listed apart. Each model runs in a process
of its own. The table in the page is replaced, between its two marks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from real_models import input_of
from tables import replace_table

MARKS = ("<!-- ledger: begin -->", "<!-- ledger: end -->")
SECONDS = 300
VISIBLE = 1e-5


def main() -> int:
    """Run the sweep, print one line for each model, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="run only names that contain this")
    parser.add_argument("--dtype", default="float32", help="type that W and b are composed in")
    parser.add_argument("--mode", default="tangent")
    parser.add_argument("--write", type=Path, help="a page whose table is replaced")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = {"dtype": arguments.dtype, "mode": arguments.mode}
    if arguments.one:
        print(json.dumps(run_one(arguments.folder, json.loads(arguments.one), options)))
        return 0
    index = json.loads((arguments.folder / "INDEX.json").read_text())
    results = []
    for model in index:
        if (arguments.only or "") in model["name"]:
            results.append(_in_process(arguments, model))
            print(_line(results[-1]), flush=True)
    table = table_of(results)
    print(f"\n{table}")
    if arguments.write:
        replace_table(arguments.write, MARKS, table)
    return 1 if any("failed" in result for result in results) else 0


def _in_process(arguments: argparse.Namespace, model: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, str(arguments.folder), "--one", json.dumps(model)]
    command += ["--dtype", arguments.dtype, "--mode", arguments.mode]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"name": model["name"], "failed": f"no answer within {SECONDS} s"}
    if done.returncode:
        return {"name": model["name"], "failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return {"name": model["name"], **json.loads(done.stdout.splitlines()[-1])}


def run_one(folder: Path, model: dict[str, Any], options: dict[str, str]) -> dict[str, Any]:
    """The ledger of one model's largest output at its input, in figures."""
    import ilin

    try:
        affine = ilin.compile(folder / model["file"], **options).at(input_of(folder, model), rows=1)
        ledger = affine.ledger(0)
        verified = ledger.relative_residual <= VISIBLE or affine.certificate.verified
    except ilin.IlinError as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    return {
        "kind": str(affine.kind),
        "relative": ledger.relative_residual,
        "residual": ledger.residual,
        "value": ledger.value,
        "slack": ledger.slack,
        "terms": len(ledger.terms),
        "verified": verified,
    }


def _line(result: dict[str, Any]) -> str:
    for word in ("failed", "refused"):
        if word in result:
            return f"{word} {result['name']}: {result[word]}"
    return (
        f"{result['relative']:.1e} {result['name']:45s} {result['kind']:17s} {result['terms']:9,} terms  "
        f"residual {result['residual']:.1e} of {result['value']:.6g}"
        + (f"  by design up to {result['slack']:.1e}" if result["slack"] else "")
    )


def table_of(results: list[dict[str, Any]]) -> str:
    """The largest relative residual of each kind, and where it is."""
    answered = [result for result in results if result.get("verified")]
    lost = [f"{one['name']} ({one['relative']:.1e})" for one in results if not one.get("verified", True)]
    lines = [
        f"{len(answered)} of {len(results)} models answer"
        + (f"; left out, as their certificate says NOT verified: {', '.join(lost)}." if lost else "."),
        "",
        "| kind | models | terms, at most | largest relative residual | of |",
        "|---|--:|--:|--:|---|",
    ]
    for kind in sorted({result["kind"] for result in answered}):
        mine = [result for result in answered if result["kind"] == kind]
        worst = max(mine, key=lambda result: result["relative"])
        most = max(result["terms"] for result in mine)
        lines.append(f"| {kind} | {len(mine)} | {most:,} | {worst['relative']:.1e} | {worst['name']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
