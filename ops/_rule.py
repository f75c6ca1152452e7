"""What a rule sees (`Site`), what it returns (`Local`), and how it is registered (`lowers`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from ..runtime.emit import Builder
from ..runtime.errors import UnsupportedError
from ..runtime.primitives import Array, Broadcast, Primitive, Reshape, Scale, Shape, chain
from ..runtime.program import Guard, HalfSpaces, Kind


@dataclass(frozen=True)
class Reading:
    """How operators are read that are not piecewise linear; the same for all nodes of a model."""

    frozen: bool = False  # hold gates, attention weights and denominators instead of differentiating them
    straight_through: bool = False  # take quantisation as linear inside its range, not as locally constant

    @classmethod
    def of(cls, mode: str = "tangent", quantized: str = "exact") -> Self:
        """The reading that goes by these names."""
        return cls(frozen=mode == "frozen", straight_through=quantized == "straight-through")

    @property
    def names(self) -> dict[str, str]:
        """The reading by the names of its options."""
        return {
            "mode": "frozen" if self.frozen else "tangent",
            "quantized": "straight-through" if self.straight_through else "exact",
        }


@dataclass(frozen=True)
class Operand:
    """One input of a node at x."""

    name: str
    shape: Shape
    active: bool  # depends on x, and is not held
    value: Array | None  # known where the operand is not active, or where the rule observes it

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Site:
    """One node at x: all that a rule may know.

    Values of operands that are not active come in the floating type that maps are composed in.
    """

    name: str
    op_type: str
    domain: str
    opset: int  # of the node's domain in the model
    attributes: Mapping[str, Any]  # defaults of the schema filled in
    inputs: tuple[Operand | None, ...]  # None where an optional input is left out
    formal: tuple[str, ...]  # the schema's name of each input
    outputs: tuple[str, ...]  # "" where an optional output is left out
    reading: Reading = Reading()

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, or `default` where neither the node nor the schema gives one."""
        value = self.attributes.get(name)
        return default if value is None else value

    def parameter(self, name: str, default: Any = None) -> Any:
        """Value of a parameter that is an attribute at some opsets and an input at others."""
        for formal, operand in zip(self.formal, self.inputs, strict=False):
            if formal == name and operand is not None:
                return operand.value
        return self.attribute(name, default)

    def integers(self, name: str, default: Any = None) -> tuple[int, ...] | None:
        """A parameter as a tuple of integers, or `default`."""
        value = self.parameter(name)
        return default if value is None else tuple(int(v) for v in np.ravel(value))

    def shape(self, position: int = 0) -> Shape:
        """Shape of an operand that is present."""
        return self._operand(position).shape

    def value(self, position: int = 0) -> Array:
        """Value at x of an operand that is present, not active or observed."""
        value = self._operand(position).value
        if value is None:
            raise AssertionError(f"{self.op_type}: operand {position} is active and not observed")
        return value

    def has(self, position: int) -> bool:
        """Whether an operand is present."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def active(self, position: int = 0) -> bool:
        """Whether an operand is present and depends on x."""
        return self.has(position) and self._operand(position).active

    def tensor(self, position: int = 0) -> str:
        """Name of an operand that is present."""
        return self._operand(position).name

    def _operand(self, position: int) -> Operand:
        operand = self.inputs[position]
        assert operand is not None
        return operand

    def broadcast_shape(self) -> Shape:
        """The common shape of all operands by numpy's rules."""
        return np.broadcast_shapes(*(operand.shape for operand in self.inputs if operand is not None))

    def spread(self, position: int, shape: Shape, aligned: Shape | None = None) -> Primitive:
        """The map from an operand to its copy in a larger shape: broadcasting, solved once.

        Args:
            position: of the operand.
            shape: the larger one.
            aligned: what the operand is read as before it is broadcast, by default its own shape.
        """
        own = self.shape(position)
        small = own if aligned is None else aligned
        if small == shape:
            return Reshape(own, shape)
        copies = Broadcast(small, shape)
        return copies if own == small else chain(Reshape(own, small), copies)

    def refuse(self, reason: str) -> UnsupportedError:
        """An error that names this node, for a use that no rule can lower exactly."""
        label = f"node {self.name!r} ({self.op_type}, {self.domain or 'ai.onnx'} opset {self.opset})"
        return UnsupportedError(f"{label}: {reason}")


