"""What `--report` and `--plot` write, for one instance after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..report.layouts import AUTO, ENTRIES, layouts_of, parsed
from ..report.names import Names, read_names
from ..runtime.affine_map import AffineMap
from ..runtime.primitives import Shape
from .destination import numbered


@dataclass(frozen=True)
class Pages:
    """The pages and pictures of one run, checked before anything is computed."""

    report: Path | None = None
    plot: Path | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    layout: str = AUTO
    command: str = ""

    @classmethod
    def checked(
        cls,
        report: Path | None,
        plot: Path | None,
        class_names: Path | None,
        feature_names: Path | None,
        layout: str,
        command: str,
    ) -> Pages:
        """Read the names, and refuse what could not be written in the end.

        Raises:
            InputError: names that cannot be read.
            OptionError: a layout that is not understood, a picture of no known format, or a missing library.
        """
        if layout.lower() not in (AUTO, ENTRIES):
            parsed(layout)
        if report is not None:
            from ..report.page import require_extra

            require_extra()
        if plot is not None:
            from ..report.plot import require_format, require_matplotlib

            require_format(plot)
            require_matplotlib()
        classes, features = (
            None if path is None else read_names(path) for path in (class_names, feature_names)
        )
        return cls(report, plot, classes, features, layout, command)

    def require_fit(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> None:
        """Refuse names and a layout that do not fit the model.

        Args:
            inputs: shapes by name, at one point.
            outputs: likewise.

        Raises:
            OptionError: which does not.
        """
        if self.report is not None or self.plot is not None:
            layouts = layouts_of(inputs, self.layout)
            Names.of(outputs, inputs, layouts, self.class_names, self.feature_names)

    def write(self, affine: AffineMap, index: int, count: int, row: int, against: int | None) -> list[Path]:
        """Write what was asked for.

        Args:
            affine: the map.
            index: of the instance.
            count: of instances; several go to files with a number.
            row: position among the map's rows of the output to explain.
            against: of its rival, or None for the runner-up.

        Returns:
            The paths.

        Raises:
            OutputError: a path cannot be written.
        """
        settings: dict[str, Any] = {
            "row": row,
            "against": against,
            "class_names": self.class_names,
            "feature_names": self.feature_names,
            "layout": self.layout,
        }
        page, picture = (numbered(path, count)[index] for path in (self.report, self.plot))
        if page is not None:
            affine.report(page, command=self.command, **settings)
        if picture is not None:
            from ..report.plot import save_plot

            save_plot(affine, picture, **settings)
        return [path for path in (page, picture) if path is not None]
