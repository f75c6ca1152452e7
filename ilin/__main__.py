"""The commands: `ilin`, which is `python -m ilin` too, and `ilin-compile`.

Nothing else is imported before Ctrl-C is listened to: the imports take most of a second.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `ilin`."""
    _run("main")


def compile_main() -> None:
    """Run `ilin-compile`."""
    _run("compile_main")


def _run(name: str) -> None:
    try:
        from . import command_line

        getattr(command_line, name)()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
