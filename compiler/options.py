"""What may be asked of `compile`, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..runtime.errors import OptionError
from ..runtime.memory import limit_of
from ..runtime.session import require_providers
from .plan import DIRECTIONS, ENGINES

DTYPES = ("float32", "float64")
MODES = ("tangent", "frozen")
QUANTIZED = ("exact", "straight-through")


def require_options(
    *,
    engine: str,
    direction: str,
    dtype: str,
    mode: str,
    quantized: str,
    memory_limit: int | str | None,
    providers: Sequence[str] | None,
    custom_ops: Sequence[str | os.PathLike[str]],
) -> None:
    """Refuse options that nobody knows, in the order in which `compile` names them.

    Raises:
        OptionError: it names the choices.
    """
    for told, value, choices in (
        ("engine {!r}", engine, ENGINES),
        ("direction {!r}", direction, DIRECTIONS),
        ("dtype {!r}", dtype, DTYPES),
        ("mode {!r}", mode, MODES),
        ("value {!r} of quantized", quantized, QUANTIZED),
    ):
        if value not in choices:
            raise OptionError(f"unknown {told.format(value)}; choose from {', '.join(choices)}")
    limit_of(memory_limit)
    require_providers(providers)
    if isinstance(custom_ops, str | bytes | os.PathLike):
        raise OptionError(f"custom_ops must be a list of paths, not {custom_ops!r}")
