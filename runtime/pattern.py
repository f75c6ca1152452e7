"""The activation pattern as a hash: all discrete choices that the network makes at x."""

from __future__ import annotations

import hashlib

import numpy as np

from .arrays import Array
from .program import LinearProgram


def pattern_sha256(program: LinearProgram) -> str:
    """SHA-256 over the choices of all nodes in order, with their names and shapes.

    Equal for two points of one linear region, whatever type, engine or rows a map was asked for in. It costs
    one look at each choice: they are made already.
    """
    digest = hashlib.sha256()
    for owner, guard in program.guarded:
        choice = np.asarray(guard.choice)
        digest.update(f"{owner.node}\0{choice.shape}\0".encode())
        digest.update(_bytes(choice))
    return digest.hexdigest()


def _bytes(choice: Array) -> bytes:
    """A choice in a form that does not depend on how it is held: bits, or little-endian 64-bit numbers."""
    if choice.dtype == bool:
        return np.packbits(choice.ravel()).tobytes()
    if choice.dtype.kind in "iu":
        return choice.astype("<i8").tobytes()
    if choice.dtype.kind == "f":
        return (choice.astype("<f8") + 0.0).tobytes()  # -0 is 0
    return repr(choice.tolist()).encode()
