"""Every error a user can cause, with the exit code that the command line gives it.

Each message says what went wrong, where, and what to do next, in one line.
"""

from __future__ import annotations


class IlinError(Exception):
    """Base of every error a user can cause. `exit_code` is what the command line exits with."""

    exit_code = 2


class ModelError(IlinError):
    """The model cannot be read: no such file, not ONNX, corrupt, incomplete or invalid."""


class InputError(IlinError):
    """The given x does not fit the model: shape, rank, dtype, a missing input, a non-finite value."""


class NonFiniteError(InputError):
    """A NaN or an infinity in x, or in a tensor that the model computes from it."""


class UnknownTensorError(IlinError):
    """A tensor name that the graph does not have, or that cannot play the asked part."""


class RowsError(IlinError):
    """Rows outside the output, or written in a way that is not understood."""


class OptionError(IlinError):
    """An option with a value outside its range."""


class MemoryLimitError(IlinError):
    """The answer would not fit the memory limit."""


class OutputError(IlinError):
    """A result cannot be written, or a saved one cannot be read."""


class UnsupportedError(IlinError):
    """The model holds an operator, or a use of one, that cannot be linearised exactly."""

    exit_code = 3
