"""One file for each operator, or tight family: its lowering rule. Importing this package finds them all.

To add an operator, write one file here; see CONTRIBUTING.md.
"""

from importlib import import_module
from pkgutil import iter_modules

from ..runtime.program import Guard
from ._rule import (
    EXPLANATIONS,
    REGISTRY,
    Entry,
    Local,
    Operand,
    Reading,
    Site,
    explains,
    lowers,
    registered_by_others,
    stays,
)

__all__ = [
    "EXPLANATIONS",
    "REGISTRY",
    "Entry",
    "Guard",
    "Local",
    "Operand",
    "Reading",
    "Site",
    "explains",
    "lowers",
    "registered_by_others",
    "stays",
]

for _module in iter_modules(__path__):
    if not _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")
