"""Verify a saved map again: later, elsewhere, by onnxruntime and numpy alone.

Nothing here lowers the model or knows a rule: whatever made the map, what is left of it is a file of numbers,
and a model that can be run. docs/verify_standalone.py does the same without ilin, but for float64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner

from .archive import DAMAGE, header_digest, part_digests
from .arrays import Array, overflow_refused_later
from .errors import IlinError, ModelError, OutputError, UnknownTensorError
from .in_double import evaluated, seconds
from .linearization import Linearization
from .model_file import ModelSource, read_model
from .program import Kind
from .record import Interior, Record, is_near
from .saved import damaged, map_of, read
from .session import ReferenceSession, Runner, Session, environment
from .surgery import sort_topologically, with_inputs
from .surroundings import Surroundings, digest, take_in_attributes

_BETWEEN = 3  # points between x and those on record that are made afresh
_SECONDS = 5.0  # that float64 may take by the estimate, where it is not asked for
_VISIBLE = 0.01  # of what goes in or comes out: a deviation that nobody would call rounding
_ROWS = 4096  # of W at once
_WORDS = {True: "pass", False: "FAIL", None: "-   "}


@dataclass(frozen=True)
class Finding:
    """One check of a saved map."""

    check: str
    passed: bool | None  # None: there is nothing to be checked, for the reason told
    told: str  # what was compared, and how it came out
    over_bound: float | None = None  # the largest deviation over its bound, where numbers are compared
    moved_over_bound: float | None = None  # of points: the largest change of the output from x over it

    def __str__(self) -> str:
        return f"{_WORDS[self.passed]}  {self.check}: {self.told}"


@dataclass(frozen=True, repr=False)
class Verification:
    """What `verify` found out about a saved map."""

    findings: tuple[Finding, ...]
    made_with: Mapping[str, Any]  # versions and settings, as the file tells
    made_here: bool  # whether the file was made with this onnxruntime on this kind of machine
    kind: Kind
    shape: tuple[int, int]  # (K, N)

    @property
    def holds(self) -> bool:
        """Whether no check failed."""
        return all(finding.passed is not False for finding in self.findings)

    @property
    def failed(self) -> tuple[str, ...]:
        """The checks that failed, in order."""
        return tuple(finding.check for finding in self.findings if finding.passed is False)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return {
            "holds": self.holds,
            "kind": str(self.kind),
            "shape": list(self.shape),
            "made_with": dict(self.made_with),
            "made_here": self.made_here,
            "checks": [asdict(finding) for finding in self.findings],
        }

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        how = "holds" if self.holds else f"does not hold: {', '.join(self.failed)}"
        return f"Verification({how}; {len(self.findings)} checks)"

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def verify(
    path: str | os.PathLike[str],
    model: ModelSource,
    x: Any = None,
    *,
    double: bool | None = None,
    custom_ops: Sequence[str | os.PathLike[str]] = (),
    providers: Sequence[str] | None = None,
) -> Verification:
    """Check a saved map against its model again, by onnxruntime and numpy alone.

    A check that fails is a finding and no error, and the others are still made: a model of another hash is
    run all the same.

    Args:
        path: a file that `AffineMap.save` wrote, or a folder of blocks.
        model: path of the ONNX file, its bytes, or an onnx.ModelProto.
        x: compared with the x of the map, if given: an array where the model has one input, else input name
            to array.
        double: whether W is also compared with the model evaluated in float64, at points inside the region;
            None for where that is estimated to take up to 5 s.
        custom_ops: shared libraries that implement operators of the model for onnxruntime.
        providers: onnxruntime execution providers; the CPU's by default.

    Raises:
        OutputError: no such file, no map, or one of an older format, which holds nothing to check it by.
        ModelError: the model cannot be read.
        OptionError: a library that cannot be loaded.
    """
    header, arrays = read(path)
    try:
        affine = map_of(Linearization, header, arrays)
        if affine.record is None:
            raise OutputError(
                f"{path} holds no points and bounds to check it by, as it is of format 1 or was loaded from "
                "such; compile the model again"
            )
        saved = _Saved(header, arrays, affine, affine.record)
        findings = [*_alone(saved)]
        made = dict(affine.provenance)
    except DAMAGE as error:
        raise damaged(path, error) from error
    subject = _Model(model, tuple(os.fspath(library) for library in custom_ops), providers)
    findings.append(_same_model(saved, subject))
    if x is not None:
        findings.append(_given(saved, subject, x))
    if findings[0].passed:
        with overflow_refused_later():
            findings += _numbers(saved, subject, double)
    else:
        findings.append(Finding("numbers", None, "not compared, as the file does not fit together"))
    made_here = all(made.get(name) == value for name, value in environment().items())
    return Verification(tuple(findings), made, made_here, saved.affine.kind, saved.affine.W.shape)


# -- the two sides -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Saved:
    """What the file says."""

    header: Mapping[str, Any]
    arrays: Mapping[str, Array]
    affine: Linearization
    record: Record

    @property
    def places(self) -> list[Mapping[str, Array]]:
        """X and the fresh points."""
        points = self.record.points
        count = len(self.record.bounds) - 1
        return [self.affine.inputs, *({name: points[name][i] for name in points} for i in range(count))]

    def slopes(self, steps: Array) -> Array:
        """W times (P, N) steps in float64, (P, K)."""
        W: Any = self.affine.W
        if not isinstance(W, np.ndarray):
            return np.asarray(W @ steps.T).T
        blocks = (steps @ W[first : first + _ROWS].astype(np.float64).T for first in range(0, len(W), _ROWS))
        return np.concatenate([*blocks, np.zeros((len(steps), 0))], axis=1)

    def product(self, z: Mapping[str, Array]) -> Array:
        """W z + b in float64, (K,)."""
        return np.asarray(self.slopes(_flat(z)[None])[0] + self.affine.b)

    def sizes(self) -> Array:
        """Σ |W| |x| + Σ |shares|: what a row adds up at x, (K,)."""
        W: Any = self.affine.W
        x = np.abs(_flat(self.affine.inputs))
        if isinstance(W, np.ndarray):
            blocks = (np.abs(W[first : first + _ROWS]) @ x for first in range(0, len(W), _ROWS))
            products = np.concatenate([*blocks, np.zeros(0)])
        else:
            products = np.asarray(abs(W) @ x)
        return np.asarray(products + np.abs(self.arrays["bias_shares"]).sum(axis=0))


class _Model:
    """The model, run as it is written."""

    def __init__(
        self, model: ModelSource, libraries: tuple[str, ...], providers: Sequence[str] | None
    ) -> None:
        self.proto, content, self.name = read_model(model)
        folder = Path(model).absolute().parent if isinstance(model, str | os.PathLike) else None
        self.sha256 = digest(content, self.proto, folder)
        take_in_attributes(self.proto, folder)
        sort_topologically(self.proto.graph)
        self._surroundings, self._providers = Surroundings(folder, libraries), providers
        self._runner: Runner | None = None
        self.note = ""

    @cached_property
    def inputs(self) -> list[str]:
        """Names of what has to be given."""
        constants = {tensor.name for tensor in self.proto.graph.initializer}
        return [put.name for put in self.proto.graph.input if put.name not in constants]

    def outputs_at(self, saved: _Saved, z: Mapping[str, Array]) -> Array:
        """F(z) at the rows of the map, (K,), in float64.

        Raises:
            ModelError: it does not run.
            UnknownTensorError: it lacks one of the map's tensors.
        """
        feeds = {**saved.affine.held, **z}
        if self._runner is None:
            self._runner = self._prepared(saved, feeds)
        values = self._runner.run(feeds)
        every = _flat({name: values[name] for name in saved.affine.outputs})
        if len(every) != sum(value.size for value in saved.affine.outputs.values()):
            shapes = ", ".join(f"{name} {list(np.shape(values[name]))}" for name in saved.affine.outputs)
            raise ModelError(f"its outputs have other shapes than those of the map: {shapes}")
        return every[saved.affine.rows]

    def _prepared(self, saved: _Saved, feeds: Mapping[str, Array]) -> Runner:
        """What runs the model: onnxruntime, and where that lacks something, onnx's reference evaluator."""
        proto = self._cut(saved, feeds)
        outputs = [*saved.affine.outputs]
        try:
            runner: Runner = Session(proto, outputs, self._providers, surroundings=self._surroundings)
            runner.run(feeds)
        except ModelError as refused:
            if self._providers:
                raise
            try:
                runner = ReferenceSession(proto, outputs, self._surroundings)
                runner.run(feeds)
            except ModelError:
                raise refused from None
            self.note = ", by onnx's reference evaluator, as onnxruntime does not run the model"
        return runner

    def in_double(self, saved: _Saved, points: Sequence[Mapping[str, Array]]) -> tuple[str, Array]:
        """What evaluates the model in float64, and its outputs at the rows of the map, (points, K).

        Raises:
            ModelError, OutputError: nothing does.
        """
        feeds = {**saved.affine.held, **saved.affine.inputs}
        proto, names = self._cut(saved, feeds), [*saved.affine.outputs]
        evaluator, y = evaluated(proto, self._surroundings, [*saved.affine.inputs], names, feeds, points)
        return evaluator, y[:, saved.affine.rows]

    def _cut(self, saved: _Saved, feeds: Mapping[str, Array]) -> onnx.ModelProto:
        """The model with the map's inputs among its own."""
        proto = self.proto
        if proto.functions and _missing(proto, [*feeds, *saved.affine.outputs]):  # it may be within one
            try:
                proto = onnx.inliner.inline_local_functions(proto)
            except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
                raise ModelError(f"its local functions cannot be inlined: {error}") from error
        missing = _missing(proto, [*feeds, *saved.affine.outputs])
        if missing:
            raise UnknownTensorError(f"the model has no tensor {missing[0]!r}")
        inner = {name: value.dtype for name, value in saved.affine.inputs.items() if name not in self.inputs}
        return with_inputs(proto, inner) if inner else proto


