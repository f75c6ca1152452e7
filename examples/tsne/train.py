"""Train a parametric t-SNE of handwritten digits and export it to ONNX.

t-SNE places points in the plane so that their neighbourhoods there resemble those among the images. Its
parametric variant places them by a network, so that new images can be placed as well:

    L. van der Maaten, Learning a Parametric Embedding by Preserving Local Structure, AISTATS 2009.
    L. van der Maaten and G. Hinton, Visualizing Data using t-SNE, JMLR 9 (2008).

The data are scikit-learn's bundled 8x8 digits, so nothing is downloaded, and labels are used for choosing the
images to explain, not for training. Every random choice is seeded.

    python -m pip install torch==2.13.0 scikit-learn onnx onnxruntime
    python examples/tsne/train.py
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import warnings
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import sklearn
import torch
from images import SPLIT_RANDOM_STATE, TEST_FRACTION, Digits, class_centres, read_digits
from numpy.typing import NDArray
from sklearn.manifold import trustworthiness
from sklearn.metrics import pairwise_distances
from torch import nn

SEED = 1
PERPLEXITY = 30
WIDTHS = [64, 200, 200, 200, 2]
STEPS = 1500
EXAGGERATED_STEPS = 300
EXAGGERATION = 4.0
PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
NOISE = 0.1  # standard deviation, of grey values in [0, 1]
REQUIRED_TRUSTWORTHINESS = 0.98  # at 5 neighbours, of the images trained on
OPSET = 17


def affinities(points: NDArray[np.float64], perplexity: float) -> NDArray[np.float64]:
    """P, (n, n): the symmetric probabilities with which a point picks another as its neighbour.

    Row i of the conditional P is a softmax of -βᵢ d²(i, j), j ≠ i, with βᵢ found by bisection such that its
    entropy is log(perplexity) (van der Maaten and Hinton 2008, equation 1); then P = (P + Pᵀ) / 2n.
    """
    squared = pairwise_distances(points, metric="sqeuclidean")
    np.fill_diagonal(squared, np.inf)
    squared -= squared.min(axis=1, keepdims=True)  # leaves the softmax as it is, and its sum above 1
    low, high = np.zeros((len(points), 1)), np.full((len(points), 1), 1e4)
    for _ in range(60):
        beta = (low + high) / 2
        P = np.exp(-beta * squared)
        P /= P.sum(axis=1, keepdims=True)
        entropy = -(P * np.log(np.maximum(P, 1e-300))).sum(axis=1, keepdims=True)
        too_wide = entropy > np.log(perplexity)
        low, high = np.where(too_wide, beta, low), np.where(too_wide, high, beta)
    return np.asarray((P + P.T) / (2 * len(points)))


def divergence(P: torch.Tensor, places: torch.Tensor, exaggeration: float = 1.0) -> torch.Tensor:
    """KL(P ‖ Q) less the constant Σ p log p, with q(i, j) = (1 / (1 + d²)) / Z and d = ‖yᵢ - yⱼ‖.

    It is Σ p log(1 + d²) + log Z: attraction of neighbours, and repulsion of all. Early exaggeration
    multiplies the former, so that clusters find together before they are pushed apart.
    """
    lengths = places.square().sum(1)
    squared = (lengths[:, None] + lengths - 2 * places @ places.T).clamp(min=0)
    attraction = (P * torch.log1p(squared)).sum()
    Z = (1 / (1 + squared)).sum() - len(places)  # the diagonal is left out
    return exaggeration * attraction + torch.log(Z)


def build_model() -> nn.Sequential:
    """Return the untrained network; the layers' names become the ONNX nodes' names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (before, after) in enumerate(pairwise(WIDTHS), start=1):
        layers[f"dense{number}"] = nn.Linear(before, after)
        layers[f"relu{number}"] = nn.ReLU()
    layers.popitem()  # the last layer's output is the place itself
    return nn.Sequential(layers)


