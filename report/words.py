"""The sentences of a page: what was asked and what was found, for readers without mathematics."""

from __future__ import annotations

import math

from ..runtime.arrays import Array
from ..runtime.certificate import Certificate
from ..runtime.program import Kind
from ..runtime.region import Norm, Radius, name_of
from .content import Account, Content
from .numbers import number, part, written_out
from .yardstick import Yardstick

_SUM = (
    "Here the model is a weighted sum: each value of the input times a weight, all added up, plus a "
    "constant. Nothing is estimated, sampled or left over."
)
_TANGENT = (
    "This model bends smoothly, so no weighted sum is the model itself. The weights are its slopes at this "
    "very input: they tell what a very small change would do. Weights times values plus the constant do come "
    "to the output here, but how much falls to the constant follows from the slopes, not from the model's "
    "own constants."
)
_FROZEN = (
    "This model weighs its input by gates or attention that depend on the input, too. They are held at their "
    "values here; with them held, the model is a weighted sum of the input plus a constant."
)
_LEVELS = "what steps put out that only jump (trees, comparisons, rounding)"
_NORMS = {
    "1": "all changes together",
    "2": "the straight line (root of the sum of squares)",
    "inf": "each value by at most this, all at once",
}


def headline(content: Content) -> str:
    """The title: what was found."""
    if content.outputs == 1:
        return f"Why {content.model} answers {number(content.explained.value)}"
    return f"Why {content.model} answers “{content.explained.name}”"


def lead(content: Content) -> list[tuple[str, str]]:
    """Question and answers, each under a word."""
    told = [
        (
            "Asked",
            f"What does {content.model} answer for this input, and what does each part of it add?",
        ),
        ("Found", _found(content)),
        ("Why", f"{_nature(content)} {_adds_up(content.account)}{_strongest(content.account)}"),
    ]
    if content.against is not None and content.contrast is not None:
        told.append(("Instead", _instead(content)))
    told.append(("Holds", _holds(content)))
    told.append(("Checked", checked(content)))
    return told


def _found(content: Content) -> str:
    explained, value = content.explained, number(content.explained.value)
    if content.outputs == 1:
        return f"Its output is {value}."
    first = content.prediction[0]
    if content.leading and content.candidates == 1:
        what = f"The only entry of its output “{content.leading}”"
    elif content.leading:
        what = f"The largest of {content.candidates:,} entries of its output “{content.leading}”"
    else:
        what = f"The largest of its {content.candidates:,} outputs"
    if explained.row == first.row:
        return f"{what} is {explained.name}, with {value}."
    return (
        f"{what} is {first.name}, with {number(first.value)}. "
        f"This page explains another one that was asked for: {explained.name}, with {value}."
    )


def _nature(content: Content) -> str:
    if content.kind is Kind.LOCALLY_CONSTANT:
        return "Around this input no small change of it changes the output: all weights are zero."
    if content.kind is Kind.SMOOTH:
        return _FROZEN if content.frozen else _TANGENT
    return _SUM


def _adds_up(account: Account) -> str:
    return (
        f"The input adds {number(account.inputs, signed=True)}, the constant "
        f"{number(account.constant, signed=True)}: together {number(account.total)}."
    )


def _strongest(account: Account) -> str:
    """The largest contributions each way."""
    ups = [each for each in account.entries if each.amount > 0]
    downs = [each for each in account.entries if each.amount < 0]
    parts = [
        f"{word} is {each[0].name} ({number(each[0].amount, signed=True)})"
        for word, each in (("What adds most", ups), ("what takes away most", downs))
        if each
    ]
    text = ", ".join(parts)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _instead(content: Content) -> str:
    assert content.against is not None and content.contrast is not None
    against, contrast = content.against, content.contrast
    ahead = "ahead of" if contrast.value >= 0 else "behind"
    return (
        f"It is {number(abs(contrast.value))} {ahead} {against.name} "
        f"({number(against.value)}): {number(contrast.inputs, signed=True)} from the input and "
        f"{number(contrast.constant, signed=True)} from the constants."
    )


def _holds(content: Content) -> str:
    if content.kind is Kind.SMOOTH:
        return "At this input only."
    if content.kind is Kind.AFFINE:
        return "For every input: this model makes no choices, so its weights are the same everywhere."
    same = "For all inputs around this one at which every unit of the model switches as it does here."
    radii = [radius for radius in content.extent.radii if radius.norm == 2]
    if not radii:
        return same
    return f"{same} {reach(radii[0], content.yardstick)}"


def origin(content: Content) -> str:
    """Where the constant comes from: the predicate of a sentence about it."""
    held = ", inputs of the model that are held at their values" if content.held else ""
    if content.kind is Kind.LOCALLY_CONSTANT:
        return "is the whole output: around this input the model puts out the same, however the input changes"
    if content.kind is not Kind.SMOOTH:
        levels = "" if content.kind is Kind.AFFINE else f", {_LEVELS}"
        return (
            "comes from what does not follow the input here: numbers of the layers’ own "
            f"(biases){levels}{held}. Each counts as far as the rest of the model lets it through"
        )
    if content.frozen:
        return (
            f"comes from numbers of the layers’ own (biases){held}, and from what is held at its value at "
            "this input, such as gates: with another input it would be another constant"
        )
    return (
        f"comes from numbers of the layers’ own (biases){held}, and from the bends: where a layer bends, its "
        "slope at this input times its value there is not its output, and the rest is added here. With "
        "another input it would be another constant"
    )