# -- the checks --------------------------------------------------------------------------------------


def _alone(saved: _Saved) -> Iterator[Finding]:
    """The file by itself."""
    faults = [*_faults(saved)]
    K, N = saved.affine.W.shape
    fits = f"W {K:,} × {N:,} and all else fit, and are finite"
    yield Finding("file", not faults, faults[0] if faults else fits)
    yield from _hashes(saved)
    certificate = saved.affine.certificate
    told = "verified" if certificate.verified else f"NOT verified: {certificate.reason}"
    yield Finding("certificate", certificate.verified, f"{told}, when it was made")


def _same_model(saved: _Saved, model: _Model) -> Finding:
    """The model against the one that the map is of, by their hashes."""
    same = model.sha256 == saved.affine.model_sha256
    told = f"SHA-256 {model.sha256[:12]}…"
    told = told if same else f"{told}, but the map is of one with {saved.affine.model_sha256}"
    return Finding("model hash", same, told)


def _faults(saved: _Saved) -> Iterator[str]:
    """What does not fit together within the file."""
    affine, arrays, header = saved.affine, saved.arrays, saved.header
    outputs = sum(value.size for value in affine.outputs.values())
    K, N = len(affine.b), sum(value.size for value in affine.inputs.values())
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "W": (affine.W.shape, (K, N)),
        "b": (affine.b.shape, (K,)),
        "rows": (affine.rows.shape, (K,)),
        "the header's shape": (tuple(header["shape"]), (K, N)),
        "bias_shares": (arrays["bias_shares"].shape, (len(affine.layers), K)),
    }
    count = len(saved.record.bounds)
    shapes["bounds"] = (saved.record.bounds.shape, (count, K))
    for i, (name, value) in enumerate(affine.inputs.items()):
        shapes[f"z{i}"] = (saved.record.points[name].shape, (count - 1, *value.shape))
    interior = saved.record.interior
    if interior is not None:
        Q = len(interior.bounds)
        shapes["inside_bounds"] = (interior.bounds.shape, (Q, K))
        for i, (name, value) in enumerate(affine.inputs.items()):
            shapes[f"inside{i}"] = (interior.points[name].shape, (1 + Q, *value.shape))
    for name, (found, wanted) in shapes.items():
        if found != wanted:
            yield f"{name} has shape {list(found)}, where {list(wanted)} fits the others"
            return
    if affine.rows.dtype.kind not in "iu" or not ((affine.rows >= 0) & (affine.rows < outputs)).all():
        yield f"rows are not all positions in the {outputs:,} outputs"
        return
    members = {"b": affine.b, "bias_shares": arrays["bias_shares"], "bounds": saved.record.bounds}
    members |= {"W": affine.W if isinstance(affine.W, np.ndarray) else affine.W.data}  # type: ignore[union-attr]
    inside: Mapping[str, Array] = {}
    if interior is not None:
        members["inside_bounds"], inside = interior.bounds, interior.points
    every = {"x": affine.inputs, "y": affine.outputs, "z": saved.record.points, "inside": inside}
    for letter, values in every.items():
        members |= {f"{letter}{i}": value for i, value in enumerate(values.values())}
    for name, value in members.items():
        blocks = [value] if not value.ndim else (value[i : i + _ROWS] for i in range(0, len(value), _ROWS))
        if not all(np.isfinite(block.astype(np.float64)).all() for block in blocks):
            yield f"{name} holds NaN or infinity"
            return
    for name in ("bounds", "inside_bounds"):
        if name in members and not (members[name] > 0).all():
            yield f"{name} are not all positive"
            return
    if interior is not None:
        for name, value in affine.inputs.items():
            if not is_near(value, interior.points[name][0] - value.astype(np.float64)):
                yield "the base of the points inside the region is not x"
                return
    shares = arrays["bias_shares"]
    # Both are stored in their own types, and summed in an order that is not known here.
    most = (len(shares) + 1) * np.finfo(affine.b.dtype).eps * np.abs(shares).sum(axis=0)
    if (np.abs(shares.sum(axis=0) - affine.b) > most + np.finfo(affine.b.dtype).tiny).any():
        yield "bias_shares do not sum to b"
    held = affine.certificate.points_held
    if held and count == 1:
        yield f"the certificate speaks of {held} fresh points, and none is on record"


