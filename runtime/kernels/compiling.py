"""A word to the logger "ilin" when kernels are compiled, which takes a while, once on a machine."""

from __future__ import annotations

import logging
from typing import Any

from numba.core import event

_MESSAGE = "compiling the kernels for this machine, once: about half a minute"


class _Teller(event.Listener):  # type: ignore[misc]  # numba has no types
    """Says it when the first kernel is compiled, and not when one is only read from numba's cache."""

    told = False

    def on_start(self, event: Any) -> None:
        """Called by numba."""
        own = event.data["dispatcher"].py_func.__module__.startswith(f"{__package__}.")
        if own and not self.told:
            self.told = True
            logging.getLogger("ilin").info(_MESSAGE)

    def on_end(self, event: Any) -> None:
        """Called by numba."""


event.register("numba:compile", _Teller())
