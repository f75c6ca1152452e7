"""Plan: how W will be computed and what that costs, before anything is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from ..runtime.errors import MemoryLimitError, OptionError
from ..runtime.html import facts
from ..runtime.memory import readable
from ..runtime.primitives import Contract
from ..runtime.program import Kind, LinearProgram
from ..runtime.transpose import transposed
from .cuts import Tensors, cuts_of, stretch, width

Direction = Literal["auto", "reverse", "forward", "cut"]
DIRECTIONS: tuple[Direction, ...] = ("auto", "reverse", "forward", "cut")

EngineName = Literal["auto", "sparse", "matrix-free", "adjoint", "fused"]
ENGINES: tuple[EngineName, ...] = ("auto", "sparse", "matrix-free", "adjoint", "fused")


@dataclass(frozen=True)
class Rates:
    """What one engine reaches. Measured on two cores; only their ratios decide."""

    dense: float  # multiply-adds per second in matrix products
    convolved: float  # in convolutions
    moved: float  # elements read or written per second
    per_step: float  # seconds of overhead for each step and block
    lanes: int = 1  # rows come in vectors of so many; fewer than half of one are cheaper, see `padded`
    listed: float = 0.0  # seconds for each element and block, however many rows
    active: float = 1.0  # fraction of the units that it touches where half of them are dead
    block: int = 1 << 30  # rows that it takes at once at most
    cache: int = 1 << 60  # bytes that a block of rows may take in the largest step, for speed
    memory: float = 1.0  # of a sweep, over what numpy takes

    def padded(self, rows: int) -> float:
        """How many rows of full vectors cost as much."""
        whole, rest = divmod(rows, self.lanes)
        if 2 * rest > self.lanes:
            return float((whole + 1) * self.lanes)
        return whole * self.lanes + (_STRIP + _STRIP_ROW * rest if rest else 0.0)


_STRIP, _STRIP_ROW = 1.5, 1.3  # what a strip costs, and each of its rows, in rows of full vectors

# Where half of the units are dead, engines that skip them do a quarter of the multiply-adds.
RATES: dict[EngineName, Rates] = {
    "sparse": Rates(8e9, 8e9, 2e8, 2e-4, active=0.5),
    "matrix-free": Rates(4e10, 1.5e10, 4e8, 1.5e-5),
    "adjoint": Rates(5e10, 7e10, 2e9, 1e-5, cache=64 << 20, memory=3.0),
    "fused": Rates(2e10, 6.5e10, 4e9, 4e-5, lanes=16, listed=2e-9, active=0.55, block=128),
}
_PRODUCT = 6e10  # multiply-adds per second of one large matrix product
_POINTS = 3  # that memory for a certificate is reckoned with: x, a fresh one, and one to spare
_WALKS = 14  # of one point through the network: values and magnitudes at each, and the search for fresh ones
_SEARCH = 3  # of one point through the network: the search alone, mostly by onnxruntime
BUDGET = 1 << 30  # bytes of a sweep's blocks at most: larger ones are not faster
_CLOSE_LOOK = 64 << 20  # bytes of a block from which they are counted step by step
_WORTH = 10_000_000  # multiply-adds of a leg below which nothing but numpy pays for its start


@dataclass(frozen=True)
class Leg:
    """One stretch of the program between two cuts, and how it is swept."""

    first: int  # steps[first:last]
    last: int
    below: Tensors
    above: Tensors
    direction: Literal["reverse", "forward"]
    engine: EngineName
    passes: int  # rows in reverse, columns forward
    block: int  # passes at once
    multiply_adds: int
    seconds: float
    bytes: int  # of one block's sweep

    def of(self, program: LinearProgram) -> LinearProgram:
        """The stretch as a program of its own."""
        return stretch(program, self.first, self.last, self.below, self.above)


@dataclass(frozen=True)
class Checks:
    """What reading the certificate, on its default level, would cost besides."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Plan:
    """How W is computed, from the outputs down, with estimates of the cost."""

    legs: tuple[Leg, ...]
    rows: int  # K
    columns: int  # N
    itemsize: int
    limit: int  # bytes that W and the sweep's blocks may take
    speed: float = 1.0  # of this machine, relative to the one that RATES were measured on
    checks: Checks | None = None  # what the certificate would cost, where it was asked for

    @property
    def W_bytes(self) -> int:
        """Size of W."""
        return self.rows * self.columns * self.itemsize

    @property
    def passes(self) -> int:
        """Passes through the network, forward or backward, counted whole."""
        return max(leg.passes for leg in self.legs)

    @property
    def multiply_adds(self) -> int:
        """Of all passes, dense, and of the products where two legs meet."""
        return sum(leg.multiply_adds for leg in self.legs) + self._products

    @property
    def seconds(self) -> float:
        """Estimate of the time, the observation of the model left out."""
        return (sum(leg.seconds for leg in self.legs) + self._products / _PRODUCT) / self.speed

    @property
    def joints(self) -> frozenset[str]:
        """Tensors between two legs, and the inputs."""
        return frozenset(name for leg in self.legs for name, _ in leg.below)

    @property
    def fits(self) -> bool:
        """Whether W and the smallest blocks of the sweep are within the limit."""
        return self.peak_bytes <= self.limit

    def require_fit(self) -> None:
        """Refuse a W that does not fit.

        Raises:
            MemoryLimitError: it says how big W is, and what to do instead.
        """
        if self.W_bytes <= self.limit < self.peak_bytes:
            raise MemoryLimitError(
                f"W would fit, but composing it takes about {readable(self.peak_bytes)}, over the limit of "
                f"{readable(self.limit)}; raise memory_limit, ask for other outputs, or for fewer rows"
            )
        if not self.fits:
            raise MemoryLimitError(
                f"W would have {self.rows:,} × {self.columns:,} entries, {readable(self.W_bytes)}, over the "
                f"limit of {readable(self.limit)}; ask for fewer rows (rows=3 for the three largest outputs, "
                "or a list of indices), for W as an operator (materialize=False), or raise memory_limit"
            )

    @property
    def peak_bytes(self) -> int:
        """Estimate of the memory, the model itself left out."""
        joined = sum(self.rows * width(leg.above) * self.itemsize for leg in self.legs[1:])
        return self.W_bytes + joined + max(leg.bytes for leg in self.legs)

    @property
    def engine(self) -> str:
        """The legs' engines."""
        return "+".join(dict.fromkeys(leg.engine for leg in self.legs))

    @property
    def direction(self) -> str:
        """The way of the sweep, or "cut" where there are several."""
        return self.legs[0].direction if len(self.legs) == 1 else "cut"

    @property
    def _products(self) -> int:
        return sum(self.rows * width(leg.above) * width(leg.below) for leg in self.legs[1:])

    def _repr_html_(self) -> str:
        about = {
            "W": f"{self.rows:,} × {self.columns:,}, {readable(self.W_bytes)}",
            "engine": self.engine,
            "direction": self.direction,
            "multiply-adds": counted(self.multiply_adds),
            "memory": f"about {readable(self.peak_bytes)}",
            "time": f"about {duration(self.seconds)}",
        }
        return facts("Plan", about)

    def __str__(self) -> str:
        how = "; then ".join(
            f"{_vectors(leg)} {'back to' if leg.direction == 'reverse' else 'on from'} {named(leg.below)}, "
            f"{leg.engine}"
            for leg in self.legs
        )
        return (
            f"W {self.rows:,} × {self.columns:,}: {how}; {counted(self.multiply_adds)} multiply-adds, "
            f"about {readable(self.peak_bytes)} and {duration(self.seconds)}"
        )


