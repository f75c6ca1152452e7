"""ilin beside its peers, in one run: medians, ratios, peak memory, and how all of it grows.

    python benchmarks/run.py [--only NAME] [--rounds 7] [--growth] [--resume] [--out docs/performance]

Every side runs in a process of its own, with two threads, at the fastest of its options (jacrev's chunk
sizes, onnx-ad's seeds in one run, …), which are tried first. Each side's W is compared with ilin's before
anything is timed. Then all sides alternate, with a fresh x in each round. ilin is timed as it is installed by
default and with the extra `[fast]`; both as W and b alone, and verified against onnxruntime (`.certificate`).
Peers that are not installed are left out, and it is said so; benchmarks/README.md lists what to install.

Results go to OUT/results.json, pictures to OUT/*.png and the page to OUT.md. The JSON is written after each
case, so that a run that is interrupted loses nothing; `--resume` goes on with the cases that it lacks.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
from cases import CASES, SERIES
from sides import SIDES


def main() -> int:
    """Parse the command line, and measure."""
    arguments = _arguments()
    needed = ("matplotlib",) if arguments.page else ("matplotlib", "torch", "ilin")
    for package in (package for package in needed if find_spec(package) is None):
        print(f"{package} is not installed; benchmarks/README.md says what to install", file=sys.stderr)
        return 2
    if not arguments.page:
        _measure(arguments)
    import page
    import pictures

    results = json.loads((arguments.out / "results.json").read_text())
    drawn = pictures.draw(results, arguments.out)
    arguments.out.with_suffix(".md").write_text(page.page(results, arguments.out.name, drawn))
    print(f"\nwrote {arguments.out}/results.json, {len(drawn)} pictures and {arguments.out}.md")
    return 0


def _measure(arguments: argparse.Namespace) -> None:
    machine.two_threads()  # before numpy is imported
    from compare import Limits, compare
    from growth import grow, with_floors

    sides = tuple(name for name in SIDES if not arguments.sides or name in arguments.sides)
    rate = machine.multiply_adds_per_second()
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]]),
        "machine": machine.facts(),
        "multiply_adds_per_second": rate,
        "versions": {},
        "complete": False,
        "cases": [],
        "growth": [],
    }
    print(
        f"{results['machine']['processor']}, matrix product {rate / 1e9:.0f} billion multiply-adds/s, float32"
    )
    if arguments.resume and (before := arguments.out / "results.json").exists():
        results = json.loads(before.read_text())
        rate = results["multiply_adds_per_second"]
    done = {found["case"] for found in results["cases"]} | {found["name"] for found in results["growth"]}
    save = _saver(results, arguments.out / "results.json")
    limits = Limits(rounds=arguments.rounds, seconds=arguments.seconds)
    for case in CASES:
        if arguments.only in case.name and case.name not in done and not arguments.only_growth:
            found = with_floors(compare(case, sides, limits, arguments.engine, _log), case, rate)
            results["versions"] |= found.pop("versions")
            results["cases"].append(found)
            save()
            for name, ratio in found["ratios"].items():
                print(f"  {ratio['peer']} takes {ratio['map']:.2f} times {name}'s time, "
                      f"{ratio['verified']:.2f} times with its verification", flush=True)  # fmt: skip
    for series in SERIES if arguments.growth or arguments.only_growth else ():
        wanted = arguments.only in series.name or arguments.only in series.network
        if wanted and series.name not in done:
            found = grow(series, rate, arguments.engine, _log)
            for point in found["points"]:
                results["versions"] |= point.pop("versions")
            results["growth"].append(found)
            save()
    results["complete"] = True
    save()
    print("\n" + ", ".join(f"{name} {version}" for name, version in results["versions"].items()))


def _log(line: str) -> None:
    print(line, flush=True)


def _saver(results: dict[str, Any], path: Path) -> Callable[[], None]:
    path.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")

    save()
    return save


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="NAME", help="cases and series whose name contains this"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each case (default: 7)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=15.0,
        help="a side that was measured for so long takes part in no more rounds, after two (default: 15)",
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="run only these sides")
    parser.add_argument("--engine", default="auto", help="ilin's engine (default: auto)")
    parser.add_argument("--growth", action="store_true", help="also measure how time and memory grow")
    parser.add_argument("--only-growth", action="store_true", help="measure nothing else")
    parser.add_argument(
        "--resume", action="store_true", help="keep what OUT/results.json has, and measure only what it lacks"
    )
    parser.add_argument("--page", action="store_true", help="measure nothing: draw OUT/results.json again")
    parser.add_argument("--out", type=Path, default=Path("docs/performance"), help="(default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
