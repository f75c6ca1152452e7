"""A map of one output on matplotlib: an image in diverging colours, bars, or the largest entries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.affine_map import AffineMap
from ..runtime.arrays import Array, unstack
from ..runtime.errors import InputError, OptionError
from ..runtime.files import write_whole
from .content import chosen
from .layouts import AUTO, Layout, layouts_of
from .maps import limit_of
from .names import Names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = {  # suffix to what keeps the file free of the time and of random names
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
_UP, _DOWN = "#b2182b", "#2166ac"  # the page's


def plot(
    affine: AffineMap,
    row: int | None = None,
    *,
    against: int | None = None,
    weights: bool = False,
    input: str | None = None,
    largest: int = 20,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    layout: str = AUTO,
    ax: Axes | None = None,
) -> Axes:
    """Draw; see `AffineMap.plot`."""
    require_matplotlib()
    layouts = layouts_of(affine.input_shapes, layout)
    names = Names.of(affine.output_shapes, affine.input_shapes, layouts, class_names, feature_names)
    top, _ = chosen(affine, row, against)
    title = names.output(int(affine.rows[top]))
    if against is not None:
        title = f"{title} against {names.output(int(affine.rows[against]))}"
    ledger = affine.ledger(top, against=against)
    flat = ledger.slopes if weights else ledger.flat
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(layout="constrained")[1]
    ax.set_title(_plain(f"{'weights of' if weights else 'what the input adds to'} {title}"))
    if input is not None and input not in layouts:
        raise InputError(f"no input {input!r}; the map's inputs: {', '.join(layouts)}")
    if input is None and len(layouts) > 1:
        _entries(ax, flat, np.arange(len(flat)), names, largest)
        return ax
    name = input if input is not None else next(iter(layouts))
    places = unstack(np.arange(len(flat)), affine.input_shapes)[name].ravel()
    _one_input(ax, flat[places], places, layouts[name], names, largest)
    return ax


def save_plot(affine: AffineMap, path: Path, **settings: Any) -> None:
    """Draw the map of the largest output into a file, the same bytes for the same map.

    Args:
        affine: the map.
        path: with a suffix of `FORMATS`.
        settings: of `plot`.

    Raises:
        OptionError: another suffix, or matplotlib is missing.
        OutputError: the path cannot be written.
    """
    suffix = require_format(path)
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    plot(affine, ax=figure.subplots(), **settings)
    with rc_context({"svg.hashsalt": "ilin"}):
        write_whole(
            path, lambda file: figure.savefig(file, format=suffix.lstrip("."), metadata=FORMATS[suffix])
        )


def require_format(path: Path) -> str:
    """The suffix of a picture's path, in lower case.

    Raises:
        OptionError: no format that is written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise OptionError(f"a plot is written as {', '.join(FORMATS)}, not as {path.name!r}")
    return suffix


def require_matplotlib() -> None:
    """Refuse where matplotlib is missing.

    Raises:
        OptionError: naming the command that installs it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OptionError(
            "a plot needs matplotlib, which is not installed: pip install 'ilin[plot]'"
        ) from error


def _one_input(ax: Axes, flat: Array, places: Array, layout: Layout, names: Names, largest: int) -> None:
    values = layout.ordered(flat)
    if layout.form == "image":
        added = values.sum(axis=0)
        limit = limit_of(added)
        image = ax.imshow(added, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        beyond = float(np.abs(added).max()) > limit
        ax.figure.colorbar(image, ax=ax, extend="both" if beyond else "neither")
        ax.set_xlabel("column")
        ax.set_ylabel("row")
    elif layout.form == "sequence":
        added = values.reshape(-1, values.shape[-1]).sum(axis=0)
        steps = np.arange(len(added))
        ax.fill_between(steps, np.maximum(added, 0), step="mid", color=_UP, linewidth=0)
        ax.fill_between(steps, np.minimum(added, 0), step="mid", color=_DOWN, linewidth=0)
        ax.axhline(0, color="0.5", linewidth=0.8)
        ax.set_xlabel("step")
    else:
        _entries(ax, flat, places, names, largest)


def _entries(ax: Axes, flat: Array, places: Array, names: Names, largest: int) -> None:
    """Bars of the largest entries, the largest at the top."""
    order = [int(j) for j in np.argsort(-np.abs(flat), kind="stable")[:largest] if flat[j]]
    amounts = flat[order]
    ax.barh(range(len(order)), amounts, color=np.where(amounts > 0, _UP, _DOWN))
    ax.set_yticks(range(len(order)), [_plain(names.entry(int(places[j]))) for j in order])
    ax.invert_yaxis()
    ax.axvline(0, color="0.5", linewidth=0.8)


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
