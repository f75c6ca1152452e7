"""One file for each composite operator, or tight family: how it is written out in simpler nodes.

Importing this package finds them all. An operator needs no file here if ONNX defines it by a function body.
To add one, write a function from a `Composite` to the tensors of its outputs; see `rnn.py`.
"""

from importlib import import_module
from pkgutil import iter_modules

from ._composite import Composite, Container, Facts, Names, Tensor
from ._registry import EXPANSIONS, Expansion, expands

__all__ = ["EXPANSIONS", "Composite", "Container", "Expansion", "Facts", "Names", "Tensor", "expands"]

for _module in iter_modules(__path__):
    if not _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")