def _hashes(saved: _Saved) -> Iterator[Finding]:
    """The file against the hashes in its header, and the header against its own."""
    kept = saved.header["sha256"]
    found = {"header": header_digest(saved.header), **part_digests(saved.arrays)}
    what = {"header": "as written", "input": "x", "result": "W, b and rows", "evidence": "all other arrays"}
    for part, text in what.items():
        same = found[part] == kept.get(part)
        told = f"{text}, SHA-256 {found[part][:12]}…"
        yield Finding(f"{part} hash", same, told if same else f"{told}, but the header says {kept.get(part)}")


def _given(saved: _Saved, model: _Model, x: Any) -> Finding:
    """An x that was given, against the map's."""
    stored = {**saved.affine.held, **saved.affine.inputs}
    given = x if isinstance(x, Mapping) else dict.fromkeys(model.inputs, x)
    unknown = [name for name in given if name not in stored]
    if unknown or (not isinstance(x, Mapping) and len(given) != 1):
        which = f"there is no input {unknown[0]!r}" if unknown else "an array, and there are several inputs"
        return Finding("x", False, f"{which} in the map, which is of {', '.join(stored)}")
    for name, value in given.items():
        own, value = stored[name], np.asarray(value)
        if value.shape not in (own.shape, own.shape[1:]) or value.size != own.size:
            return Finding(
                "x", False, f"{name!r} has shape {list(value.shape)}, in the map {list(own.shape)}"
            )
        try:
            with np.errstate(over="ignore"):
                cast = value.reshape(own.shape).astype(own.dtype)
        except (ValueError, TypeError):
            return Finding("x", False, f"{name!r} holds {value.dtype}, in the map {own.dtype}")
        different = int(np.count_nonzero(cast != own))
        if different:
            return Finding(
                "x", False, f"{name!r} differs from the map's in {different:,} of {own.size:,} entries"
            )
    return Finding("x", True, "the one given is that of the map")