@dataclass(frozen=True)
class Local:
    """A node at x as y = Σ Lᵢ xᵢ + c.

    `terms` maps the position of each active input to its primitive, or lists such pairs where one input
    has several; one primitive alone stands for position 0. The offset comes from parameters and held values,
    never from the node's own output. Where the node is smooth, y = f(u), the terms are its Jacobian J at u
    and the offset is f(u) - J u, with f from the operator's equation; `tangent` puts that together.
    """

    terms: Mapping[int, Primitive] | Sequence[tuple[int, Primitive]] | Primitive
    offset: Array | float | None = None
    guards: tuple[Guard, ...] = ()
    offset_size: Array | float | None = None  # Σ |parts| where the offset is a sum whose parts may cancel
    rounds: bool = False  # stores its result in another floating type
    kind: Kind | None = None  # None: piecewise-linear with guards, else the kind the rule is registered with
    frozen: bool = False  # exact at x with something held that depends on x, so the terms are no derivative
    roundings: int = 0  # further roundings behind one output, such as those of an exponential
    slack: Array | float | None = (
        None  # how far the output itself may be from this by design: a rounding to a grid
    )

    @property
    def by_position(self) -> tuple[tuple[int, Primitive], ...]:
        """The terms as pairs of input position and primitive; a position may come twice."""
        if isinstance(self.terms, Primitive):
            return ((0, self.terms),)
        return tuple(self.terms.items() if isinstance(self.terms, Mapping) else self.terms)


Rule = Callable[[Site], Local | tuple[Local, ...]]  # one for each output that varies with x
Watch = Callable[[Site], tuple[Guard, ...]]  # what keeps a locally constant node's outputs as they are
When = Callable[[Mapping[str, Any], Reading], bool]
Constants = Callable[[int], Array | None]  # by input position, where the model itself holds the value
Gate = Callable[[Collection[int], Constants], bool]  # of the positions of inputs that depend on x
R = TypeVar("R", bound=Rule)


@dataclass(frozen=True)
class Entry:
    """A registered rule, with what can be said of it before anything runs."""

    op_type: str
    domain: str
    kind: Kind
    rule: Rule | None  # None: locally constant, evaluated and never lowered
    observes: tuple[int, ...] | None = ()  # active inputs whose value at x the rule needs; None: all
    linear_in: tuple[int, ...] | None = None  # inputs that may be active for it to be linear; None: all
    products: tuple[tuple[int, int], ...] = ()  # pairs of inputs that are multiplied
    constant_outputs: tuple[int, ...] = ()  # outputs that do not change around x: indices, masks
    module: str = ""
    tangent: bool = False  # whether the rule takes uses that are not linear by their tangent
    gate: bool | Gate = False  # used to weigh something else (in which uses): frozen products hold it
    watch: Watch | None = None  # the guards of a locally constant node; None: its outputs at x are compared
    by_shape: bool = False  # locally constant because the outputs depend on shapes alone
    when: When | None = None  # which uses it serves; None: all
    otherwise: Entry | None = None  # what serves the others

    def serving(self, attributes: Mapping[str, Any], reading: Reading) -> Entry | None:
        """The entry for a use of the operator, or None where none serves it."""
        if self.when is None or self.when(attributes, reading):
            return self
        return None if self.otherwise is None else self.otherwise.serving(attributes, reading)

    def gates(self, moving: Collection[int], constants: Constants) -> bool:
        """Whether it makes a gate of these inputs."""
        return self.gate if isinstance(self.gate, bool) else self.gate(moving, constants)

    def bends(self, moving: Collection[int]) -> bool:
        """Whether the operator is not even piecewise linear in these inputs together."""
        beyond = self.linear_in is not None and not set(moving) <= set(self.linear_in)
        return beyond or any(left in moving and right in moving for left, right in self.products)


REGISTRY: dict[tuple[str, str], Entry] = {}


