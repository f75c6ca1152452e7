"""How much memory there is, and how much an answer would take."""

from __future__ import annotations

import re

import psutil

from .errors import OptionError

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}


def limit_of(memory_limit: int | str | None) -> int:
    """A limit in bytes, from bytes, a text such as "4GiB", or None for 80 % of what is available now."""
    if memory_limit is None:
        return int(0.8 * psutil.virtual_memory().available)
    if isinstance(memory_limit, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]i?)?b?\s*", memory_limit.lower())
        if not match:
            raise OptionError(f"memory limit {memory_limit!r} is not understood; write bytes, 500MB or 4GiB")
        memory_limit = int(float(match[1]) * _UNITS[match[2] or ""])
    if memory_limit <= 0:
        raise OptionError(f"the memory limit must be positive, not {memory_limit}")
    return int(memory_limit)


def readable(size: float) -> str:
    """Bytes in the unit that a person would choose."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def peak() -> int | None:
    """Largest resident size of this process so far, in bytes; None where the platform does not tell."""
    try:
        import resource
        import sys
    except ImportError:
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
