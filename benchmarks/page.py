"""docs/performance.md from the results: every figure in it is computed here, and none is typed."""

from __future__ import annotations

import math
from typing import Any

Results = dict[str, Any]
OURS = ("ilin", "ilin[fast]")


def page(results: Results, folder: str, pictures: list[str]) -> str:
    """The page as Markdown.

    Args:
        results: what `run.py` wrote to results.json.
        folder: where the pictures lie, relative to the page.
        pictures: their file names.
    """
    parts = [_head(results)]
    if results["cases"]:
        parts += [_summary(results["cases"]), _picture(folder, pictures, "comparison.png", _COMPARISON)]
        parts += [_HOW, "## Each case", *(_case(case) for case in results["cases"])]
    if not results["complete"]:
        parts.insert(1, _STOPPED)
    if results["growth"]:
        parts.append(_GROWTH)
        parts += [_growth(series, folder, pictures) for series in results["growth"]]
    parts.append(_versions(results))
    return "\n\n".join(part for part in parts if part) + "\n"


# -- text ----------------------------------------------------------------------------------------------------

_COMPARISON = "Milliseconds of one answer for every case and side, on a logarithmic axis"

_HOW = """“ilin” is a plain installation, “ilin[fast]” the one with numba. **Map** is W and b;
**verified** adds the certificate: the whole map at x and at a fresh point of the region, against
onnxruntime. No peer has a counterpart of that, and of the peers only relucent gives b. A ratio is the time
of the fastest peer over ilin's, median of the rounds: above 1 ilin is faster. Floor: what ilin's plan
multiplies and adds, dead units included, over the rate of the matrix product above; the run of the model
itself, which finds the active units, comes on top. First answer: reading the model, compiling what is
compiled and one answer. Peak memory: the most that was resident in that side's process, its packages
included; in brackets, what its packages alone take."""

_STOPPED = (
    "**The run was stopped before its end: cases and series that are not listed here were not measured.**"
)

_GROWTH = """## How it grows

Filled marks: W and b. Open marks: verified. Grey: the floor, which is what ilin's plan multiplies and adds
divided by the rate of a large float32 matrix product on the same two threads. It counts arithmetic only;
where the plan counts dense work, an engine that leaves dead units out can be faster than that."""


def _head(results: Results) -> str:
    machine = results["machine"]
    return f"""# Performance

<!-- Written by benchmarks/run.py from {_code("results.json")}; edit the script instead. -->

Measured on {results["date"]} on {machine["threads"]} threads of {machine["processor"]} ({machine["system"]},
{machine["memory_bytes"] / 2**30:.0f} GiB), where a float32 matrix product reaches \
{results["multiply_adds_per_second"] / 1e9:.0f} billion multiply-adds a second, by

<!-- not run: an hour -->
```sh
{results["command"]}
```

All sides alternate in one run, each in its own process, with a fresh x every round; the figures are medians.
Every W was compared with ilin's before it was timed. `benchmarks/README.md` says how to repeat it.\
{_remark(results)}"""


def _remark(results: Results) -> str:
    """What whoever measured has to add, as `remark` in the JSON."""
    return f"\n\n{results['remark']}" if results.get("remark") else ""


def _summary(cases: list[Results]) -> str:
    rows = []
    for case in cases:
        peer = _fastest_peer(case)
        cells = [case["case"], "none" if peer is None else f"{peer['side']} {_time(peer['median_s'])}"]
        for name in OURS:
            side, ratio = _side(case, name), case["ratios"].get(name)
            if side is None:
                cells += ["", "", ""]
                continue
            cells += [
                _time(side["median_s"])
                + ("" if side["median_verified_s"] is None else f" / {_time(side['median_verified_s'])}"),
                "" if ratio is None else _number(ratio["map"]),
                "" if ratio is None or ratio["verified"] is None else _number(ratio["verified"]),
            ]
        rows.append(cells)
    return _table(
        [
            *("case", "fastest peer"),
            *("ilin: map / verified", "ratio", "verified"),
            *("ilin[fast]: map / verified", "ratio", "verified"),
        ],
        rows,
        right=(1, 2, 3, 4, 5, 6, 7),
    )


