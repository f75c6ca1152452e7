"""Pictures of the results, in Okabe and Ito's colours, which colour-blind readers can tell apart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE: dict[str, tuple[str, str]] = {  # side → colour, marker
    "ilin": ("#0072B2", "o"),
    "ilin[fast]": ("#D55E00", "s"),
    "torch": ("#000000", "^"),
    "jax": ("#009E73", "v"),
    "onnx-ad": ("#CC79A7", "D"),
    "relucent": ("#E69F00", "P"),
}
FLOOR = "#999999"
OPEN: dict[str, Any] = {"mfc": "none", "ms": 10, "mew": 1.5}  # verified; seen around a filled mark, too


def draw(results: dict[str, Any], folder: Path) -> list[str]:
    """Draw everything there are results of; the names of the files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "axes.axisbelow": True,
            "legend.frameon": False,
        }
    )
    drawn = []
    if results["cases"]:
        drawn.append(_saved(_comparison(results["cases"]), folder / "comparison.png"))
    drawn += [_saved(_growth(each), folder / f"growth-{each['name']}.png") for each in results["growth"]]
    return drawn


def _comparison(cases: list[dict[str, Any]]) -> Any:
    """One row for each case: how many times ilin's own time every side takes, and ilin's verified answer."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.42 * len(cases)), layout="constrained")
    labelled: set[str] = set()
    for row, case in enumerate(cases):
        for side in case["sides"]:
            colour, marker = STYLE[side["side"]]
            label = "_" if side["side"] in labelled else side["side"]
            labelled.add(side["side"])
            if side["median_verified_s"] is not None:
                axes.plot(side["median_verified_s"] * 1e3, row, marker, color=colour, **OPEN)
            axes.plot(side["median_s"] * 1e3, row, marker, color=colour, label=label, ms=6)
    axes.plot([], [], "o", color="#555555", label="the same, verified", **OPEN)
    axes.set_xscale("log")
    axes.set_yticks(range(len(cases)), [case["case"] for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xlabel("milliseconds of one answer, median")
    _plain_ticks(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=7, columnspacing=1.2)
    return figure


def _growth(series: dict[str, Any]) -> Any:
    """Time with its floor on the left, peak memory on the right."""
    import matplotlib.pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    floors: list[list[float]] = []
    for name, (colour, marker) in STYLE.items():
        mine = [
            (point["value"], side)
            for point in series["points"]
            for side in point["sides"]
            if side["side"] == name
        ]
        if not mine:
            continue
        values = [value for value, _ in mine]
        if all(side["median_verified_s"] for _, side in mine):
            verified = [side["median_verified_s"] * 1e3 for _, side in mine]
            time.plot(values, verified, marker + ":", color=colour, label=f"{name}, verified", **OPEN)
        time.plot(
            values, [side["median_s"] * 1e3 for _, side in mine], marker + "-", color=colour, label=name
        )
        memory.plot(values, [side["peak_bytes"] / 2**20 for _, side in mine], marker + "-", color=colour)
        floor = [side["floor_s"] and side["floor_s"] * 1e3 for _, side in mine]
        if all(floor) and floor not in floors:
            dashes = (0, (2, 2)) if floors else (0, (6, 3))
            time.plot(values, floor, color=FLOOR, ls=dashes, label=f"floor of {name}'s plan")
            floors.append(floor)
    for axes, label in ((time, "milliseconds, median"), (memory, "peak memory of the process, MiB")):
        axes.set_xlabel(series["axis"])
        axes.set_ylabel(label)
        if series["name"] != "activity":
            axes.set_xscale("log")
        axes.set_xticks([point["value"] for point in series["points"]], minor=False)
        axes.minorticks_off()
    time.set_yscale("log")
    memory.set_ylim(0)
    for axes in (time, memory):
        _plain_ticks(axes)
    handles, labels = time.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    figure.suptitle(series["network"], x=0.02, ha="left", fontsize=11)
    return figure


def _plain_ticks(axes: Axes) -> None:
    """Write 1,000 rather than 10³."""
    from matplotlib.ticker import FuncFormatter

    def written(value: float, _: int) -> str:
        if value >= 1 or value <= 0:
            return f"{value:,.0f}"
        return f"{value:.{max(0, -math.floor(math.log10(value)))}f}"

    axes.xaxis.set_major_formatter(FuncFormatter(written))
    if axes.get_yscale() == "log" or axes.get_ylim()[1] > 1000:
        axes.yaxis.set_major_formatter(FuncFormatter(written))


def _saved(figure: Any, path: Path) -> str:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path.name
