"""Sweep a folder of ONNX models with inputs: does the map hold at x and around x, how fast, how big?

    python benchmarks/real_models.py ../shared/models [--kind affine] [--mode frozen] [--level deep]

The folder has an INDEX.json, a list of {name, file, kind, input_files, …}. Each model runs in its own
process, so that its peak memory can be told. All rows where K·N is at most 2·10⁷, else the top 3. A model is
verified, or refused in one line, or FAILs; the exit code is 1 where one fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Run the sweep and print one line for each model, and a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--kind", action="append", help="kinds of the index to run, several if repeated (default: all)"
    )
    parser.add_argument("--only", help="run only names that contain this")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--mode", default="tangent")
    parser.add_argument("--quantized", default="exact")
    parser.add_argument("--level", default="default", choices=("default", "deep"), help="of the certificate")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in _OPTIONS}
    if arguments.one:
        print(json.dumps(run_one(arguments.folder, json.loads(arguments.one), **options)))
        return 0
    index = json.loads((arguments.folder / "INDEX.json").read_text())
    chosen = [
        model
        for model in index
        if (not arguments.kind or model["kind"] in arguments.kind) and (arguments.only or "") in model["name"]
    ]
    results, start = [], time.perf_counter()
    for model in chosen:
        result = _in_process(arguments, model)
        results.append(result)
        print(_line(result), flush=True)
    print("\n" + "\n".join(_table(results)))
    peak = max((result.get("peak_mib", 0) for result in results), default=0)
    print(f"\n{time.perf_counter() - start:.0f} s, largest peak memory {peak:.0f} MiB")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 1 if any(result["status"] == "FAIL" for result in results) else 0


_OPTIONS = ("engine", "dtype", "mode", "quantized", "level")


def _table(results: list[dict[str, Any]]) -> list[str]:
    """How many came out how, by the kind that the index says."""
    lines = [
        "| kind | models | verified | with fresh points | refused | failed |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for kind in sorted({result["index_kind"] for result in results}):
        mine = [result for result in results if result["index_kind"] == kind]
        statuses = [result["status"] for result in mine]
        fresh = sum(result.get("points_held", 0) > 0 for result in mine)
        counts = (statuses.count("ok"), fresh, statuses.count("refused"), statuses.count("FAIL"))
        lines.append(f"| {kind} | {len(mine)} | " + " | ".join(map(str, counts)) + " |")
    return lines


def _in_process(arguments: argparse.Namespace, model: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, str(arguments.folder), "--one", json.dumps(model)]
    for name in _OPTIONS:
        command += [f"--{name}", getattr(arguments, name)]
    about = {"name": model["name"], "index_kind": model["kind"]}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired:
        return {**about, "status": "FAIL", "error": "no answer within 600 s"}
    if done.returncode == 0:
        return {**about, **json.loads(done.stdout.splitlines()[-1])}
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return {**about, "status": "FAIL", "error": last}


def run_one(folder: Path, model: dict[str, Any], level: str, **options: str) -> dict[str, Any]:
    """Linearise one model at its input and report."""
    import ilin

    try:
        return _answered(folder, model, level, options)
    except ilin.IlinError as error:
        return {"status": "refused", "error": f"{type(error).__name__}: {error}"}


def _answered(folder: Path, model: dict[str, Any], level: str, options: dict[str, str]) -> dict[str, Any]:
    import numpy as np

    import ilin
    from ilin.runtime.memory import peak

    x = input_of(folder, model)
    start = time.perf_counter()
    compiled = ilin.compile(folder / model["file"], **options)  # type: ignore[arg-type]
    ready = time.perf_counter()
    entries = (model["n_float_inputs"] or 0) * (model["n_outputs"] or 0)
    affine = compiled.at(x, rows="all" if entries <= 2e7 else min(3, model["n_outputs"]))
    done = time.perf_counter()
    certificate = affine.certify_deeply() if level == "deep" else affine.certificate
    checked = time.perf_counter()
    return {
        "status": "ok" if certificate.verified else "FAIL",
        "reason": certificate.reason,
        "kind": str(affine.kind),
        "shape": list(affine.W.shape),
        "nonzero": int(np.count_nonzero(affine.W)) if isinstance(affine.W, np.ndarray) else affine.W.nnz,
        "step_over_bound": certificate.steps and certificate.steps.worst,
        "at_x": certificate.at_x,
        "at_x_over_bound": certificate.at_x_over_bound,
        "in_region": certificate.in_region,
        "in_region_over_bound": certificate.in_region_over_bound,
        "points_held": certificate.points_held,
        "points_tried": certificate.points_tried,
        "ties": certificate.ties,
        "compile_s": ready - start,
        "at_s": done - ready,
        "certificate_s": checked - done,
        "peak_mib": (peak() or 0) / 2**20,
    }


def input_of(folder: Path, model: dict[str, Any]) -> Any:
    """The input of a model of the index."""
    import numpy as np
    import onnx

    files = model["input_files"]
    stacked = [name for name in files if name.endswith(".npz")]
    if not stacked:
        return np.load(folder / files[0])
    proto = onnx.load(folder / model["file"], load_external_data=False)
    weights = {tensor.name for tensor in proto.graph.initializer}
    names = [put.name for put in proto.graph.input if put.name not in weights]
    with np.load(folder / stacked[0]) as values:
        return {name: values[f"in{i}"] for i, name in enumerate(names)}


def _line(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{result['status']} {result['name']}: {result['error']}"
    steps = "" if result["step_over_bound"] is None else f"steps {result['step_over_bound']:.2f}  "
    return (
        f"{result['status']:4s} {result['name']:45s} {result['kind']:17s} "
        f"{'×'.join(map(str, result['shape'])):>15s}  {steps}"
        f"x {result['at_x']:.1e} ({result['at_x_over_bound']:.2f})  "
        f"around {result['in_region']:.1e} ({result['in_region_over_bound']:.2f}) "
        f"{result['points_held']}/{result['points_tried']}  {result['at_s']:.2f} + "
        f"{result['certificate_s']:.2f} s {result['peak_mib']:.0f} MiB {result['reason']}"
    )


if __name__ == "__main__":
    sys.exit(main())