def lowers(
    *op_types: str,
    domain: str = "",
    kind: Kind = Kind.AFFINE,
    observes: tuple[int, ...] | None = (),
    linear_in: tuple[int, ...] | None = None,
    products: tuple[tuple[int, int], ...] = (),
    constant_outputs: tuple[int, ...] = (),
    tangent: bool = False,
    gate: bool | Gate = False,
    when: When | None = None,
    replace: bool = False,
) -> Callable[[R], R]:
    """Register a rule for one or more operators.

    Args:
        op_types: ONNX operator names.
        domain: their domain; "" is ai.onnx.
        kind: how far the rule's answer holds at most.
        observes: positions of active inputs whose values at x the rule reads; None for all.
        linear_in: positions of inputs that may depend on x; None for all. Others are parameters.
        products: pairs of positions that the operator multiplies: not both may depend on x.
        constant_outputs: positions of outputs that do not change around x, such as indices.
        tangent: the rule also takes inputs outside of these limits, by its tangent at x; it is then given
            the values of all active inputs, and the node is smooth. Without it such uses are refused.
        gate: in frozen mode, a product holds what comes from this operator (a sigmoid, a softmax); or in
            which uses, by the positions of inputs that depend on x and the constants at the others.
        when: which uses this rule serves, by the node's attributes; another may serve the others.
        replace: take these uses from the rule that serves them; without it a second rule is an error.

    Raises:
        ValueError: the operator has a rule.
    """

    def register(rule: R) -> R:
        for op_type in op_types:
            _enter(
                Entry(
                    *(op_type, domain, kind, rule, observes, linear_in, products, constant_outputs),
                    module=rule.__module__,
                    tangent=tangent,
                    gate=gate,
                    when=when,
                ),
                replace,
            )
        return rule

    return register


def _enter(entry: Entry, replacing: bool = False) -> None:
    """Add an entry to the registry, before those that serve other uses of the operator.

    Raises:
        ValueError: it would take uses from another entry, and is not meant to.
    """
    key = (entry.domain, entry.op_type)
    before = REGISTRY.get(key)
    if before is not None and not replacing and (before.when is None or entry.when is None):
        raise ValueError(
            f"two rules for {entry.op_type}: {before.module} and {entry.module}; "
            "replace=True takes the second"
        )
    REGISTRY[key] = dataclasses.replace(entry, otherwise=before if entry.when else None)


def registered_by_others(op_type: str, domain: str) -> bool:
    """Whether an operator has a rule that is not one of ilin's own."""
    entry = REGISTRY.get((domain, op_type))
    while entry is not None:
        if not entry.module.startswith(f"{__package__}."):
            return True
        entry = entry.otherwise
    return False


Explanation = Callable[[Site, Builder], tuple[str, ...]]
EXPLANATIONS: dict[tuple[str, str], Explanation] = {}


def explains(*op_types: str, domain: str = "") -> Callable[[Explanation], Explanation]:
    """Register how a graph computes, while it runs, what a rule reads off the values at x.

    The function is given the node, with no values but constant ones, and a builder. It adds nodes that read
    the node's inputs by their names, and returns the tensors that stand for the rule's arrays: the offset,
    where the rule has one, then one for each active input. Their types are those of the rule's arrays.
    """

    def register(explanation: Explanation) -> Explanation:
        for op_type in op_types:
            EXPLANATIONS[(domain, op_type)] = explanation
        return explanation

    return register


def like(site: Site, graph: Builder, value: float) -> str:
    """A number in the floating type of the node's first input, which is the model's to choose."""
    return graph.node("CastLike", graph.constant(np.array(value)), site.tensor(0))


def positive(site: Site, graph: Builder) -> str:
    """Which entries of the first input are above 0."""
    return graph.node("Greater", site.tensor(0), like(site, graph, 0.0))


def constant_by_shape(module: str, *op_types: str, domain: str = "") -> None:
    """Register operators that depend on the shapes of active inputs alone: evaluated, never lowered."""
    for op_type in op_types:
        _enter(Entry(op_type, domain, Kind.LOCALLY_CONSTANT, None, module=module, by_shape=True))


def locally_constant(
    module: str, *op_types: str, domain: str = "", when: When | None = None, replace: bool = False
) -> None:
    """Register operators whose outputs only jump: evaluated, never lowered.

    They stand for W = 0. An answer holds as long as their outputs are those at x.

    Args:
        module: that registers them, `__name__`.
        op_types: ONNX operator names.
        domain: their domain; "" is ai.onnx.
        when: as in `lowers`.
        replace: as in `lowers`.

    Raises:
        ValueError: an operator has a rule.
    """
    for op_type in op_types:
        _enter(Entry(op_type, domain, Kind.LOCALLY_CONSTANT, None, module=module, when=when), replace)