def _case(case: Results) -> str:
    rows = [
        [
            side["side"],
            _options(side["options"]),
            _time(side["median_s"]),
            "" if side["median_verified_s"] is None else _time(side["median_verified_s"]),
            "" if side.get("floor_s") is None else _time(side["floor_s"]),
            _time(side["ready_s"]),
            f"{_mebibytes(side['peak_bytes'])} ({_mebibytes(side['base_bytes'])})",
            "" if side["deviation"] is None else f"{side['deviation']:.0e}",
            str(len(side["seconds"])),
        ]
        for side in case["sides"]
    ]
    lines = [f"### {case['case']}", "", _about(case), ""]
    lines.append(
        _table(
            [
                *("side", "how", "map", "verified", "floor", "first answer"),
                *("peak memory, MiB", "W off by", "rounds"),
            ],
            rows,
            right=(2, 3, 4, 5, 6, 7, 8),
        )
    )
    if case["skipped"]:
        lines += ["", "Left out: " + "; ".join(f"{n}: {why}" for n, why in case["skipped"].items()) + "."]
    return "\n".join(lines)


def _about(case: Results) -> str:
    what = f"K = {case['K']:,} rows, N = {case['N']:,} inputs"
    if case["points"]:
        what += f", {case['points']} points"
    what += f"; {case['active']:.0%} of the hidden units are active at the first x"
    if case["shifts"]:
        what += (
            f" (their biases shifted, layer by layer, by {', '.join(f'{s:+.3f}' for s in case['shifts'])})"
        )
    for side in case["sides"]:
        facts = side["facts"]
        if facts.get("multiply_adds"):
            passes = f" in {facts['passes']:,} passes" if facts.get("passes") else ""
            what += (
                f"; {side['side']}'s plan: {facts['engine']}, "
                f"{facts['multiply_adds'] / 1e6:,.0f} million multiply-adds{passes}"
            )
    return what + "."


def _growth(series: Results, folder: str, pictures: list[str]) -> str:
    names = [
        name for name in (*OURS, "torch") if any(_side(point, name) is not None for point in series["points"])
    ]
    rows = []
    for point in series["points"]:
        row = [f"{point['value']:,g}"]
        for name in names:
            side = _side(point, name)
            if side is None:
                row += ["", ""]
                continue
            verified = side["median_verified_s"]
            row += [
                _time(side["median_s"]) + ("" if verified is None else f" / {_time(verified)}"),
                _mebibytes(side["peak_bytes"]),
            ]
        ours = _side(point, OURS[1]) or _side(point, OURS[0])
        floor = None if ours is None else ours["floor_s"]
        rows.append([*row, "" if floor is None else _time(floor)])
    header = [series["axis"]]
    for name in names:
        header += [name + (": map / verified" if name in OURS else ": map"), "MiB"]
    table = _table([*header, "floor"], rows, right=range(1 + 2 * len(names) + 1))
    picture = _picture(
        folder, pictures, f"growth-{series['name']}.png", f"Time and memory against {series['axis']}"
    )
    return f"### {series['axis']}: {series['network']}\n\n{picture}\n\n{table}"


def _versions(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return f"Versions: Python {results['machine']['python']}, {versions}."


# -- parts ---------------------------------------------------------------------------------------------------


def _side(case: Results, name: str) -> Results | None:
    return next((side for side in case["sides"] if side["side"] == name), None)


def _fastest_peer(case: Results) -> Results | None:
    peers = [side for side in case["sides"] if side["side"] not in OURS]
    return min(peers, key=lambda side: float(side["median_s"]), default=None)


def _options(options: Results) -> str:
    written = (
        f"{value}" if key in ("call", "backend") else f"{key} {'all' if value is None else value}"
        for key, value in options.items()
    )
    return ", ".join(written)


def _table(header: list[str], rows: list[list[str]], right: range | tuple[int, ...] = ()) -> str:
    rule = ["--:" if column in right else "---" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _picture(folder: str, pictures: list[str], name: str, text: str) -> str:
    return f"![{text}]({folder}/{name})" if name in pictures else ""


def _time(seconds: float) -> str:
    """Three significant digits, in milliseconds or seconds."""
    return f"{_number(seconds * 1e3)} ms" if seconds < 1 else f"{_number(seconds)} s"


def _number(value: float) -> str:
    """Three significant digits at least, and no exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f}"


def _code(text: str) -> str:
    return f"`{text}`"