def constant(content: Content) -> str:
    """What the word means on this page."""
    if content.kind is Kind.SMOOTH:
        return (
            "What is left of the output once everything that the input adds is taken off: b. "
            "It is of this input."
        )
    if content.kind is Kind.AFFINE:
        return "What the model adds whatever the input’s values are: b."
    return "What the model adds whatever the input’s values are, as long as it switches as here: b."


def reach(radius: Radius, yardstick: Yardstick) -> str:
    """How far it is to the nearest switch, in a sentence."""
    if radius.boundary is None and radius.exact:
        return "There is no other switch within reach: it holds everywhere."
    if radius.exact:
        return (
            f"The nearest input at which one switches is at a distance of "
            f"{_distance(radius.distance, radius.step, yardstick)}; beyond it other weights may hold."
        )
    if radius.boundary is None and radius.at_least > 0:
        return f"That is so within a distance of {_distance(radius.at_least, None, yardstick)} at least."
    if radius.boundary is None:
        return "How far the nearest switch is was not found out."
    return (
        "The nearest input at which one switches was not settled: it is at a distance of at least "
        f"{_distance(radius.at_least, None, yardstick)}, where the search stopped, and at most "
        f"{_distance(radius.distance, radius.step, yardstick)}, where a switch was found."
    )


def between(radius: Radius) -> str:
    """What a distance that was not settled lies between, for a table."""
    if radius.exact:
        return number(radius.distance)
    least = f"at least {number(radius.at_least)}"
    return least if radius.boundary is None else f"{least}, at most {number(radius.distance)}"


def _distance(distance: float, step: Array | None, yardstick: Yardstick) -> str:
    told = yardstick.told(distance, step)
    return f"{written_out(distance)} ({told})" if told else written_out(distance)


def in_range(yardstick: Yardstick) -> str:
    """What distances are compared with, for a table's caption."""
    return f" The input’s values range {yardstick.range}." if yardstick.range else ""


def norm_words(norm: Norm) -> str:
    """What a distance counts."""
    return _NORMS[name_of(norm)]


def checked(content: Content) -> str:
    """The verdict of the verification."""
    certificate = content.certificate
    if not certificate.verified:
        return f"NOT verified, so do not rely on this page: {certificate.reason}."
    said = "The sum, yes" if certificate.untested else "Yes"
    text = f"{said}: onnxruntime, which runs such models in production, computes the same here"
    if certificate.at_x:
        text = f"{text}, to within {_deviation(certificate.at_x, content.size)}"
    if certificate.points_held:
        others = f"{certificate.points_held} other {'input' if certificate.points_held == 1 else 'inputs'}"
        text = f"{text}, and at {others} nearby"
        if certificate.in_region:
            text = f"{text} to within {written_out(certificate.in_region)}"
    text = f"{text}."
    if certificate.at_x:
        text = f"{text} Rounding alone may cause {_larger(certificate.at_x_over_bound)}."
    if certificate.untested:
        deeper = "" if certificate.double else "; the option --deep tests them"
        return f"{text} The weights by themselves were not tested: {certificate.untested}{deeper}."
    if certificate.double is not None and certificate.double.points:
        with_what = f"{certificate.double.evaluator} in double precision"
        text = f"{text} The weights by themselves were tested with {with_what}."
    return text


def _larger(over_bound: float) -> str:
    """What rounding may cause, beside what it did."""
    times = 1 / over_bound if over_bound else math.inf
    return f"{number(times)} times as much" if 2 <= times < math.inf else "as much"


def _deviation(size: float, largest: float) -> str:
    told = f" ({part(size / largest)} of the largest output)" if size < largest else ""
    return f"{written_out(size)}{told}"


def decision(content: Content) -> str:
    """How far the input is from where the two outputs would be equal."""
    assert content.against is not None
    a, b = content.explained.name, content.against.name
    nearest = next((each for each in content.nearest if each.norm == 2), None)
    if nearest is None or not math.isfinite(nearest.distance):
        return f"No change of the input brings {a} and {b} level by these weights."
    if nearest.distance == 0:
        return f"{a} and {b} are level at this very input."
    way = _distance(nearest.distance, nearest.step, content.yardstick)
    text = f"By these weights, {a} and {b} are level once the input moves by {way}"
    if content.kind is Kind.SMOOTH:
        return (
            f"{text}. The weights change on the way there, so the model's own draw may be nearer or farther."
        )
    if nearest.inside:
        return f"{text}. The model switches nowhere on that way, so it is the model's own decision boundary."
    if nearest.inside is None:
        return f"{text}. Whether the model still has these weights there was not found out."
    return (
        f"{text}. That lies beyond the region in which the model has these weights, so the model itself may "
        "change its mind sooner or later than that."
    )


def ties(certificate: Certificate) -> str:
    """What lies exactly on a switch."""
    if not certificate.guards:
        return "No unit of this model chooses."
    if not certificate.ties:
        return f"None of the {certificate.guards:,} units that choose lies exactly on its switch."
    verb = "lies" if certificate.ties == 1 else "lie"
    text = (
        f"{certificate.ties:,} of the {certificate.guards:,} units that choose {verb} exactly on the switch "
        "(ties). There the convention decides: a unit counts as off, and of equal values the first is taken."
    )
    if certificate.ties_that_matter is None:
        return f"{text} Empty parts of an input often make ties without any effect; --ties examines them."
    if not certificate.ties_that_matter:
        return f"{text} They were examined: another choice would change nothing."
    text = f"{text} For {certificate.ties_that_matter:,} of them another choice may give other weights"
    if certificate.ties_genuine is None:
        return f"{text}; whether the choices taken here are together those of a region is not known."
    if certificate.ties_genuine:
        return f"{text}: several regions meet at this input, and the page shows one of them."
    return f"{text}, and the choices taken here are together those of no region: do not rely on the weights."
