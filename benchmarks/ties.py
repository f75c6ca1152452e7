"""Sweep a folder of ONNX models with inputs: which have ties at their input, and which of those matter?

    python benchmarks/ties.py ../shared/models --write docs/ties.md

For every model of the folder's INDEX.json that ilin answers and that has at most so many units that choose:
the ties at its input, examined for the largest output. Each model runs in a process of its own. The table in
the page is replaced, between its two marks; models without ties are counted and not listed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from real_models import input_of
from tables import replace_table

MARKS = ("<!-- ties: begin -->", "<!-- ties: end -->")
GENUINE = {True: "yes", False: "no", None: "not known"}


def main() -> int:
    """Run the sweep, print one line for each model with ties, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=200_000, help="units that choose, at most")
    parser.add_argument("--seconds", type=float, default=40, help="for one model, at most")
    parser.add_argument("--only", help="run only names that contain this")
    parser.add_argument("--write", type=Path, help="a page whose table is replaced")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments.folder, json.loads(arguments.one), arguments.most)))
        return 0
    index = json.loads((arguments.folder / "INDEX.json").read_text())
    results = []
    for model in index:
        if model["ort"].get("runs") and (arguments.only or "") in model["name"]:
            result = _in_process(arguments, model)
            results.append(result)
            if "ties" not in result:
                print(f"{model['name']}: {result['status']}", flush=True)
            elif result["ties"]["count"]:
                print(row_of(result), flush=True)
    if arguments.write:
        replace_table(arguments.write, MARKS, table_of(results))
    return 0


def _in_process(arguments: argparse.Namespace, model: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, str(arguments.folder), "--most", str(arguments.most)]
    command += ["--one", json.dumps(model)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=arguments.seconds)
    except subprocess.TimeoutExpired:
        return {"name": model["name"], "status": f"over {arguments.seconds:g} s"}
    if done.returncode:
        raise SystemExit(f"{model['name']} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_one(folder: Path, model: dict[str, Any], most: int) -> dict[str, Any]:
    """The ties of one model at its input, for the largest output, and the seconds that they took."""
    import ilin

    name = model["name"]
    try:
        affine = ilin.compile(folder / model["file"]).at(input_of(folder, model), rows=1)
        assert affine.program is not None
        units = sum(guard.choice.size for _, guard in affine.program.guarded)
        if units > most:
            return {"name": name, "status": f"{units:,} units"}
        start = time.perf_counter()
        ties = affine.ties
    except ilin.IlinError as error:
        return {"name": name, "status": f"refused: {error}"}
    seconds = time.perf_counter() - start
    return {"name": name, "units": units, "seconds": seconds, "ties": {**ties.as_dict(), "units": []}}


def row_of(result: dict[str, Any]) -> str:
    """One line of the table."""
    ties = result["ties"]
    still, unfelt = (sum(node[name] for node in ties["nodes"]) for name in ("still", "unfelt"))
    sides = " / ".join(_side(side) for side in ties["sides"])
    genuine = GENUINE[ties["genuine"]] if ties["matter"] else ""
    counts = f"{result['units']:,} | {ties['count']:,} | {still:,} | {unfelt:,} | {ties['matter']:,}"
    return f"| {result['name']} | {counts} | {sides} | {genuine} | {result['seconds']:.2g} |"


def _side(side: dict[str, Any]) -> str:
    if side["note"]:
        return "jumps"
    if side["change"] is None:
        return "does not fit"
    return f"{side['change']:.2g}" if side["rows"] else "0"


def table_of(results: list[dict[str, Any]]) -> str:
    """The table, and how many of each sort there are."""
    head = (
        "| model | units | ties | still | unfelt | matter | largest change of W, ahead / behind | genuine | "
        "seconds |\n|---|---:|---:|---:|---:|---:|---:|---|---:|"
    )
    examined = [result for result in results if "ties" in result]
    tied = [result for result in examined if result["ties"]["count"]]
    mattering = [result for result in tied if result["ties"]["matter"]]
    changed = [one for one in mattering if any(side["rows"] for side in one["ties"]["sides"])]
    summary = (
        f"{len(examined)} models were examined, {len(results) - len(examined)} were not (over the limits, or "
        f"refused). {len(tied)} have ties at their input: in {len(tied) - len(mattering)} all are harmless, "
        f"in {len(mattering)} some may matter, and in {len(changed)} W is another on a side."
    )
    return "\n".join([summary, "", head, *(row_of(result) for result in tied)])


if __name__ == "__main__":
    sys.exit(main())
