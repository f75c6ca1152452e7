"""The benchmark networks, as torch modules with random weights, exported to ONNX."""

from __future__ import annotations

import io
import warnings
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with Relu between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for rows, columns in pairwise(sizes):
        layers += [nn.Linear(rows, columns), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(outputs: int) -> nn.Sequential:
    """32-32-pool-64-64-pool-512-outputs on 3×32×32, with 3×3 convolutions."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, outputs)),
    )


class Block(nn.Module):
    """The basic residual block."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        """Two 3×3 convolutions, and a 1×1 one beside them where the shape changes."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1), nn.ReLU(), nn.Conv2d(after, after, 3, 1, 1)
        )
        changes = stride != 1 or before != after
        self.beside = nn.Conv2d(before, after, 1, stride) if changes else nn.Identity()
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Relu of the sum."""
        y: Tensor = self.last(self.body(x) + self.beside(x))
        return y


def resnet18(outputs: int) -> nn.Sequential:
    """ResNet-18 (He et al., arXiv:1512.03385), its batch normalisation folded into the convolutions.

    That is what an export makes of it, and so every side of a comparison runs the same layers.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    for before, after, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [Block(before, after, stride), Block(after, after, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, outputs))


def active_fraction(net: nn.Module, x: Tensor) -> float:
    """How many of the units before a Relu are above zero at x, as a fraction."""
    above = total = 0

    def count(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> None:
        nonlocal above, total
        above += int((given[0] > 0).sum())
        total += given[0].numel()

    handles = [module.register_forward_hook(count) for module in net.modules() if isinstance(module, nn.ReLU)]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return above / total


def largest_activation(net: nn.Module, x: Tensor) -> int:
    """Elements of the largest tensor between two layers."""
    sizes = [x.numel()]

    def note(_: nn.Module, __: tuple[Tensor, ...], y: Tensor) -> None:
        sizes.append(y.numel())

    handles = [module.register_forward_hook(note) for module in net.modules()]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return max(sizes)


def set_active_fraction(net: nn.Sequential, fraction: float, x: Tensor) -> list[float]:
    """Shift the biases of each layer before a Relu so that this fraction of its units is active at x.

    Layer by layer: one shift for all of them would leave the first layers active and the last ones dead.

    Returns:
        The shifts, one for each of these layers, rounded to the thousandth that was used.
    """
    shifts = []
    layers = list(net)
    with torch.no_grad():
        for layer, following in pairwise(layers):
            x = layer(x)
            if isinstance(following, nn.ReLU) and isinstance(layer, nn.Conv2d | nn.Linear):
                shift = round(-float(torch.quantile(x, 1 - fraction)), 3)
                layer.bias.add_(shift)  # type: ignore[union-attr]
                x = x + shift
                shifts.append(shift)
    return shifts


def exported(net: nn.Module, x: Tensor) -> bytes:
    """The network as an ONNX file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (x,),
            buffer,  # type: ignore[arg-type]  # the exporter that is asked for takes one
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
        )
    return buffer.getvalue()
