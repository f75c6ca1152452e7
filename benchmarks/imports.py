"""What `import ilin` takes beside numpy, onnx and onnxruntime together, in fresh processes that alternate.

    python benchmarks/imports.py [--rounds 15]

The goal is a ratio of at most 1.2; ilin imports onnxruntime only when a model is compiled.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

SIDES = {
    "import ilin": "import ilin",
    "ilin and compile": "import ilin; ilin.compile",
    "numpy, onnx, onnxruntime": "import numpy, onnx, onnxruntime",
    "nothing": "pass",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="(default: 15)")
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name, code in SIDES.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    reference = medians["numpy, onnx, onnxruntime"]
    for name, median in medians.items():
        print(f"{name:26} {1e3 * median:7.0f} ms  {median / reference:5.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