def jumps(
    *op_types: str, domain: str = "", when: When | None = None, replace: bool = False
) -> Callable[[Watch], Watch]:
    """Register a locally constant operator with its guards, a function of the node with its values at x.

    Args:
        op_types: ONNX operator names.
        domain: their domain; "" is ai.onnx.
        when: as in `lowers`.
        replace: as in `lowers`.

    Raises:
        ValueError: an operator has a rule.
    """

    def register(watch: Watch) -> Watch:
        for op_type in op_types:
            kind, module = Kind.LOCALLY_CONSTANT, watch.__module__
            _enter(Entry(op_type, domain, kind, None, None, module=module, watch=watch, when=when), replace)
        return watch

    return register


def stays(output: Array) -> Guard:
    """Guard of an output that only jumps: it is what it is at x. How far the next jump is nobody knows."""

    def unknown() -> Array:
        return np.full(output.shape, np.nan)

    return Guard(output, unknown, lambda: HalfSpaces(()))


def threshold(value: Array, at: Array | float = 0.0, position: int = 0) -> Guard:
    """Guard of an elementwise kink: the side of `at` on which the operand lies, `at` itself below."""
    above = value > at

    def margins() -> Array:
        return np.abs(value - at)

    def half_spaces() -> HalfSpaces:
        sign = np.where(above, 1, -1).astype(value.dtype)
        return HalfSpaces(((position, Scale(value.shape, sign)),), -(sign * at))

    return Guard(above, margins, half_spaces)


def between(value: Array, low: Array, high: Array, position: int = 0) -> Guard:
    """Guard of an elementwise jump: the interval [low, high] in which each entry of the operand lies."""

    def margins() -> Array:
        return np.asarray(np.minimum(value - low, high - value))

    def half_spaces() -> HalfSpaces:
        """Rows: x - low ≥ 0, then high - x ≥ 0; an end that is infinite holds always."""
        ends = np.stack([-low, high])
        signs = np.stack([np.ones_like(value), -np.ones_like(value)])
        finite = np.isfinite(ends)
        both = chain(Broadcast(value.shape, ends.shape), Scale(ends.shape, np.where(finite, signs, 0)))
        return HalfSpaces(((position, both),), np.where(finite, ends, 0))

    return Guard(low, margins, half_spaces)


def sign_of(value: Array, position: int = 0) -> Guard:
    """Guard of the sign of each entry of an operand; 0 is a sign of its own."""
    low, high = np.where(value < 0, -np.inf, 0), np.where(value > 0, np.inf, 0)
    return dataclasses.replace(between(value, low, high, position), choice=np.sign(value))


def side_of(site: Site, left: int = 0, right: int = 1) -> Guard:
    """Guard of a comparison: which of two operands is larger, entry by entry; equality is a side too."""
    shape = site.broadcast_shape()
    difference = np.broadcast_to(site.value(left), shape) - np.broadcast_to(site.value(right), shape)
    side = np.sign(difference)

    def half_spaces() -> HalfSpaces:
        """Rows: the larger minus the smaller; where they are equal, either way, in two rows."""
        equal = side == 0
        ways = [np.where(equal, 1, side), np.where(equal, -1, 0)] if equal.any() else [side]
        signs = np.stack(ways)
        terms = []
        lost: Array = np.zeros(signs.shape, difference.dtype)
        for position, sign in ((left, signs), (right, -signs)):
            if site.active(position):
                spread = Broadcast(site.shape(position), signs.shape)
                terms.append((position, chain(spread, Scale(signs.shape, sign))))
            else:
                lost = lost + sign * np.broadcast_to(site.value(position), shape)
        return HalfSpaces(tuple(terms), lost)

    return Guard(side, lambda: np.abs(difference), half_spaces)


_FLOATING = (1, 10, 11, 16)  # TensorProto.DataType: FLOAT, FLOAT16, DOUBLE, BFLOAT16


def to_floating(attributes: Mapping[str, Any], _: Reading) -> bool:
    """Whether a cast goes to a type that is differentiated."""
    return attributes.get("to") in _FLOATING


def to_other(attributes: Mapping[str, Any], reading: Reading) -> bool:
    """Whether a cast goes to integers, booleans or strings."""
    return not to_floating(attributes, reading)