def _numbers(saved: _Saved, model: _Model, double: bool | None) -> Iterator[Finding]:
    """The map against runs of the model: at x, around it, and in float64."""
    try:
        y = model.outputs_at(saved, saved.affine.inputs)
    except IlinError as error:
        yield Finding("model at x", False, str(error))
        return
    bounds = np.asarray(saved.record.bounds)
    was = _flat(saved.affine.outputs)[saved.affine.rows]
    # Either run is within the bound of W x + b.
    yield _compared("model at x", "y on record", np.abs(y - was)[None], 2 * bounds[:1], model.note)
    deviation = np.abs(saved.product(saved.affine.inputs) - y)
    largest = max(np.abs(_flat(saved.affine.inputs)).max(initial=0.0), np.abs(y).max(initial=0.0))
    if deviation.max(initial=0.0) > _VISIBLE * largest and bounds[0].max() > saved.sizes().max():
        yield Finding("W x + b at x", False, "off by over 1 %, and its bound is too large to say anything")
    else:
        yield _compared("W x + b at x", "onnxruntime", deviation[None], bounds[:1])
    yield from _fresh(saved, model, y)
    yield _in_double(saved, model, y, double)


def _fresh(saved: _Saved, model: _Model, y: Array) -> Iterator[Finding]:
    """The map against runs of the model at the fresh points on record, and between those; it is y at x."""
    bounds = np.asarray(saved.record.bounds)
    if len(bounds) == 1:
        smooth = saved.affine.kind is Kind.SMOOTH
        why = "the map is smooth, so it holds at x only" if smooth else "none was found when it was made"
        yield Finding("fresh points", None, why)
        return
    yield _around(saved, model, "fresh points", "on record", saved.places[1:], bounds[1:], y)
    if not saved.record.convex:
        yield Finding("points between", None, "the region need not be convex, as x also acts by jumps")
        return
    weights = _weights(header_digest(saved.header), len(bounds), _BETWEEN)
    between = [_mixed(saved, some) for some in weights]
    yield _around(saved, model, "points between", "made afresh", between, weights @ bounds, y)