def plan_of(
    program: LinearProgram,
    K: int,
    dtype: np.dtype[Any],
    *,
    engines: Sequence[EngineName],
    direction: Direction = "auto",
    limit: int,
    budget: int | None = None,
) -> Plan:
    """Choose the cheapest way to K rows of W.

    Args:
        program: the network; only its structure counts.
        K: number of rows.
        dtype: of the composition.
        engines: those to choose from.
        direction: "reverse", "forward", "cut" (through the best inner cut), or "auto".
        limit: bytes that W and the sweep's blocks may take.
        budget: bytes that the blocks may take; what W leaves of the limit by default. Given where W does not
            stay in memory.

    Raises:
        OptionError: a cut is asked for, and the program has no inner one; or an engine that cannot run it.
    """
    if budget is None:
        budget = min(max(limit - K * program.in_size * dtype.itemsize, 0), BUDGET)
    costs = _Costs(program, dtype.itemsize, engines, budget)
    if tuple(engines) == ("adjoint",) and dtype == np.float64 and costs.convolved[-1]:
        raise OptionError(
            "engine 'adjoint' runs in onnxruntime, which has no float64 Conv on the CPU; use "
            "dtype='float32', or another engine"
        )
    legs = _best_legs(costs, K, direction)
    sized = tuple(_sized(leg, program, dtype, budget) for leg in legs)
    return Plan(sized, K, program.in_size, dtype.itemsize, limit)


