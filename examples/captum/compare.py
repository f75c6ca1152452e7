"""Captum's attributions beside W x + b, on the same network and 100 digits.

What does each method say of the predicted digit's logit, and what does it leave
unsaid? Gradient x input says how the output changes, integrated gradients and
DeepLIFT share out the difference from a black image. The residue is what is
missing to the output (or to that difference); for ilin, what is missing between
F(x) and the sum of all contributions and b.

Needs torch and captum, which the rest of ilin does not:

    python -m pip install torch captum scikit-learn
    python examples/captum/compare.py
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

import ilin

if TYPE_CHECKING:
    import torch

DIGITS = Path(__file__).parents[1] / "digits"
Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", type=int, default=100, help="images to explain (default: 100)")
    count = parser.parse_args().digits

    import torch  # here, so that --help needs nothing but ilin
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    torch.set_num_threads(1)

    images = (load_digits().images[:count] / 16).astype(np.float32)[:, None]
    net = the_same_network()
    compiled = ilin.compile(DIGITS / "model.onnx")
    maps = [compiled.at(image[None]) for image in images]
    outputs = np.stack([affine.y[0] for affine in maps]).astype(float)
    bounds = np.stack(
        [affine.record.bounds[0] for affine in maps]
    )  # on a run's rounding, in any order of sums
    with torch.no_grad():
        assert (np.abs(net(torch.from_numpy(images)).numpy() - outputs) <= 2 * bounds).all(), (
            "not the same network"
        )

    classes = outputs.argmax(1)
    logits = outputs[np.arange(count), classes]
    with torch.no_grad():
        black = net(torch.zeros(1, 1, 8, 8))[0].numpy()[classes].astype(float)
    ours = np.stack([affine.contributions(int(k))[0, 0] for affine, k in zip(maps, classes, strict=True)])
    offsets = np.array([affine.b[k] for affine, k in zip(maps, classes, strict=True)])

    rows = [row("ilin: W x + b", "F(x)", logits - ours.sum((1, 2)) - offsets, logits, ours, ours)]
    rows.append(row("ilin: W x alone", "F(x)", logits - ours.sum((1, 2)), logits, ours, ours))
    for name, method, options, difference in methods(net):
        x = torch.from_numpy(images)
        found = [method.attribute(x[i : i + 1], target=int(k), **options) for i, k in enumerate(classes)]
        theirs = torch.cat(found).detach().numpy()[:, 0].astype(float)
        claim = logits - black if difference else logits
        said = "F(x) - F(0)" if difference else "F(x)"
        rows.append(row(name, said, claim - theirs.sum((1, 2)), claim, theirs, ours))

    print(f"{count} digits, the predicted class's logit ({logits.min():.1f} to {logits.max():.1f})\n")
    print("| method | shares out | largest residue | median | of it, median | furthest from W x |")
    print("|---|---|---:|---:|---:|---:|")
    print("\n".join(rows))


def the_same_network() -> torch.nn.Sequential:
    """The network that examples/digits/train.py builds, with the weights of the ONNX file."""
    import torch

    spec = importlib.util.spec_from_file_location("train", DIGITS / "train.py")
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    net: torch.nn.Sequential = train.build_model().eval()
    stored = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(DIGITS / "model.onnx").graph.initializer
    }
    own = net.state_dict()
    net.load_state_dict({**own, **{name: value for name, value in stored.items() if name in own}})
    return net


def methods(net: torch.nn.Module) -> list[tuple[str, Any, dict[str, Any], bool]]:
    """Name, captum's method, its options, and whether it shares out F(x) - F(0)."""
    from captum.attr import DeepLift, InputXGradient, IntegratedGradients

    integrated = IntegratedGradients(net)
    return [
        ("captum: gradient × input", InputXGradient(net), {}, False),
        ("captum: LRP, ε rule", Layerwise(net), {}, False),
        ("captum: integrated gradients, 50 steps", integrated, {"n_steps": 50}, True),
        ("captum: integrated gradients, 500 steps", integrated, {"n_steps": 500}, True),
        ("captum: DeepLIFT", DeepLift(net), {}, True),
    ]


class Layerwise:
    """Captum's layer-wise relevance propagation, by its default rules."""

    def __init__(self, net: torch.nn.Module) -> None:
        from captum.attr import LRP
        from captum.attr._utils.lrp_rules import EpsilonRule

        self.net, self.method, self.rule = net, LRP(net), EpsilonRule

    def attribute(self, x: torch.Tensor, target: int) -> torch.Tensor:
        """The relevances of x's entries, in its shape."""
        self.net.flatten.rule = self.rule()  # there is none for Flatten, and each call removes what it finds
        return self.method.attribute(x, target=target)


def row(name: str, said: str, residue: Array, claim: Array, found: Array, ours: Array) -> str:
    """A line of the table; distances between maps are relative to W x, by its largest entry."""
    size = np.abs(residue)
    apart = np.abs(found - ours).max((1, 2)) / np.abs(ours).max((1, 2))
    relative = np.median(size / np.abs(claim))
    return (
        f"| {name} | {said} | {size.max():.2g} | {np.median(size):.2g} | {relative:.1e} | {apart.max():.2g} |"
    )


if __name__ == "__main__":
    main()
