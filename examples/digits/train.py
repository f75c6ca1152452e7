"""Train the example classifier of handwritten digits and export it to ONNX.

The data are scikit-learn's bundled 8x8 digits, so nothing is downloaded. Every
random choice is seeded, and the schedule is fixed beforehand: the test images
are used once, at the end, to measure the exported file with onnxruntime.
Nothing is written unless that file meets the required accuracy and has exactly
the expected sequence of operators.
"""

import argparse
import json
import platform
import sys
import tempfile
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

SEED = 20
TEST_FRACTION = 0.2
SPLIT_RANDOM_STATE = 0
EPOCHS = 60
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
REQUIRED_ACCURACY = 0.98
CLEAR_DIGIT = 4
OPSET = 17

OPERATORS = [
    *("Conv", "BatchNormalization", "Relu"),
    *("Conv", "BatchNormalization", "Relu", "MaxPool"),
    *("Conv", "BatchNormalization", "Relu", "Flatten"),
    *("Gemm", "Relu", "Gemm"),
]

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """The scaled images with their labels, and the rows of the two parts."""

    images: Images
    labels: Labels
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def read_digits() -> Digits:
    """Load the images as float32 in [0, 1], shape (n, 1, 8, 8), and split them by class."""
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)[:, np.newaxis]
    labels = data.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=TEST_FRACTION,
        random_state=SPLIT_RANDOM_STATE,
        stratify=labels,
    )
    return Digits(images, labels, np.sort(train), np.sort(test))


def build_model() -> nn.Sequential:
    """Return the untrained network; the layers' names become the ONNX nodes' names."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, kernel_size=3, padding=1),
            norm1=nn.BatchNorm2d(16),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, kernel_size=3, padding=1),
            norm2=nn.BatchNorm2d(32),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(kernel_size=2),
            conv3=nn.Conv2d(32, 32, kernel_size=3, padding=1),
            norm3=nn.BatchNorm2d(32),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            dense1=nn.Linear(32 * 4 * 4, 64),
            relu4=nn.ReLU(),
            dense2=nn.Linear(64, 10),
        )
    )


def distort(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn, scale and shift each image a little, to stand in for more handwriting."""
    count = len(images)

    def uniform(limit: float) -> torch.Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * limit

    angle, scale = uniform(0.2), 1 + uniform(0.1)
    shift_x, shift_y = uniform(0.2), uniform(0.1)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    first, second = torch.stack([cos, -sin, shift_x], dim=1), torch.stack([sin, cos, shift_y], dim=1)
    grid = functional.affine_grid(
        torch.stack([first, second], dim=1), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)


def train_model(images: Images, labels: Labels) -> nn.Sequential:
    """Train on the given images with a fixed schedule and return the model in eval mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = build_model().train()
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    batches = len(inputs) // BATCH_SIZE
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=EPOCHS * batches
    )
    for epoch in range(EPOCHS):
        order = torch.randperm(len(inputs), generator=generator)
        total = 0.0
        for batch in range(batches):
            rows = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
            logits = model(distort(inputs[rows], generator))
            loss = functional.cross_entropy(logits, targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3d}  training loss {total / batches:.4f}")
    return model.eval()


def export_model(model: nn.Sequential) -> bytes:
    """Return the model as a checked ONNX file in inference mode, one node per layer.

    The TorchScript exporter is asked for by name because it keeps Flatten, which
    the torch.export one rewrites as Reshape. TrainingMode.PRESERVE is what keeps
    BatchNormalization apart from Conv: in TrainingMode.EVAL the exporter fuses
    them. The model itself is in eval mode, so the nodes are in inference mode.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, 8, 8),),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        exported = onnx.load(path)
    onnx.checker.check_model(exported, full_check=True)
    operators = [node.op_type for node in exported.graph.node]
    if operators != OPERATORS:
        sys.exit(f"refused: the exported graph has the operators {operators}")
    return bytes(exported.SerializeToString(deterministic=True))


def run_model(model: bytes, images: Images) -> Images:
    """Return the logits that onnxruntime computes from a serialized model."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": images})[0], dtype=np.float32)


def choose_rows(digits: Digits, right: NDArray[np.int64]) -> tuple[int, list[int]]:
    """Choose the dataset rows of x.npy and several.npy among the rightly classified test rows.

    The single image is the `CLEAR_DIGIT` nearest to the mean training image of its
    class, hence a typical one; the several are the first other image of each class.
    """
    members = digits.train[digits.labels[digits.train] == CLEAR_DIGIT]
    mean = digits.images[members].mean(axis=0)
    candidates = right[digits.labels[right] == CLEAR_DIGIT]
    distances = ((digits.images[candidates] - mean) ** 2).sum(axis=(1, 2, 3))
    single = int(candidates[np.argmin(distances)])
    others = right[right != single]
    several = [int(others[digits.labels[others] == label][0]) for label in range(10)]
    return single, several


def main() -> None:
    """Train, export, measure the exported file, and write everything if it is good enough."""
    parser = argparse.ArgumentParser(description="Train and export the digits example.")
    here = Path(__file__).resolve().parent
    parser.add_argument(
        "--output", type=Path, default=here, help="folder for the files (default: beside this)"
    )
    output: Path = parser.parse_args().output

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    digits = read_digits()
    model = train_model(digits.images[digits.train], digits.labels[digits.train])
    exported = export_model(model)

    images, labels = digits.images[digits.test], digits.labels[digits.test]
    logits = run_model(exported, images)
    with torch.no_grad():
        difference = float(np.abs(model(torch.from_numpy(images)).numpy() - logits).max())
    correct = logits.argmax(axis=1) == labels
    accuracy = float(correct.mean())
    print(f"largest difference of a logit between torch and onnxruntime: {difference:.2e}")
    print(f"test accuracy of the ONNX file: {accuracy:.4%} ({correct.sum()} of {len(labels)})")
    if accuracy < REQUIRED_ACCURACY:
        sys.exit(f"refused: the accuracy is below {REQUIRED_ACCURACY:.0%}, so nothing was written")

    single, several = choose_rows(digits, digits.test[correct])
    facts = {
        "seed": SEED,
        "split": {
            "function": "sklearn.model_selection.train_test_split",
            "test_size": TEST_FRACTION,
            "random_state": SPLIT_RANDOM_STATE,
            "stratified": True,
        },
        "accuracy": {"test": accuracy, "correct": int(correct.sum()), "measured_with": "onnxruntime"},
        "sizes": {
            "train_images": len(digits.train),
            "test_images": len(digits.test),
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
        "x.npy": {"label": int(digits.labels[single]), "dataset_index": single},
        "several.npy": {"labels": [int(digits.labels[row]) for row in several], "dataset_indices": several},
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "model.onnx").write_bytes(exported)
    np.save(output / "x.npy", digits.images[[single]])
    np.save(output / "several.npy", digits.images[several])
    (output / "digits.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"wrote model.onnx ({len(exported)} bytes), x.npy, several.npy and digits.json to {output}")


if __name__ == "__main__":
    main()
