"""Random ONNX graphs, node by node: every choice is drawn by hypothesis, every value is known on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from ..conformance.oracle import onnxruntime_of, reference_of

LARGEST = 160  # elements of a tensor
STRONGEST = 300.0  # absolute value that a tensor may reach
FUNCTIONS = "tests.functions"  # domain of local functions

# Where the reference evaluator of onnx 1.23 is known to fail, or to compute something else than onnxruntime
# 1.32. Each such node is tried in both; where they part, slopes are compared with onnxruntime's own
# differences. Everywhere else a disagreement of the two fails the test.
REFERENCE_IS_WRONG = {
    "AffineGrid": "rounds to float32",
    "AveragePool": "wrong shapes with auto_pad and dilations, or a window below the stride",
    "BatchNormalization": "before opset 14 it returns a tuple, or normalises by the batch itself",
    "ConvTranspose": "fails with groups of more than one output, wrong shapes with auto_pad and output_shape",
    "GatherElements": "refuses a negative axis where the lengths along it differ",
    "DeformConv": "divides by 0 where an axis has length 1",
    "GlobalLpPool": "knows none",
    "GlobalMaxPool": "reduces (N, C, L) to the wrong shape",
    "GridSample": "knows no bilinear before opset 20, reads cubic borders otherwise, rounds coordinates less",
    "LogSoftmax": "before opset 13 it normalises along one axis alone",
    "LpPool": "fails with auto_pad and a window below the stride, wrong shapes with auto_pad and dilations",
    "LRN": "normalises as many channels as there are images",
    "MaxPool": "fails in one dimension with auto_pad, wrong shapes with auto_pad and ceil_mode",
    "MaxRoiPool": "knows none",
    "MaxUnpool": "counts indices in the shape without output_shape",
    "Mean": "adds in place, so the first operand must have the broadcast shape",
    "Pad": "refuses negative pads",
    "RoiAlign": "takes the half_pixel of opset 16 for opset 10 too",
    "Resize": "knows no Resize-10; other coordinates with align_corners, other rounding between two entries",
    "Slice": "leaves nothing of an axis where a start below -n with a negative step is clamped to 0",
    "Softmax": "before opset 13 it normalises along one axis alone",
    "Softsign": "fails for scalars",
    "Squeeze": "before opset 13 it squeezes one axis after another, which negative axes do not survive",
    "Unsqueeze": "inserts one axis after another, which negative axes do not survive",
    "Upsample": "knows mode nearest by whole numbers alone, and these only as an input",
}

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Graph:
    """A valid model, a point, and which of its tensors are free there."""

    model: onnx.ModelProto
    ordered: onnx.ModelProto  # the same with its nodes in topological order and local functions inlined
    feeds: Mapping[str, np.ndarray]
    active: tuple[str, ...]  # graph inputs, or intermediate tensors
    outputs: tuple[str, ...]
    values: Mapping[str, np.ndarray]  # every tensor at the point, as onnxruntime computes it node by node
    operators: tuple[str, ...]
    without_reference: tuple[str, ...]  # why the reference evaluator cannot be asked, if so
    on_grid: bool
    dtype: np.dtype

    @property
    def elsewhere(self) -> dict[str, np.ndarray]:
        """Another point, parameters that are graph inputs included."""
        return {name: value / 2 if value.dtype == self.dtype else value for name, value in self.feeds.items()}

    def __str__(self) -> str:
        feeds = "".join(f"\n{name} = {value.tolist()}" for name, value in self.feeds.items())
        return f"{onnx.printer.to_text(self.model)}{feeds}\nactive: {self.active}; outputs: {self.outputs}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis prints a failing example."""
        printer.text(str(self))

    @cached_property
    def between(self) -> onnx.ModelProto:
        """The model as a function of the active tensors: intermediate ones become graph inputs."""
        cut = onnx.ModelProto()
        cut.CopyFrom(self.ordered)
        inner = [name for name in self.active if name not in self.feeds]
        for node in cut.graph.node:
            for i, name in enumerate(node.output):
                if name in inner:
                    node.output[i] = f"{name}_as_computed"
        cut.graph.input.extend(_info(name, self.values[name]) for name in inner)
        del cut.graph.output[:]
        cut.graph.output.extend(_info(name, self.values[name]) for name in self.outputs)
        return cut


class Refused(Exception):  # noqa: N818
    """The node that was tried is not valid here; the graph goes on without it."""