def _around(
    saved: _Saved,
    model: _Model,
    check: str,
    what: str,
    points: Sequence[Mapping[str, Array]],
    bounds: Array,
    y: Array,
) -> Finding:
    """The map at points around x, at which the outputs are y.

    Where the outputs differ from y by less than the bounds, such points cannot tell W from a constant.
    """
    theirs, ours = [], []
    for z in points:
        with suppress(ModelError):  # told below
            theirs.append(model.outputs_at(saved, z))
            ours.append(saved.product(z))
    if len(theirs) < len(points):
        missing = len(points) - len(theirs)
        return Finding(check, False, f"the model does not run at {missing} of {len(points)} points")
    F, F_claimed = np.array(theirs), np.array(ours)
    found = _compared(check, f"onnxruntime at {len(points)} points {what}", np.abs(F - F_claimed), bounds)
    moved = np.abs(F - y)
    found = replace(found, moved_over_bound=float((moved / bounds).max(initial=0.0)))
    told = f"{found.told}; the outputs move by {moved.max(initial=0.0):.2g}"
    constant = saved.affine.kind is Kind.LOCALLY_CONSTANT  # so there is no slope to be told
    if found.passed and not constant and (moved < bounds).all():
        return replace(found, passed=None, told=f"{told}, less than the bound, so this says little of W")
    return replace(found, told=told)


