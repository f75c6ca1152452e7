"""Sweep a folder of ONNX models with inputs: how far does each map hold, and does it end just there?

    python benchmarks/regions.py ../shared/models --write docs/regions.md

For every piecewise-linear model of the folder's INDEX.json with at most so many units that choose: the
radius in L1, L2 and L∞, and a walk to the boundary found, 0.01 % short of it and 0.01 % beyond. Short of it
the model must make all of its choices as at x; beyond it the unit that was named must choose otherwise, and
nothing but units whose own half-space ends there too. Both by onnxruntime in the model's own type; where that
does not resolve 0.01 % of the margin, by onnx's reference evaluator on the same model in float64. Each model
runs in a process of its own. The table in the page is replaced, between its two marks.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from real_models import input_of
from tables import replace_table

SHORT, BEYOND = 1 - 1e-4, 1 + 1e-4
MARKS = ("<!-- regions: begin -->", "<!-- regions: end -->")
KINDS = ("piecewise linear", "affine")


def main() -> int:
    """Run the sweep, print one line for each model, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=20_000, help="units that choose, at most")
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
        if model["kind"] in KINDS and model["ort"].get("runs") and (arguments.only or "") in model["name"]:
            result = _in_process(arguments, model)
            if result is not None:
                results.append(result)
                print(row_of(result), flush=True)
    passed = all(one["passed"] for result in results for one in result["norms"])
    if arguments.write:
        replace_table(arguments.write, MARKS, table_of(results))
    return 0 if passed else 1


def _in_process(arguments: argparse.Namespace, model: dict[str, Any]) -> dict[str, Any] | None:
    command = [sys.executable, __file__, str(arguments.folder), "--most", str(arguments.most)]
    done = subprocess.run([*command, "--one", json.dumps(model)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{model['name']} failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return None if found is None else dict(found)


def run_one(folder: Path, model: dict[str, Any], most: int) -> dict[str, Any] | None:
    """The radii of one model at its input, each with its walk; None where it has no units, or too many."""
    import ilin
    from ilin.runtime.region import NORMS, name_of

    x, file = input_of(folder, model), folder / model["file"]
    affine = ilin.compile(file).at(x, rows=1)
    units = affine.certificate.guards
    if not 0 < units <= most:
        return None
    norms: list[dict[str, Any]] = []
    wide: Any = None
    for norm in NORMS:
        start = time.perf_counter()
        radius = affine.region.radius(norm)
        seconds = time.perf_counter() - start
        passed, changed = walk(affine, radius)
        type_of = "float32"
        if not passed:
            wide = wide or in_float64(file, x)
            passed, changed = walk(wide, wide.region.radius(norm))
            type_of = "float64"
        norms.append(
            {
                **radius.as_dict(),
                "norm": name_of(norm),
                "seconds": seconds,
                "passed": passed,
                "by": type_of,
                "changed": changed,
            }
        )
    return {"name": model["name"], "units": units, "N": affine.region.x.size, "norms": norms}


def walk(affine: Any, radius: Any) -> tuple[bool, int]:
    """Whether the pattern ends just where it should, and how many units change there."""
    if radius.boundary is None:
        return math.isinf(radius.distance), 0

    def at(factor: float) -> Any:
        return _shaped(affine, affine.region.x + factor * radius.step)

    if radius.distance == 0:  # x lies on the boundary: there is no way to go short of it
        return radius.boundary.chooser in affine.region.changed(_beyond_a_tie(affine, radius)), 0
    changed = affine.region.changed(at(BEYOND))
    crossed = affine.region.crossed(at(BEYOND))
    within = radius.boundary.chooser in changed and set(changed) <= set(crossed)
    return affine.region.contains(at(SHORT)) and within, len(changed)


def _beyond_a_tie(affine: Any, radius: Any) -> Any:
    """A point on the other side of a boundary that x lies on, a thousandth of x's size away."""
    import numpy as np

    x = affine.region.x
    for block in affine.region.blocks():
        if radius.boundary in block.boundaries:
            slope = block.A[block.boundaries.index(radius.boundary)]
            away = 1e-3 * max(1.0, float(np.abs(x).max())) * slope / np.abs(slope).max()
            return _shaped(affine, x + away)
    raise ValueError(f"{radius.boundary} is not among the half-spaces")


def _shaped(affine: Any, flat: Any) -> Any:
    found, first = {}, 0
    for name, shape in affine.input_shapes.items():
        size = math.prod(shape)
        found[name] = flat[first : first + size].reshape(shape)
        first += size
    return found


def in_float64(file: Path, x: Any) -> Any:
    """The map of the same model with every floating tensor in float64."""
    import numpy as np
    import onnx

    import ilin

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.conformance.oracle import as_float64

    def widened(value: Any) -> Any:
        return np.asarray(value, np.float64) if np.asarray(value).dtype.kind == "f" else value

    given = {name: widened(value) for name, value in x.items()} if isinstance(x, dict) else widened(x)
    model = as_float64(onnx.load(file))
    return ilin.compile(model, dtype="float64").at(given, rows=1)


def row_of(result: dict[str, Any]) -> str:
    """One line of the table."""
    sizes = " | ".join(_size(one) for one in result["norms"])
    l2 = result["norms"][1]
    where = l2["boundary"]
    named = "" if where is None else f"{where['op_type']} `{where['node']}` {list(where['unit'])}"
    tests = ", ".join(
        f"{one['by'] if one['passed'] else 'FAILED'}" + (f" ({one['changed']})" if one["changed"] > 1 else "")
        for one in result["norms"]
    )
    seconds = " / ".join(f"{one['seconds']:.2g}" for one in result["norms"])
    size = f"{result['units']:,} | {result['N']:,}"
    return f"| {result['name']} | {size} | {sizes} | {named} | {tests} | {seconds} |"


def _size(one: dict[str, Any]) -> str:
    if one["boundary"] is None:
        return "∞" if one["exact"] else "?"
    return f"{one['distance']:.3g}" if one["exact"] else f"{one['at_least'] or 0:.2g}…{one['distance']:.3g}"


def table_of(results: list[dict[str, Any]]) -> str:
    """The table, and how many passed."""
    head = (
        "| model | units | N | L1 | L2 | L∞ | nearest in L2 | edge test by | seconds, L1 / L2 / L∞ |\n"
        "|---|---:|---:|---:|---:|---:|---|---|---:|"
    )
    norms = [one for result in results for one in result["norms"]]
    passed, exact = sum(one["passed"] for one in norms), sum(one["exact"] for one in norms)
    summary = (
        f"{len(results)} models, three norms each: the edge test passed for {passed} of {len(norms)}, "
        f"{exact} of the radii are exact."
    )
    return "\n".join([summary, "", head, *(row_of(result) for result in results)])


if __name__ == "__main__":
    sys.exit(main())
