"""Check what a built wheel holds: every module of the checkout once, nothing beside the package."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "ilin": "ilin",
    "compiler": "ilin/compiler",
    "expansions": "ilin/expansions",
    "ops": "ilin/ops",
    "report": "ilin/report",
    "runtime": "ilin/runtime",
}


def expected() -> set[str]:
    """Paths in the wheel of everything that the checkout's packages hold."""
    links = {ROOT / "ilin" / name for name in ("compiler", "expansions", "ops", "report", "runtime")}
    paths = {"ilin/py.typed"}
    for source, target in FOLDERS.items():
        for file in sorted((ROOT / source).rglob("*.py")):
            if source != "ilin" or not links.intersection(file.parents):
                paths.add(f"{target}/{file.relative_to(ROOT / source).as_posix()}")
    templates = sorted((ROOT / "report" / "templates").iterdir())
    paths |= {f"ilin/report/templates/{file.name}" for file in templates}
    return paths


def main(wheel: str) -> int:
    """Compare and report."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    missing, stray = sorted(expected() - held), sorted(held - expected())
    for label, names in (("missing from", missing), ("stray in", stray)):
        for name in names:
            print(f"{label} the wheel: {name}", file=sys.stderr)
    print(f"{len(held)} files")
    return 1 if missing or stray else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
