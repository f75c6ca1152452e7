"""What may be asked of `compile`, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import numpy as np

from ..runtime.errors import OptionError
from ..runtime.memory import limit_of
from ..runtime.session import require_providers
from .plan import DIRECTIONS, ENGINES, Direction, EngineName

DTypeName = Literal["float32", "float64"]
DType: TypeAlias = DTypeName | type[np.float32] | type[np.float64] | np.dtype[Any]
Mode = Literal["tangent", "frozen"]
Quantized = Literal["exact", "straight-through"]

DTYPES: tuple[DTypeName, ...] = get_args(DTypeName)
MODES: tuple[Mode, ...] = get_args(Mode)
QUANTIZED: tuple[Quantized, ...] = get_args(Quantized)


class Options(TypedDict, total=False):
    """The keywords of `compile`, for those who hand them on; `compile` documents each."""

    inputs: Sequence[str] | None
    outputs: Sequence[str] | None
    engine: EngineName
    direction: Direction
    dtype: DType
    mode: Mode
    quantized: Quantized
    memory_limit: int | str | None
    providers: Sequence[str] | None
    custom_ops: Sequence[str | os.PathLike[str]]


def dtype_named(dtype: object) -> object:
    """The name of a type given by its class or as numpy's dtype; anything else as it is."""
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return str(np.dtype(dtype))  # of another byte order: ">f4", which is refused
    return dtype


def require_options(
    *,
    engine: str,
    direction: str,
    dtype: object,
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
