"""relucent: W and b of the cell that holds x, `Complex(net).point2poly(x).W`, in float64.

Its affine data are computed together with one half-space for each hidden unit.
"""

from __future__ import annotations

import time
from importlib.metadata import version

import numpy as np
import relucent
import torch
from cases import Case
from job import Answer, Array, Job, Options, Prepared


def versions() -> dict[str, str]:
    """Relucent's version."""
    return {"relucent": version("relucent")}


def serves(case: Case) -> str:
    """Sequential networks without pooling by maximum."""
    return "" if case.kind == "mlp" else "it knows neither MaxPool nor residual sums"


def candidates(job: Job) -> list[Options]:
    """It computes with numpy on arrays, and with PyTorch on tensors."""
    return [{"backend": "numpy"}, {"backend": "torch"}]


def prepare(job: Job, options: Options) -> Prepared:
    """Convert the network once."""
    torch.set_num_threads(2)
    cells = relucent.Complex(job.case.make())

    def ask(x: Array) -> Answer:
        z = x.astype(np.float64)
        start = time.perf_counter()
        cell = cells.point2poly(torch.from_numpy(z) if options["backend"] == "torch" else z, False)
        W, _ = cell.W, cell.b
        seconds = time.perf_counter() - start
        return Answer(np.asarray(W).T[: job.K], seconds)

    return Prepared(ask)
