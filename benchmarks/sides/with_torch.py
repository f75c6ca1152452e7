"""PyTorch: torch.func.jacrev, vmap(jacrev) for several points, torch.autograd.grad for the top row."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from cases import Case
from job import Answer, Array, Job, Options, Prepared
from torch import Tensor

CHUNKS = (1, 10, 50, 100)
POINT_CHUNKS = (1, 8, 32, 128)


def versions() -> dict[str, str]:
    """PyTorch's version."""
    return {"torch": torch.__version__}


def serves(case: Case) -> str:
    """It serves every case."""
    return ""


def candidates(job: Job) -> list[Options]:
    """Chunk sizes of rows, and of points where there are several."""
    K = job.K
    if job.case.rows == "top":
        return [{"call": "autograd.grad"}]
    chunks: list[int | None] = [size for size in CHUNKS if size < K]
    found: list[Options] = [
        {"call": "jacrev", "chunk": size} for size in (*chunks, None) if job.fits(size or K)
    ]
    if not job.case.points:
        return found
    points = job.case.points
    sizes: list[int | None] = [size for size in POINT_CHUNKS if size < points]
    return [
        {"call": "vmap(jacrev)", "points": size, "chunk": option["chunk"]}
        for size in (*sizes, None)
        for option in found
        if job.fits((size or points) * (option["chunk"] or K))
    ]


def prepare(job: Job, options: Options) -> Prepared:
    """Build the network and its Jacobian function."""
    torch.set_num_threads(2)
    net = job.case.make()
    jacobian = _function(net, job, options)

    def ask(x: Array) -> Answer:
        z = torch.from_numpy(x)
        start = time.perf_counter()
        found = jacobian(z)
        seconds = time.perf_counter() - start
        lead = (job.case.points, job.K) if job.case.points else (job.K,)
        return Answer(found.reshape(*lead, -1).numpy(), seconds)

    return Prepared(ask)


def _function(net: torch.nn.Module, job: Job, options: Options) -> Callable[[Tensor], Tensor]:
    if options["call"] == "autograd.grad":

        def gradient(z: Tensor) -> Tensor:
            z = z.clone().requires_grad_()
            return torch.autograd.grad(net(z).max(), z)[0]

        return gradient

    def rows(z: Tensor) -> Any:
        return net(z)[:, : job.K]

    def of_one(z: Tensor) -> Any:
        return net(z[None])[0]

    if options["call"] == "jacrev":
        return torch.func.jacrev(rows, chunk_size=options["chunk"])
    return torch.func.vmap(
        torch.func.jacrev(of_one, chunk_size=options["chunk"]), chunk_size=options["points"]
    )