def train_model(images: NDArray[np.float32]) -> tuple[nn.Sequential, float]:
    """Minimise the divergence over all images at once; return the model and the divergence reached.

    A little noise on the images stands in for more handwriting: without it images that were trained on are
    placed better, and others worse. Divergence does not change when all places move, so the last bias is
    set such that their mean is 0.
    """
    torch.manual_seed(SEED)
    model, inputs = build_model(), torch.from_numpy(images)
    pixels = images.reshape(len(images), -1).astype(np.float64)
    P = torch.from_numpy(affinities(pixels, PERPLEXITY)).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=STEPS, pct_start=0.1
    )
    constant = float(torch.special.xlogy(P, P).sum())
    for step in range(STEPS):
        places = model(inputs + NOISE * torch.randn_like(inputs))
        loss = divergence(P, places, EXAGGERATION if step < EXAGGERATED_STEPS else 1.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if (step + 1) % 300 == 0:
            with torch.no_grad():
                reached = divergence(P, places).item() + constant
            print(f"step {step + 1:5d}  KL divergence of noisy images {reached:.4f}")
    model.eval()
    with torch.no_grad():
        places = model(inputs)
        model[-1].bias -= places.mean(dim=0)
        return model, divergence(P, places).item() + constant


def export_model(model: nn.Sequential) -> bytes:
    """Return the model as a checked ONNX file, one node per layer.

    The TorchScript exporter is asked for by name because it keeps Flatten, which the torch.export one
    rewrites as Reshape.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, 8, 8),),
            path,
            input_names=["image"],
            output_names=["place"],
            dynamic_axes={"image": {0: "batch"}, "place": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
        exported = onnx.load(path)
    onnx.checker.check_model(exported, full_check=True)
    return bytes(exported.SerializeToString(deterministic=True))


def choose_rows(digits: Digits, places: NDArray[np.float32]) -> list[tuple[int, tuple[int, int]]]:
    """Choose four held-out images: two inside clusters, two between; each with the two digits it is about.

    Between is the image that is about as far from the centre of one digit as from that of another, and
    nearer to both than they are to each other; the second is the next such, of two other digits. Inside are
    the images of the first pair nearest to their own centre.
    """
    centres = class_centres(places[digits.train], digits.labels[digits.train])
    held_out = places[digits.test]
    distances = np.linalg.norm(held_out[:, None] - centres, axis=2)  # (held out, 10)
    order = np.argsort(distances, axis=1)[:, :2]
    nearest, next_nearest = np.take_along_axis(distances, order, axis=1).T
    apart = np.linalg.norm(centres[order[:, 0]] - centres[order[:, 1]], axis=1)
    imbalance = np.where(next_nearest < apart, next_nearest / nearest, np.inf)
    ranked = [int(i) for i in np.argsort(imbalance)]
    first = ranked[0]
    a, b = sorted(int(digit) for digit in order[first])
    second = next(i for i in ranked if not {a, b} & {int(digit) for digit in order[i]})
    chosen = []
    for digit in (a, b):
        members = np.flatnonzero(digits.labels[digits.test] == digit)
        chosen.append((int(members[np.argmin(distances[members, digit])]), (a, b)))
    chosen.append((first, (a, b)))
    chosen.append((second, tuple(sorted(int(digit) for digit in order[second]))))
    return [(int(digits.test[i]), pair) for i, pair in chosen]


def main() -> None:
    """Train, export, measure the exported file, and write everything if it is good enough."""
    parser = argparse.ArgumentParser(description="Train and export the parametric t-SNE example.")
    here = Path(__file__).resolve().parent
    parser.add_argument(
        "--output", type=Path, default=here, help="folder for the files (default: beside this)"
    )
    output: Path = parser.parse_args().output

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    digits = read_digits()
    model, reached = train_model(digits.images[digits.train])
    exported = export_model(model)

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    places = np.asarray(session.run(["place"], {"image": digits.images})[0])
    trust = {
        name: {
            str(k): float(trustworthiness(digits.pixels[rows], places[rows], n_neighbors=k)) for k in (5, 12)
        }
        for name, rows in (("trained on", digits.train), ("held out", digits.test))
    }
    print(f"KL divergence {reached:.4f}, trustworthiness at 5 and 12 neighbours: {trust}")
    if trust["trained on"]["5"] < REQUIRED_TRUSTWORTHINESS:
        sys.exit(f"refused: trustworthiness is below {REQUIRED_TRUSTWORTHINESS}, so nothing was written")

    chosen = choose_rows(digits, places)
    facts = {
        "seed": SEED,
        "split": {
            "function": "sklearn.model_selection.train_test_split",
            "test_size": TEST_FRACTION,
            "random_state": SPLIT_RANDOM_STATE,
            "stratified": True,
        },
        "kl_divergence": reached,
        "trustworthiness": trust,
        "sizes": {
            "train_images": len(digits.train),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "model_bytes": len(exported),
        },
        "opset": OPSET,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "several.npy": [
            {"dataset_index": row, "label": int(digits.labels[row]), "where": where, "pair": pair}
            for (row, pair), where in zip(chosen, ("inside", "inside", "between", "between"), strict=True)
        ],
        "x.npy": {"dataset_index": chosen[2][0]},
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "model.onnx").write_bytes(exported)
    np.save(output / "several.npy", digits.images[[row for row, _ in chosen]])
    np.save(output / "x.npy", digits.images[[chosen[2][0]]])
    (output / "tsne.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"wrote model.onnx ({len(exported)} bytes), several.npy, x.npy and tsne.json to {output}")


if __name__ == "__main__":
    main()
