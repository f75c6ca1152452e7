"""What a certificate costs beside its map: at each case, the map, the default certificate and the deep one.

    python benchmarks/certificates.py [--only TEXT] [--rounds N] [--deep]

Medians over fresh points x in milliseconds, and of the ratio to the map of the same x. What is made once for
a model, such as sessions, is made before the clock runs. Needs torch, which makes the networks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES, Case
from compare import SETTLE

LARGEST = 100  # rows: beyond, a map takes minutes


def main() -> int:
    """Print one row for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--deep", action="store_true", help="time the deep certificate as well")
    arguments = parser.parse_args()
    print("| case | map, ms | certificate, ms | of the map | " + ("deep, ms | " if arguments.deep else ""))
    print("|---" * (5 if arguments.deep else 4) + "|")
    for case in CASES:
        if arguments.only in case.name and not case.points and case.K <= LARGEST:
            print(row_of(case, arguments.rounds, deep=arguments.deep), flush=True)
    return 0


def row_of(case: Case, rounds: int, *, deep: bool) -> str:
    """Time one case."""
    import ilin

    with tempfile.TemporaryDirectory() as folder:
        compiled = ilin.compile(_exported(case, Path(folder)))
        random = np.random.default_rng(1)
        seconds: dict[str, list[float]] = {"map": [], "certificate": [], "deep": []}
        for index in range(rounds + 1):
            x = random.random(case.shape, np.float32)
            time.sleep(SETTLE)
            took, affine = _timed(lambda x=x: compiled.at(x, "all" if case.rows == "all" else 1))
            times = {"map": took, "certificate": _timed(lambda affine=affine: affine.certificate)[0]}
            if not affine.certificate.verified:
                raise SystemExit(f"{case.name}: {affine.certificate.reason}")
            if deep:
                times["deep"] = _timed(affine.certify_deeply)[0]
            for name, value in times.items() if index else ():  # the first makes what is kept
                seconds[name].append(value)
    ratios = [b / a for a, b in zip(seconds["map"], seconds["certificate"], strict=True)]
    cells = [f"{statistics.median(values) * 1e3:.1f}" for values in seconds.values() if values]
    cells.insert(2, f"{statistics.median(ratios):.2f}")
    return f"| {case.name} | " + " | ".join(cells) + " |"


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def _exported(case: Case, folder: Path) -> Path:
    import torch
    from networks import exported

    example = torch.from_numpy(np.random.default_rng(1).random(case.shape, np.float32))
    (folder / "model.onnx").write_bytes(exported(case.make(), example))
    return folder / "model.onnx"


if __name__ == "__main__":
    raise SystemExit(main())
