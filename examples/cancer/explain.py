"""What a classifier of tumours reads in a patient's measurements, in their units.

A scikit-learn pipeline, StandardScaler then MLPClassifier, is fitted to the
breast-cancer data that come with scikit-learn and converted by skl2onnx. The
scaler is part of the model, so W says what one unit more of a feature adds to
the log-odds of “malignant”. W (x - x0), x0 being the mean of the benign training
cases, is how each feature makes this patient differ from them. Shown are two
malignant cases that the network has not seen: the median one, and the one it
takes most for benign.

    python -m pip install '.[plot]' scikit-learn skl2onnx
    python examples/cancer/explain.py --plot cancer.png
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import ilin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ilin.runtime.ledger import Ledger

FEATURES = [str(name) for name in load_breast_cancer().feature_names]
KINDS = {  # each of ten measurements is summed up over the cells of an image in three ways
    "mean": [j for j, name in enumerate(FEATURES) if name.startswith("mean")],
    "standard error": [j for j, name in enumerate(FEATURES) if name.endswith("error")],
    "worst": [j for j, name in enumerate(FEATURES) if name.startswith("worst")],
}
LARGEST = 8  # features that have a line, or a bar, of their own


class Case(NamedTuple):
    """A patient: the log-odds of “malignant” as a sum over features, with the benign mean as baseline."""

    title: str
    x: NDArray[np.float32]  # (30,)
    baseline: NDArray[np.float32]  # (30,)
    ledger: Ledger
    verified: bool
    sklearn: float  # the log-odds as scikit-learn computes them, in float64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the bars (needs matplotlib)")
    plot = parser.parse_args().plot

    data = load_breast_cancer()
    malignant = data.target == 0
    train, test, known, truth = train_test_split(
        data.data.astype(np.float32), malignant, test_size=0.25, random_state=0, stratify=malignant
    )
    pipeline = make_pipeline(
        StandardScaler(), MLPClassifier((16,), alpha=1.0, max_iter=2000, random_state=0)
    ).fit(train, known)
    right = np.sum(pipeline.predict(test) == truth)
    print(f"{len(test)} cases kept out of training: {right} classified rightly")

    model = to_onnx(pipeline, train[:1], options={"zipmap": False})
    compiled = ilin.compile(model, outputs=[log_odds(model)])
    baseline = train[~known].mean(axis=0)
    found = test[truth]
    found = found[np.argsort(pipeline.predict_proba(found)[:, 1], kind="stable")]
    cases = [
        explain("the median malignant case", compiled, pipeline, found[len(found) // 2], baseline),
        explain("the malignant case that looks most benign", compiled, pipeline, found[0], baseline),
    ]
    for case in cases:
        describe(case)
    if plot:
        draw(cases, plot)
        print(f"\nwrote {plot}")


def log_odds(model: onnx.ModelProto) -> str:
    """The tensor before the Sigmoid. Up to it the network is piecewise-linear."""
    return next(node.input[0] for node in model.graph.node if node.op_type == "Sigmoid")


def explain(
    title: str,
    compiled: ilin.CompiledModel,
    pipeline: Pipeline,
    x: NDArray[np.float32],
    baseline: NDArray[np.float32],
) -> Case:
    """The ledger of one patient; x and baseline (30,)."""
    affine = compiled.at(x[np.newaxis])
    ledger = affine.ledger(0, groups=KINDS, baseline=baseline[np.newaxis])
    benign, malignant = pipeline.predict_proba(x[np.newaxis])[0]
    return Case(title, x, baseline, ledger, affine.certificate.verified, float(np.log(malignant / benign)))


def terms(case: Case) -> list[tuple[int, float]]:
    """The features with the largest contributions, with these."""
    flat = case.ledger.flat
    order = np.argsort(-np.abs(flat), kind="stable")[:LARGEST]
    return [(int(j), float(flat[j])) for j in order]


def describe(case: Case) -> None:
    """Print the sum by features, then by kinds of measurement."""
    ledger, own = case.ledger, terms(case)
    verdict = "malignant" if ledger.value > 0 else "benign"
    print(f"\n{case.title}: classified {verdict}, {'verified' if case.verified else 'NOT verified'}")
    print(f"  {'feature':<24} {'value':>9} {'benign':>9} {'per unit':>10} {'log-odds':>10}")
    for j, amount in own:
        values = f"{case.x[j]:>9.4g} {case.baseline[j]:>9.4g} {ledger.slopes[j]:>+10.4g}"
        print(f"  {FEATURES[j]:<24} {values} {amount:>+10.3f}")
    others = ledger.flat.sum() - sum(amount for _, amount in own)
    total("others", others)
    total("the map at the benign mean", ledger.base)
    total("sum", ledger.sum)
    total("onnxruntime", ledger.value)
    total("scikit-learn", case.sklearn)
    print("  by kind of measurement")
    for name, amount in ledger.groups.items():
        total(f"  {name}", amount)


def total(label: str, amount: float) -> None:
    print(f"  {label:<55} {amount:>+10.3f}")


def draw(cases: list[Case], destination: Path) -> None:
    """A column for each case: the largest features above, the kinds of measurement below."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, axes = plt.subplots(
        2, 2, figsize=(9.4, 5), layout="constrained", sharex="col", height_ratios=[LARGEST + 1, 4]
    )
    for case, (above, below) in zip(cases, axes.T, strict=True):
        ledger, own = case.ledger, terms(case)
        bars = [(f"{FEATURES[j]} = {case.x[j]:.4g}", amount) for j, amount in own]
        bars.append(("the others", float(ledger.flat.sum() - sum(amount for _, amount in own))))
        verdict = "malignant" if ledger.value > 0 else "benign"
        title = textwrap.fill(case.title, 26)
        above.set_title(f"{title}\nlog-odds {ledger.value:+.2f}: {verdict}", weight="bold", loc="left")
        horizontal(above, bars)
        kinds = list(ledger.groups.items())
        horizontal(below, [*kinds, ("the map at the benign mean", ledger.base)])
        below.set_xlabel("adds to the log-odds of “malignant”", loc="right")
    figure.savefig(destination, dpi=100)


def horizontal(axis: Axes, bars: list[tuple[str, float]]) -> None:
    """Bars from the top down, red to the right of zero and blue to the left, each with its value."""
    names, amounts = zip(*bars, strict=True)
    shown = axis.barh(
        range(len(bars)), amounts, color=["#b2182b" if amount > 0 else "#2166ac" for amount in amounts]
    )
    axis.bar_label(shown, fmt="{:+.2f}", padding=3)
    axis.set_yticks(range(len(bars)), names)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    axis.margins(x=0.4)


if __name__ == "__main__":
    main()
