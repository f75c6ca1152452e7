"""ilin beside torch.func.jacrev, in one run: medians and ratios.

    python -m pip install . torch==2.13.0 && python benchmarks/peers.py [--only cnn] [--rounds 7]

Every network is compiled once; each round gives both sides a fresh x, one after the other, so that the
machine's drift meets both. jacrev is given its best chunk size of those in CHUNKS. Both use two threads.
ilin's time is that of `compiled.at(x)`: W, b, its shares and the verification.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from networks import cnn, exported, mlp, resnet18

import ilin

CHUNKS = (None, 100, 50, 10, 1)
CASES: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...], Any]] = {
    "mlp 784-1024x3-10": (lambda: mlp((784, 1024, 1024, 1024, 10)), (1, 784), "all"),
    "cnn 10 outputs": (lambda: cnn(10), (1, 3, 32, 32), "all"),
    "cnn 100 outputs": (lambda: cnn(100), (1, 3, 32, 32), "all"),
    "cnn 100 outputs, fewer active": (lambda: cnn(100, -0.05), (1, 3, 32, 32), "all"),
    "resnet18 64x64, 10 outputs": (lambda: resnet18(10), (1, 3, 64, 64), "all"),
    "resnet18 224x224, 10 outputs": (lambda: resnet18(10), (1, 3, 224, 224), "all"),
    "resnet18 224x224, one row": (lambda: resnet18(1000), (1, 3, 224, 224), 1),
}


def timed(call: Callable[..., Any], *given: Any) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call(*given)
    return time.perf_counter() - start


def best_chunk(net: torch.nn.Module, x: torch.Tensor, outputs: int) -> int | None:
    """The chunk size that jacrev is fastest with."""
    sizes = [size for size in CHUNKS if size is None or size <= outputs]
    seconds = {}
    for size in sizes:
        jacobian = torch.func.jacrev(net, chunk_size=size)
        jacobian(x)
        seconds[size] = timed(jacobian, x)
    return min(seconds, key=lambda size: seconds[size])


def peer(net: torch.nn.Module, rows: Any, x: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    """The peer's best way: jacrev for all rows, one backward pass for the largest."""
    if rows == "all":
        return torch.func.jacrev(net, chunk_size=best_chunk(net, x, net(x).numel()))

    def gradient(z: torch.Tensor) -> Any:
        z = z.clone().requires_grad_()
        return torch.autograd.grad(net(z).max(), z)

    return gradient


def main() -> None:
    """Run the cases and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    print(f"{'case':32s} {'torch ms':>9s} {'ilin ms':>9s} {'ratio':>6s}")
    for name, (make, shape, rows) in CASES.items():
        if arguments.only not in name:
            continue
        torch.manual_seed(0)
        net = make().eval()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        x = torch.rand(shape)
        compiled = ilin.compile(exported(net, x), engine=arguments.engine)
        theirs = peer(net, rows, x)
        assert compiled.at(x.numpy(), rows).certificate.verified
        theirs(x)
        pairs = []
        for _ in range(arguments.rounds):
            fresh = torch.rand(shape)
            point = fresh.numpy()
            pairs.append((timed(theirs, fresh), timed(compiled.at, point, rows)))
        torch_ms, ilin_ms = (statistics.median(side) * 1e3 for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:32s} {torch_ms:9.1f} {ilin_ms:9.1f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
