"""ilin: from an ONNX model and one input to the exact affine map F(z) = W z + b around it.

import ilin

affine = ilin.linearize("model.onnx", x)
affine.W, affine.b            # (K, N) and (K,)
affine.contributions(3)       # what each input entry adds to output 3

Rules for operators of your own: docs/custom-operators.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .compiler.pipeline import CompiledModel, compile, linearize
    from .compiler.plan import Plan
    from .ops._rule import Local, Site, between, jumps, locally_constant, lowers, side_of, sign_of, threshold
    from .ops._smooth import elementwise, tangent
    from .runtime import primitives
    from .runtime.affine_map import AffineMap, load
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
    from .runtime.layer import Layer
    from .runtime.ledger import Ledger
    from .runtime.program import Guard, HalfSpaces, Kind
    from .runtime.recheck import Verification, verify
    from .runtime.region import Radius, Region
    from .runtime.spectrum import Spectrum
    from .runtime.ties import Ties
    from .runtime.views import FeatureTrace, LayerView, Units

__all__ = [
    "AffineMap",
    "Certificate",
    "CompiledModel",
    "FeatureTrace",
    "Guard",
    "HalfSpaces",
    "IlinError",
    "InputError",
    "Kind",
    "Layer",
    "LayerView",
    "Ledger",
    "Local",
    "MemoryLimitError",
    "ModelError",
    "NonFiniteError",
    "OptionError",
    "OutputError",
    "Plan",
    "Radius",
    "Region",
    "RowsError",
    "Site",
    "Spectrum",
    "Ties",
    "Units",
    "UnknownTensorError",
    "UnsupportedError",
    "Verification",
    "__version__",
    "between",
    "compile",
    "elementwise",
    "jumps",
    "linearize",
    "load",
    "locally_constant",
    "lowers",
    "primitives",
    "side_of",
    "sign_of",
    "tangent",
    "threshold",
    "verify",
]

_HOMES = {
    ".compiler.pipeline": {"CompiledModel", "compile", "linearize"},
    ".compiler.plan": {"Plan"},
    ".ops._rule": {"Local", "Site", "jumps", "locally_constant", "lowers"}
    | {"between", "side_of", "sign_of", "threshold"},
    ".ops._smooth": {"elementwise", "tangent"},
    ".runtime.affine_map": {"AffineMap", "load"},
    ".runtime.certificate": {"Certificate"},
    ".runtime.layer": {"Layer"},
    ".runtime.ledger": {"Ledger"},
    ".runtime.program": {"Guard", "HalfSpaces", "Kind"},
    ".runtime.recheck": {"Verification", "verify"},
    ".runtime.region": {"Radius", "Region"},
    ".runtime.spectrum": {"Spectrum"},
    ".runtime.ties": {"Ties"},
    ".runtime.views": {"FeatureTrace", "LayerView", "Units"},
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: what only wants a part waits for no more."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "primitives":
        return import_module(".runtime.primitives", __name__)
    home = next((module for module, names in _HOMES.items() if name in names), ".runtime.errors")
    value = globals()[name] = getattr(import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
