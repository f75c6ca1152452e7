"""The images that the t-SNE example works with: scikit-learn's bundled digits, in two parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST_FRACTION = 0.2
SPLIT_RANDOM_STATE = 0


@dataclass(frozen=True)
class Digits:
    """All images with their labels, and the rows of the two parts."""

    images: NDArray[np.float32]  # (n, 1, 8, 8), grey values in [0, 1]
    labels: NDArray[np.int64]  # (n,): never trained on
    train: NDArray[np.int64]
    test: NDArray[np.int64]  # held out

    @property
    def pixels(self) -> NDArray[np.float64]:
        """(n, 64): what distances between images are measured on."""
        return self.images.reshape(len(self.images), -1).astype(np.float64)


def read_digits() -> Digits:
    """Load the images, and hold out a fifth of each class."""
    data = load_digits()
    labels = data.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_FRACTION, random_state=SPLIT_RANDOM_STATE, stratify=labels
    )
    images = (data.images / 16).astype(np.float32)[:, np.newaxis]
    return Digits(images, labels, np.sort(train), np.sort(test))


def class_centres(places: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """(10, 2): the median place of each digit; the mean would lie outside of a class with two clusters."""
    return np.array([np.median(places[labels == digit], axis=0) for digit in range(10)], dtype=np.float32)
