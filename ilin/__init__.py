"""ilin: from an ONNX model and one input to the exact affine map F(z) = W z + b around it.

import ilin

affine = ilin.linearize("model.onnx", x)
affine.W, affine.b            # (K, N) and (K,)
affine.contributions(3)       # what each input entry adds to output 3
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .compiler.pipeline import CompiledModel, compile, linearize
    from .runtime.affine_map import AffineMap, Layer, load
    from .runtime.certificate import Certificate
    from .runtime.errors import (
        IlinError,
        InputError,
        MemoryLimitError,
        ModelError,
        NonFiniteError,
        OptionError,
        OutputError,
        RowsError,
        UnknownTensorError,
        UnsupportedError,
    )

__all__ = [
    "AffineMap",
    "Certificate",
    "CompiledModel",
    "IlinError",
    "InputError",
    "Layer",
    "MemoryLimitError",
    "ModelError",
    "NonFiniteError",
    "OptionError",
    "OutputError",
    "RowsError",
    "UnknownTensorError",
    "UnsupportedError",
    "__version__",
    "compile",
    "linearize",
    "load",
]

_HOMES = {
    ".compiler.pipeline": {"CompiledModel", "compile", "linearize"},
    ".runtime.affine_map": {"AffineMap", "Layer", "load"},
    ".runtime.certificate": {"Certificate"},
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: what only wants a part waits for no more."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), ".runtime.errors")
    value = globals()[name] = getattr(import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
