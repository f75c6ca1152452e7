"""What is asked of every side: a network, an input shape, which rows, at how many points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["mlp", "cnn", "resnet18"]


@dataclass(frozen=True)
class Case:
    """One question. Plain data, so that it can be sent to another process."""

    name: str
    kind: Kind
    shape: tuple[int, ...]  # of x, batch axis included
    outputs: int
    hidden: tuple[int, ...] = ()  # widths of an MLP's hidden layers
    fraction: float | None = None  # of each layer's units that shall be active; None leaves the biases alone
    rows: Literal["all", "top"] = "all"
    points: int = 0  # 0 for one call at one point, else so many points in one call

    @property
    def K(self) -> int:
        """Rows of one W."""
        return self.outputs if self.rows == "all" else 1

    def make(self) -> nn.Sequential:
        """The network, with the same weights every time."""
        return self.made()[0]

    def made(self) -> tuple[nn.Sequential, list[float]]:
        """The network, and by how much the biases of each hidden layer were shifted for `fraction`."""
        import torch
        from networks import cnn, mlp, resnet18, set_active_fraction

        torch.manual_seed(0)
        if self.kind == "mlp":
            net = mlp((self.shape[1], *self.hidden, self.outputs))
        else:
            net = cnn(self.outputs) if self.kind == "cnn" else resnet18(self.outputs)
        net.eval().requires_grad_(False)
        if self.fraction is None:
            return net, []
        return net, set_active_fraction(net, self.fraction, torch.rand((8, *self.shape[1:])))


_IMAGE = (1, 3, 32, 32)
CASES = (
    Case("MLP 784-1024-1024-1024-10", "mlp", (1, 784), 10, (1024, 1024, 1024)),
    Case("MLP 784-512-512-10", "mlp", (1, 784), 10, (512, 512)),
    Case("MLP 784-100-100-10", "mlp", (1, 784), 10, (100, 100)),
    Case("CNN, 10 outputs", "cnn", _IMAGE, 10),
    Case("CNN, 100 outputs", "cnn", _IMAGE, 100),
    Case("CNN, 100 outputs, 30 % active", "cnn", _IMAGE, 100, fraction=0.3),
    Case("ResNet-18 64×64, 10 outputs", "resnet18", (1, 3, 64, 64), 10),
    Case("ResNet-18 224×224, 10 outputs", "resnet18", (1, 3, 224, 224), 10),
    Case("ResNet-18 224×224, one row of 1000", "resnet18", (1, 3, 224, 224), 1000, rows="top"),
    Case("CNN, 10 outputs, 256 points", "cnn", _IMAGE, 10, points=256),
    Case("ResNet-18 224×224, all 1000 outputs", "resnet18", (1, 3, 224, 224), 1000),
)


@dataclass(frozen=True)
class Series:
    """Cases that differ in one quantity."""

    name: str
    network: str
    axis: str  # what grows
    values: tuple[float, ...]
    cases: tuple[Case, ...]


def _series(name: str, network: str, axis: str, cases: dict[float, Case]) -> Series:
    return Series(name, network, axis, tuple(cases), tuple(cases.values()))


SERIES = (
    _series(
        *("outputs", "CNN on 3×32×32", "outputs K"),
        {K: Case(f"growth: CNN, {K} outputs", "cnn", _IMAGE, K) for K in (1, 3, 10, 30, 100, 300, 1000)},
    ),
    _series(
        *("inputs", "ResNet-18, 10 outputs", "inputs N = 3 · side²"),
        {
            3 * s * s: Case(f"growth: ResNet-18 {s}×{s}, 10 outputs", "resnet18", (1, 3, s, s), 10)
            for s in (32, 64, 96, 128, 224)
        },
    ),
    _series(
        *("depth", "MLP 784-512-…-512-10", "hidden layers"),
        {
            depth: Case(f"growth: MLP of {depth} × 512", "mlp", (1, 784), 10, (512,) * depth)
            for depth in (1, 2, 4, 8, 16, 32)
        },
    ),
    _series(
        *("activity", "CNN on 3×32×32, 100 outputs", "active units, %"),
        {
            percent: Case(f"growth: CNN, {percent} % active", "cnn", _IMAGE, 100, fraction=percent / 100)
            for percent in (10, 20, 30, 50, 70, 90)
        },
    ),
    _series(
        *("points", "CNN on 3×32×32, 10 outputs", "points in one call"),
        {
            points: Case(f"growth: CNN, {points} points", "cnn", _IMAGE, 10, points=points)
            for points in (1, 4, 16, 64, 256)
        },
    ),
)
