"""Sweep a folder of ONNX models with inputs: does the map hold at x and around x, how fast, how big?

    python benchmarks/real_models.py ../shared/models [--kind affine --kind "piecewise linear"]

The folder has an INDEX.json, a list of {name, file, kind, input_files, ort: {runs}, …}. Each model runs in
its own process, so that its peak memory can be told. All rows where K·N is at most 2·10⁷, else the top 3.
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
        "--kind", action="append", help="kinds of the index to run (default: affine, piecewise linear)"
    )
    parser.add_argument("--only", help="run only names that contain this")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(
            json.dumps(
                run_one(arguments.folder, json.loads(arguments.one), arguments.engine, arguments.dtype)
            )
        )
        return 0
    kinds = arguments.kind or ["affine", "piecewise linear"]
    index = json.loads((arguments.folder / "INDEX.json").read_text())
    chosen = [
        m
        for m in index
        if m["kind"] in kinds and m["ort"].get("runs") and (arguments.only or "") in m["name"]
    ]
    results, start = [], time.perf_counter()
    for model in chosen:
        result = _in_process(arguments, model)
        results.append(result)
        print(_line(result), flush=True)
    held = sum(result["verified"] for result in results)
    inside = sum(result.get("points_held", 0) > 0 for result in results)
    peak = max((result.get("peak_mib", 0) for result in results), default=0)
    print(
        f"{held} of {len(results)} verified at x and around x ({inside} with fresh points of the region), "
        f"{time.perf_counter() - start:.0f} s, largest peak memory {peak:.0f} MiB"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0 if held == len(results) else 1


def _in_process(arguments: argparse.Namespace, model: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, str(arguments.folder), "--engine", arguments.engine]
    command += ["--dtype", arguments.dtype, "--one", json.dumps(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return {"name": model["name"], "verified": False, "error": last}


def run_one(folder: Path, model: dict[str, Any], engine: str, dtype: str) -> dict[str, Any]:
    """Linearise one model at its input and report."""
    import numpy as np

    import ilin
    from ilin.runtime.memory import peak

    x = input_of(folder, model)
    start = time.perf_counter()
    compiled = ilin.compile(folder / model["file"], engine=engine, dtype=dtype)  # type: ignore[arg-type]
    ready = time.perf_counter()
    entries = model["n_float_inputs"] * model["n_outputs"]
    affine = compiled.at(x, rows="all" if entries <= 2e7 else min(3, model["n_outputs"]))
    done = time.perf_counter()
    certificate = affine.certificate
    return {
        "name": model["name"],
        "verified": certificate.verified,
        "reason": certificate.reason,
        "kind": str(affine.kind),
        "shape": list(affine.W.shape),
        "nonzero": int(np.count_nonzero(affine.W)) if isinstance(affine.W, np.ndarray) else affine.W.nnz,
        "step_over_bound": certificate.steps.worst,
        "at_x": certificate.at_x,
        "at_x_over_bound": certificate.at_x_over_bound,
        "in_region": certificate.in_region,
        "in_region_over_bound": certificate.in_region_over_bound,
        "points_held": certificate.points_held,
        "points_tried": certificate.points_tried,
        "ties": certificate.ties,
        "compile_s": ready - start,
        "at_s": done - ready,
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
        return f"FAIL {result['name']}: {result['error']}"
    return (
        f"{'ok' if result['verified'] else 'FAIL':4s} {result['name']:45s} {result['kind']:17s} "
        f"{'×'.join(map(str, result['shape'])):>15s}  steps {result['step_over_bound']:.2f}  "
        f"x {result['at_x']:.1e} ({result['at_x_over_bound']:.2f})  "
        f"around {result['in_region']:.1e} ({result['in_region_over_bound']:.2f}) "
        f"{result['points_held']}/{result['points_tried']}  {result['at_s']:.2f} s "
        f"{result['peak_mib']:.0f} MiB {result['reason']}"
    )


if __name__ == "__main__":
    sys.exit(main())
