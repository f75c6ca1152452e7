"""ilin: from an ONNX model and one input to the exact affine map F(z) = W z + b around it.

import ilin

affine = ilin.linearize("model.onnx", x)
affine.W, affine.b            # (K, N) and (K,)
affine.contributions(3)       # what each input entry adds to output 3
"""

from __future__ import annotations

from ._version import __version__
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