@dataclass
class Builder:
    """A graph under construction."""

    draw: Draw
    opset: int
    seed: int
    on_grid: bool  # values from a coarse grid, so that many entries tie
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.float32))
    smooth: bool = False  # operators that are not piecewise linear may come up
    with_empty: bool = False  # tensors without elements may come up
    feeds: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)  # floating tensors that depend on free inputs, in order
    free: list[str] = field(default_factory=list)
    sources: dict[str, frozenset[str]] = field(default_factory=dict)  # the free inputs behind each tensor
    barred: set[str] = field(default_factory=set)  # free inputs that have to be held after all
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    without_reference: set[str] = field(default_factory=set)
    _count: int = 0

    # -- drawing -----------------------------------------------------------------------------------

    def integer(self, low: int, high: int) -> int:
        if low > high:
            raise Refused("no integer to choose")
        return self.draw(st.integers(low, high))

    def integers(self, count: int, low: int, high: int) -> list[int]:
        return [self.integer(low, high) for _ in range(count)]

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def choose(self, options: Sequence[Any]) -> Any:
        if not options:
            raise Refused("nothing to choose from")
        return self.draw(st.sampled_from(list(options)))

    def subset(self, options: Sequence[Any]) -> list[Any]:
        """Some of the options, at least one, in order."""
        kept = [option for option in options if self.flag()]
        return kept or [options[0]]

    def array(self, *shape: int) -> np.ndarray:
        """Fresh numbers; what they are does not matter to shrinking."""
        random = self.random()
        values = random.integers(-3, 4, shape) / 2 if self.on_grid else random.standard_normal(shape)
        return np.asarray(values, self.dtype)

    def scalar(self, value: float) -> np.ndarray:
        return np.asarray(value, self.dtype)

    @property
    def element(self) -> int:
        """The floating type of the graph, as ONNX numbers it."""
        return helper.np_dtype_to_tensor_dtype(self.dtype)

    def random(self) -> np.random.Generator:
        self._count += 1
        return np.random.default_rng((self.seed, self._count))

    # -- tensors -----------------------------------------------------------------------------------

    def shape(self, name: str) -> tuple[int, ...]:
        return self.values[name].shape

    def pick(self, fits: Callable[[tuple[int, ...]], bool] = lambda shape: True) -> str:
        """A tensor that depends on x, of a fitting shape; the most recent is the simplest."""
        found = [name for name in reversed(self.active) if fits(self.shape(name))]
        if not found:
            raise Refused("no tensor of a fitting shape")
        return self.choose(found)

    def picture(self, ranks: Sequence[int] = (3, 4, 5)) -> str:
        """A tensor (N, C, *spatial); one of lower rank is given the axes that it lacks."""
        name = self.pick(lambda shape: 2 <= len(shape) <= max(ranks))
        lacking = min(r for r in ranks if r >= len(self.shape(name))) - len(self.shape(name))
        if not lacking:
            return name
        axes = list(range(lacking))
        if self.opset < 13:
            return self.add("Unsqueeze", [name], axes=axes)
        return self.add("Unsqueeze", [name, self.held(np.int64(axes))])

    def put(self, value: np.ndarray, *, free: bool) -> str:
        """A graph input."""
        name = self._fresh("x" if free else "held")
        self.feeds[name] = self.values[name] = value
        if free:
            self.sources[name] = frozenset([name])
            self.free.append(name)
            self.active.append(name)
        return name

    def held(self, value: np.ndarray, *, fixed: bool = False) -> str:
        """A parameter: an initializer, a Constant node or, unless it has to be fixed, a graph input."""
        value = np.asarray(value)
        how = self.choose(["initializer", "constant"] if fixed else ["initializer", "constant", "input"])
        if how == "input":
            return self.put(value, free=False)
        name = self._fresh("c")
        self.values[name] = value
        if how == "constant":
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
        else:
            self.initializers[name] = value
        return name

    def computed(self, fits: Callable[[tuple[int, ...]], bool]) -> str:
        """A parameter that the graph computes from its second input, which has to be held then."""
        later = set(self.free[1:])
        found = [name for name in self.active if self.sources[name] <= later and fits(self.shape(name))]
        if not found:
            raise Refused("nothing is computed from the second input alone")
        name = self.choose(found)
        self.barred |= self.sources[name]
        return name

    def broadcastable(self, shape: Sequence[int]) -> np.ndarray:
        """Numbers whose shape broadcasts against the given one; now and then it is the larger of the two."""
        own = [1 if self.flag() and self.flag() else size for size in shape]
        own = own[self.integer(0, len(own)) if self.flag() else 0 :]
        if self.flag() and self.flag() and len(own) == len(shape) < 5:
            own = [self.integer(1, 2), *own]
        return self.array(*own)

    # -- nodes -------------------------------------------------------------------------------------

    def add(
        self, op_type: str, inputs: Sequence[str], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Append a node, unless onnxruntime refuses it or its values are out of hand.

        Returns:
            The output's name, or a list of names where there are several.
        """
        names = [self._fresh(op_type.lower()) for _ in range(outputs)]
        node = helper.make_node(op_type, list(inputs), names, domain=domain, **attributes)
        alone = self._alone(node)
        try:
            found = onnxruntime_of(alone)({name: self.values[name] for name in inputs if name})
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise Refused(str(error)) from error
        for value in found.values():
            strong = value.dtype.kind == "f" and not (np.abs(value).max(initial=0) <= STRONGEST)
            if strong or value.size > LARGEST or not (value.size or self.with_empty):
                raise Refused("too large")
        self.nodes.append(node)
        self.values.update(found)
        if op_type in REFERENCE_IS_WRONG and not self._reference_agrees(alone, inputs, found):
            self.without_reference.add(f"{op_type}: {REFERENCE_IS_WRONG[op_type]}")
        behind = frozenset().union(*(self.sources.get(name, ()) for name in inputs))
        if op_type in ("Shape", "Size"):  # they do not change around x
            behind = frozenset()
        self.sources |= dict.fromkeys(names, behind)
        if behind:
            self.active += [name for name in names if found[name].dtype == self.dtype]
        return names[0] if outputs == 1 else names

    def _reference_agrees(
        self, alone: onnx.ModelProto, inputs: Sequence[str], found: Mapping[str, np.ndarray]
    ) -> bool:
        if self.dtype == np.float16:
            return False  # too coarse to tell
        alone = onnx.shape_inference.infer_shapes(alone)
        try:
            theirs = reference_of(alone)(
                {name: self.values[name] for name in inputs if name in self._given(alone)}
            )
        except Exception:  # it raises whatever numpy raises
            return False
        return all(
            theirs[name].shape == value.shape
            and (value.dtype.kind != "f" or theirs[name].dtype == np.float64)
            and np.allclose(theirs[name], value, rtol=1e-4, atol=1e-4)
            for name, value in found.items()
        )

    @staticmethod
    def _given(model: onnx.ModelProto) -> set[str]:
        return {put.name for put in model.graph.input}

    def _alone(self, node: onnx.NodeProto) -> onnx.ModelProto:
        """The node as a model; parameters stay parameters, as some kernels insist on that."""
        used = list(dict.fromkeys(name for name in node.input if name))
        parameters = [name for name in used if name not in self.feeds and name not in self.active]
        inputs = [_info(name, self.values[name]) for name in used if name not in parameters]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        tensors = [numpy_helper.from_array(self.values[name], name) for name in parameters]
        return self._model(helper.make_graph([node], "node", inputs, outputs, tensors))

    def _model(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        opsets = [helper.make_opsetid("", self.opset)]
        if self.functions:
            opsets.append(helper.make_opsetid(FUNCTIONS, 1))
        return helper.make_model(
            graph,
            opset_imports=opsets,
            functions=list(self.functions.values()),
            ir_version=8 if self.opset < 21 else 10,
        )

    def finish(self, outputs: Sequence[str], active: Sequence[str]) -> Graph:
        """The model of everything that was added, in one of the forms that files come in."""
        tensors = [numpy_helper.from_array(value, name) for name, value in self.initializers.items()]
        inputs = [_info(name, value) for name, value in self.feeds.items()]
        results = [_info(name, self.values[name]) for name in outputs]
        plain = self._model(helper.make_graph(self.nodes, "random", inputs, results, tensors))
        model = onnx.ModelProto.FromString(plain.SerializeToString())
        form = self.choose(["plain", "plain", "symbolic", "shuffled", "oldest"])
        if form == "shuffled":
            del model.graph.node[:]
            model.graph.node.extend(reversed(self.nodes))
        elif form == "symbolic":
            for put in (*model.graph.input, *model.graph.output):
                for axis, dim in enumerate(put.type.tensor_type.shape.dim):
                    dim.dim_param = f"{put.name}_{axis}"
        elif form == "oldest" and self.opset <= 8 and not self.functions:
            model.ir_version = 3  # parameters are inputs with a default, too
            model.graph.input.extend(_info(name, value) for name, value in self.initializers.items())
        return Graph(
            model,
            # Of a function that calls another one, the reference evaluator loses the attributes.
            onnx.inliner.inline_local_functions(plain) if self.functions else plain,
            dict(self.feeds),
            tuple(active),
            tuple(outputs),
            dict(self.values),
            tuple(node.op_type for node in self.nodes),
            tuple(sorted(self.without_reference)),
            self.on_grid,
            self.dtype,
        )

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
