"""The sides of a comparison, by name. Each is imported only in the process that runs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """Where a side lives, and how its package is installed."""

    module: str
    install: str
    hidden: tuple[str, ...] = ()  # packages that its process must not see


SIDES = {
    "ilin": Entry("sides.with_ilin", "python -m pip install .", hidden=("numba",)),
    "ilin[fast]": Entry("sides.with_ilin", "python -m pip install '.[fast]'"),
    "torch": Entry("sides.with_torch", "python -m pip install torch==2.13.0"),
    "jax": Entry("sides.with_jax", "python -m pip install jax"),
    "onnx-ad": Entry("sides.with_onnx_ad", "python -m pip install onnx-ad==0.3.0"),
    "relucent": Entry("sides.with_relucent", "python -m pip install relucent==1.0.0"),
}
OURS = ("ilin", "ilin[fast]")