def _in_double(saved: _Saved, model: _Model, y: Array, wanted: bool | None) -> Finding:
    """W against the model in float64, at points inside the region: those on record, and one made afresh.

    No b takes part, and float64 tells the slopes of a region apart that is thinner than float32's rounding.
    That the points are inside needs no trust: on the way out of the region, W (z - base) is not what F does.
    """
    check, interior = "W in float64", saved.record.interior
    if wanted is False:
        return Finding(check, None, "not wanted")
    if interior is None:
        return Finding(check, None, "no points for it in the file, which is of an older version")
    if not len(interior.bounds):
        return Finding(check, None, f"left out: {interior.left_out}")
    base, points, bounds = _inside(saved, interior)
    expected = (2 + len(points)) * seconds(interior.products, interior.windows)
    if wanted is None and expected > _SECONDS:
        return Finding(check, None, f"not made, as it may take about {expected:.0f} s; --double makes it")
    x = {name: value.astype(np.float64) for name, value in saved.affine.inputs.items()}
    try:
        evaluator, (at_x, at_base, *F) = model.in_double(saved, [x, base, *points])
    except (ModelError, OutputError) as error:
        return Finding(check, None, f"left out: {error}")
    apart = np.abs(at_x - y)
    if not (apart <= saved.record.bounds[0]).all():
        return Finding(check, None, f"left out: {evaluator} is off by {apart.max():.2g} at x")
    moved = np.array(F) - at_base
    steps = np.array([_flat(z) for z in points]) - _flat(base)
    deviation = np.abs(saved.slopes(steps) - moved)
    off = float((deviation / bounds).max(initial=0.0))
    far = f" ({off:.2g} × the bound)" if not off <= 1 else ""
    largest = deviation.max(initial=0.0)
    told = f"W times a step is within {largest:.2g} of {evaluator} at {len(points)} points inside{far}; "
    power = (np.abs(moved) / bounds).max(axis=0)[moved.any(axis=0)]  # of each row that moves at all
    if not len(power):
        return Finding(check, off <= 1, f"{told}the outputs do not move", off, 0.0)
    told += f"the outputs move by {power.min():.2g} to {power.max():.2g} × the bound"
    weak = int((power < 1).sum())
    told += f", so this says little of {weak} of {len(bounds[0])} rows of W" if weak else ""
    passed = None if off <= 1 and weak == len(power) else off <= 1
    return Finding(check, passed, told, off, float(power.max()))


def _inside(saved: _Saved, interior: Interior) -> tuple[dict[str, Array], list[dict[str, Array]], Array]:
    """The base, the points inside the region and one more between all of them; bounds of these, (Q + 1, K).

    A bound is a sum of |affine functions| of z, and that at the base is within that at any z: so the
    combination of the points' own, the base left out, is one.
    """
    count = len(interior.bounds)
    base, *points = ({name: z[i] for name, z in interior.points.items()} for i in range(1 + count))
    (weights,) = _weights(header_digest(saved.header), 1 + count, 1)
    between = {
        name: value + np.tensordot(weights[1:], interior.points[name][1:] - value, 1)
        for name, value in base.items()
    }
    bounds = np.asarray(interior.bounds)
    return base, [*points, between], np.vstack([bounds, weights[1:] / weights[1:].sum() @ bounds])


def _compared(check: str, with_what: str, deviation: Array, bounds: Array, note: str = "") -> Finding:
    """Deviations (P, K) against what is allowed."""
    largest = float(deviation.max(initial=0.0))
    ratio = float((deviation / bounds).max(initial=0.0))
    told = f"within {largest:.2g} of {with_what}, {100 * ratio:.2g} % of its bound{note}"
    return Finding(check, ratio <= 1, told, ratio)  # NaN is not within


def _weights(seed: str, places: int, count: int) -> Array:
    """Convex combinations of x and other points, (count, places); the same for the same map."""
    random = np.random.default_rng(int(seed[:16], 16))
    return random.dirichlet(np.ones(places), count)


def _mixed(saved: _Saved, weights: Array) -> dict[str, Array]:
    """A convex combination of x and the fresh points.

    The region is convex, so this is of it. The bound is a sum of |affine functions| there, which is convex
    too, so that the same combination of the bounds is one.
    """
    return {
        name: sum(
            (
                weight * (point[name].astype(np.float64) - x.astype(np.float64))
                for weight, point in zip(weights[1:], saved.places[1:], strict=True)
            ),
            x.astype(np.float64),
        ).astype(x.dtype)
        for name, x in saved.affine.inputs.items()
    }


def _missing(proto: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Tensors that a model does not have."""
    known = {name for node in proto.graph.node for name in node.output}
    known |= {put.name for put in proto.graph.input} | {tensor.name for tensor in proto.graph.initializer}
    return [name for name in names if name not in known]


def _flat(values: Mapping[str, Array]) -> Array:
    """Tensors flattened, one behind the other, in float64."""
    return np.concatenate([np.ravel(np.asarray(value)).astype(np.float64) for value in values.values()])
