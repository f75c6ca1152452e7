"""One self-contained HTML page about one map: no script, nothing loaded, the same bytes for the same map."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.affine_map import AffineMap
from ..runtime.errors import OptionError
from ..runtime.files import write_whole
from ..runtime.text import shortened
from .content import content_of
from .layouts import AUTO, layouts_of
from .names import Names

if TYPE_CHECKING:
    from jinja2 import Environment

_NAME = 64  # characters of a layer's name that a table shows; the data at the page's end hold all
TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    affine: AffineMap,
    path: str | os.PathLike[str],
    *,
    row: int | None = None,
    against: int | None = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    layout: str = AUTO,
    command: str | None = None,
) -> None:
    """Write the page; see `AffineMap.report`."""
    text = rendered(
        affine,
        row=row,
        against=against,
        class_names=class_names,
        feature_names=feature_names,
        layout=layout,
        command=command,
    )
    write_whole(Path(path), lambda file: file.write(text.encode()))


def rendered(
    affine: AffineMap,
    *,
    row: int | None,
    against: int | None,
    class_names: Sequence[str] | None,
    feature_names: Sequence[str] | None,
    layout: str,
    command: str | None,
) -> str:
    """The page as text."""
    templates = _templates()
    from .document import document_of, embedded
    from .figures import shown_of
    from .maps import colour_bar

    layouts = layouts_of(affine.input_shapes, layout)
    names = Names.of(affine.output_shapes, affine.input_shapes, layouts, class_names, feature_names)
    content = content_of(affine, names, row, against, command)
    shown = [
        shown_of(name, layouts[name], affine.inputs[name], columns, content)
        for name, columns in _columns(affine)
    ]
    page = templates.get_template("report.html")
    document = embedded(document_of(content, affine))
    text: str = page.render(content=content, shown=shown, colour_bar=colour_bar(), document=document)
    return text


def require_extra() -> None:
    """Refuse where the libraries of the extra are missing.

    Raises:
        OptionError: naming the command that installs them.
    """
    try:
        import jinja2  # noqa: F401
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f"a report needs {(error.name or 'jinja2').split('.')[0]}, which is not installed: "
            "pip install 'ilin[report]'"
        ) from error


def _templates() -> Environment:
    require_extra()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from . import numbers, words

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(data=numbers.data, number=numbers.number, percent=numbers.percent)
    environment.filters["short"] = lambda name: shortened(name, _NAME)
    environment.globals.update(words=words)
    return environment


def _columns(affine: AffineMap) -> Iterator[tuple[str, slice]]:
    """Each input's columns of W."""
    start = 0
    for name, shape in affine.input_shapes.items():
        size = math.prod(shape)
        yield name, slice(start, start + size)
        start += size