def _sized(leg: Leg, program: LinearProgram, dtype: np.dtype[Any], budget: int) -> Leg:
    """The leg with the blocks that its memory allows: the choice was made by a rougher estimate."""
    if leg.engine != "sparse" and leg.bytes < min(budget, _CLOSE_LOOK):
        return leg
    from .footprint import explicit_bytes, rows_that_fit, sweep_bytes
    from .fused import fused_bytes

    part = leg.of(program)
    swept = part if leg.direction == "reverse" else transposed(part, offsets=True)
    rates = RATES[leg.engine]
    fixed = explicit_bytes(swept, dtype) if leg.engine == "sparse" else 0
    most = max(1, min(leg.passes, leg.block))
    if leg.engine == "fused":
        block = max(1, min(most, budget * most // max(1, fused_bytes(swept, most, dtype))))
        return replace(leg, block=block, bytes=fused_bytes(swept, block, dtype))
    block = rows_that_fit(swept, most, dtype, int((budget - fixed) / rates.memory))
    return replace(leg, block=block, bytes=fixed + int(rates.memory * sweep_bytes(swept, block, dtype)))


def checks_of(plan: Plan, program: LinearProgram, dtype: np.dtype[Any]) -> Checks:
    """What the certificate costs by default: one row swept back for its bound, and the search for points.

    A map that was made in several legs or forward has every row swept once more, and one without a region
    every step checked: walks with values and with magnitudes, by numpy.
    """
    from .footprint import bounds_bytes

    costs = _Costs(program, dtype.itemsize, ("adjoint",) if dtype == np.float32 else ("matrix-free",), BUDGET)
    whole = len(plan.legs) > 1 or plan.direction != "reverse" or program.kind is Kind.SMOOTH
    swept = sum(
        costs.leg(leg.first, leg.last, leg.passes if whole else 1, ("reverse",)).seconds for leg in plan.legs
    )
    walked = costs.leg(0, len(program.steps), 1, ("reverse",))
    rates = RATES["matrix-free"]
    one = (
        costs.dense[-1] / rates.dense + costs.convolved[-1] / rates.convolved + costs.moved[-1] / rates.moved
    )
    seconds = swept + (_WALKS if whole else _SEARCH) * (one + len(program.steps) * rates.per_step)
    return Checks(seconds / plan.speed, bounds_bytes(program, _POINTS, dtype) + walked.bytes)


@cache
def machine_speed() -> float:
    """This machine's rate of one matrix product over that of the machine that RATES were measured on."""
    size = 768
    matrix = np.ones((size, size), np.float32)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return float(size**3 / min(seconds) / _PRODUCT)


# -- costs -------------------------------------------------------------------------------------------


class _Costs:
    """Sums over steps, so that any stretch is priced in a few operations."""

    def __init__(
        self, program: LinearProgram, itemsize: int, engines: Sequence[EngineName], budget: int
    ) -> None:
        self.program, self.itemsize, self.engines, self.budget = program, itemsize, engines, budget
        self.cuts = cuts_of(program)
        self.widths = [width(cut) for cut in self.cuts]
        dense, convolved, moved, peak, offsets = [], [], [], [], []
        for step in program.steps:
            worked = [(L, L.work) for _, L in step.terms if L.fan_in > 1]
            dense.append(sum(work for L, work in worked if isinstance(L, Contract)))
            convolved.append(sum(work for L, work in worked if not isinstance(L, Contract)))
            sizes = sum(L.in_size + L.out_size for _, L in step.terms)
            moved.append(sizes)
            peak.append(sizes)
            offsets.append(step.offset is not None)
        self.dense, self.convolved, self.moved = _running(dense), _running(convolved), _running(moved)
        self.offsets = _running(offsets)
        self.peak = peak

    def leg(self, first: int, last: int, rows: int, directions: Sequence[str]) -> Leg:
        """The cheapest sweep from cut `first` up to cut `last` for a number of rows."""
        candidates = []
        columns = self.widths[first] + self.offsets[last] - self.offsets[first]
        for engine in self.engines:
            if "reverse" in directions:
                candidates.append(self._leg(first, last, rows, "reverse", engine))
            if "forward" in directions:
                candidates.append(self._leg(first, last, columns, "forward", engine))
        plain = [leg for leg in candidates if leg.engine == "matrix-free"]
        if plain and min(leg.multiply_adds for leg in plain) < _WORTH:
            candidates = plain
        return min(candidates, key=lambda leg: leg.seconds)

    def _leg(
        self,
        first: int,
        last: int,
        passes: int,
        direction: Literal["reverse", "forward"],
        engine: EngineName,
    ) -> Leg:
        rates = RATES[engine]
        dense, convolved, moved = (
            total[last] - total[first] for total in (self.dense, self.convolved, self.moved)
        )
        per_pass = (
            rates.active**2 * (dense / rates.dense + convolved / rates.convolved)
            + rates.active * moved / rates.moved
        )
        largest = self.itemsize * max([*self.peak[first:last], self.widths[first], self.widths[last]])
        one = 3 * largest
        block = max(1, min(passes, rates.block, rates.cache // max(1, largest), self.budget // max(1, one)))
        blocks = -(-passes // block)
        return Leg(
            first,
            last,
            self.cuts[first],
            self.cuts[last],
            direction,
            engine,
            passes,
            block,
            passes * (dense + convolved),
            rates.padded(passes) * per_pass
            + blocks * ((last - first) * rates.per_step + moved * rates.listed),
            block * one,
        )


def _running(values: Sequence[int]) -> list[int]:
    sums = [0]
    for value in values:
        sums.append(sums[-1] + value)
    return sums


# -- the choice --------------------------------------------------------------------------------------

_CANDIDATES = 40  # inner cuts that are tried


def _best_legs(costs: _Costs, K: int, direction: Direction) -> tuple[Leg, ...]:
    """The cheapest sequence of legs from the outputs down to the inputs: a shortest path over the cuts."""
    top = len(costs.program.steps)
    if direction in ("reverse", "forward"):
        return (costs.leg(0, top, K, (direction,)),)
    inner = _narrow(costs, K) if direction == "auto" else _inner(costs)
    if direction == "cut" and not inner:
        raise OptionError("direction 'cut' needs a tensor between the inputs and the outputs; use 'auto'")
    both = ("reverse", "forward")
    best: dict[int, tuple[float, tuple[Leg, ...]]] = {}
    for i in sorted([0, *inner], reverse=True):
        whole = costs.leg(i, top, K, both)
        ways: list[tuple[float, tuple[Leg, ...]]] = (
            [(whole.seconds, (whole,))] if i or direction == "auto" else []
        )
        for j, (seconds, legs) in best.items():
            leg = costs.leg(i, j, costs.widths[j], both)
            product = K * costs.widths[j] * costs.widths[i] / _PRODUCT
            ways.append((seconds + leg.seconds + product, (*legs, leg)))
        best[i] = min(ways, key=lambda way: way[0])
    return best[0][1]


def _narrow(costs: _Costs, K: int) -> list[int]:
    """Inner cuts that are narrower than K rows and than their neighbours, those without elements left out."""
    widths = costs.widths
    found = [
        i
        for i in range(1, len(widths) - 1)
        if 0 < widths[i] < K and widths[i] <= widths[i - 1] and widths[i] < widths[i + 1]
    ]
    return sorted(found, key=lambda i: widths[i])[:_CANDIDATES]


def _inner(costs: _Costs) -> list[int]:
    """The narrowest cuts between the inputs and the outputs, whatever they cost."""
    found = [i for i in range(1, len(costs.widths) - 1) if costs.widths[i]]
    return sorted(found, key=lambda i: costs.widths[i])[:_CANDIDATES]


# -- words -------------------------------------------------------------------------------------------


def _vectors(leg: Leg) -> str:
    """How many rows or columns a leg carries."""
    noun = "row" if leg.direction == "reverse" else "column"
    return f"{leg.passes:,} {noun}{'' if leg.passes == 1 else 's'}"


def named(cut: Tensors) -> str:
    """A cut in words."""
    names = [f"{name}{list(shape)}" for name, shape in cut]
    return names[0] if len(names) == 1 else f"{len(names)} tensors of {width(cut):,} elements"


def counted(count: float) -> str:
    """A large number in words."""
    for unit in ("", " thousand", " million", " billion"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:,.3g} trillion"


def duration(seconds: float) -> str:
    """A time in the unit that a person would choose."""
    if seconds < 1:
        return f"{1000 * seconds:.2g} ms"
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"
