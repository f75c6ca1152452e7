"""The explainer: one ONNX model from x to y, W and b, for wherever onnxruntime runs.

The user's model, then the nodes that compute slopes and winners from its tensors, then the adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import DTypeLike
from onnx import helper

from ..ops import EXPLANATIONS, REGISTRY, Operand, Site
from ..runtime.emit import OPSET, Builder, needed
from ..runtime.errors import UnsupportedError
from ..runtime.largest import entries_of
from ..runtime.primitives import Array, Shape
from ..runtime.program import Kind, LinearProgram, Step
from ..runtime.surgery import with_outputs
from ..runtime.surroundings import embedded
from .adjoint import sweep_back
from .graph import Graph, Node
from .rows import Rows, choose_rows, largest_of
from .scope import Scope

_DESCRIPTION = """Explains every x of the given shapes: besides the outputs y of the model it was made from,
the exact affine map F(z) = W z + b that this model computes at x and on the linear region around it.
W: (K, N), rows are flat indices of the outputs, flattened and stacked; columns are the inputs, likewise.
b: (K,), from the model's parameters. rows: (K,), the explained flat output indices."""


def export_explainer(
    graph: Graph, scope: Scope, program: LinearProgram, rows: Rows, dtype: DTypeLike
) -> onnx.ModelProto:
    """Build the model x → (y, W, b, rows).

    Shapes are those of the program's point; x has the model's own inputs. Where the model already has a
    tensor of the name W, b or rows, underscores are put behind ours; metadata_props name them all.

    Args:
        graph: the model.
        scope: what is explained.
        program: the program at any point; only its structure and its fixed steps are used.
        rows: "all", flat output indices, or "top3" or 3 for the largest outputs at each x.
        dtype: floating type of W and b.

    Raises:
        UnsupportedError: a node whose slopes cannot be computed in the graph, or an operator set that
            cannot be brought up to date.
        RowsError: rows outside the output.
        OutputError: the model's external data is too large for one file.
    """
    model = _up_to_date(embedded(with_outputs(graph.proto, scope.outputs), graph.surroundings.folder))
    taken = _names(model.graph)
    prefix = _free("ilin/", lambda prefix: any(name.startswith(prefix) for name in taken))
    builder = Builder(np.dtype(dtype), prefix=prefix)
    made = _explanation(builder, scope, program, rows)
    for role, (tensor, element, shape) in made.items():
        name = _free(role, taken.__contains__)
        builder.nodes.append(helper.make_node("Identity", [tensor], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, element, shape))
        model.metadata_props.append(onnx.StringStringEntryProto(key=f"ilin.{role}", value=name))
    model.metadata_props.append(onnx.StringStringEntryProto(key="ilin.model_sha256", value=graph.sha256))
    nodes, read = needed(builder.nodes, [put.name for put in model.graph.output])
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for tensor in builder.initializers if tensor.name in read)
    _drop_unread(model.graph)
    model.graph.doc_string = _DESCRIPTION
    del model.graph.value_info[:]
    _fix_shapes(model.graph, dict(program.inputs))
    return model


def _explanation(
    graph: Builder, scope: Scope, program: LinearProgram, rows: Rows
) -> dict[str, tuple[str, int, list[int | str]]]:
    """Tensor, element type and shape of W, b and rows."""
    element = int(helper.np_dtype_to_tensor_dtype(graph.dtype))
    chosen = _rows(graph, program, largest_of(rows))
    swept = sweep_back(
        graph, program, given=_seeds(graph, program, chosen), supply=_supplier(graph, scope, program)
    )
    count = graph.node("Shape", chosen)
    columns = [
        graph.node("Reshape", swept.W[name], graph.constant([-1, math.prod(shape)]))
        if name in swept.W
        else _zeros(graph, count, math.prod(shape))
        for name, shape in program.inputs
    ]
    W = graph.node("Concat", *columns, axis=1)
    b = (
        graph.node("ReduceSum", swept.totals, graph.constant([1]), keepdims=0)
        if swept.totals
        else graph.node("Reshape", _zeros(graph, count, 1), graph.constant([-1]))
    )
    return {
        "W": (W, element, ["K", program.in_size]),
        "b": (b, element, ["K"]),
        "rows": (chosen, onnx.TensorProto.INT64, ["K"]),
    }


def _rows(graph: Builder, program: LinearProgram, rows: Rows) -> str:
    """The explained outputs, (K,)."""
    leading = entries_of(program.leading, dict(program.outputs))
    chosen = choose_rows(rows, np.zeros(program.out_size), leading)  # refuses what is outside the output
    if not isinstance(rows, int | np.integer):
        return graph.constant(chosen.astype(np.int64))
    y = graph.node("Reshape", program.leading, graph.constant([-1]))
    largest = graph.second("TopK", y, graph.constant([len(chosen)]), axis=0)
    return graph.node("Add", largest, graph.constant([leading.start]))


def _seeds(graph: Builder, program: LinearProgram, rows: str) -> dict[str, str]:
    """Output name to its columns of the unit rows, (K, *shape)."""
    ends = graph.constant(np.array([0, 1], np.float32))  # onnxruntime has no other OneHot of int64
    unit = graph.node("OneHot", rows, graph.constant([program.out_size]), ends, axis=1)  # (K, outputs)
    unit = graph.cast(unit, graph.dtype)
    seeds, start = {}, 0
    for name, shape in program.outputs:
        bounds = [graph.constant([bound]) for bound in (start, start + math.prod(shape), 1)]
        seeds[name] = graph.node("Reshape", graph.node("Slice", unit, *bounds), graph.constant([-1, *shape]))
        start += math.prod(shape)
    return seeds


def _zeros(graph: Builder, count: str, columns: int) -> str:
    shape = graph.node("Concat", count, graph.constant([columns]), axis=0)
    return graph.node("Expand", graph.constant(np.zeros((1, 1), graph.dtype)), shape)


def _supplier(graph: Builder, scope: Scope, program: LinearProgram) -> Callable[[Step], tuple[str, ...]]:
    """What adds the nodes that compute a step's slopes, winners and offset."""
    shapes = dict(program.inputs) | {step.output: step.shape for step in program.steps}
    nodes = {name: use.node for use in scope.uses for name in use.varying}

    def supply(step: Step) -> tuple[str, ...]:
        node = nodes.get(step.output)
        explain = None if node is None else EXPLANATIONS.get((node.domain, node.op_type))
        if node is not None and explain is None and step.kind is Kind.SMOOTH:
            computed = ", ".join(sorted(op for domain, op in EXPLANATIONS if not domain and _is_smooth(op)))
            raise UnsupportedError(
                f"{node} cannot explain itself: it is smooth, and its slopes at x are not computed in the "
                f"graph (of smooth operators, those of {computed} are); take W from ilin instead, at each x, "
                "name tensors before or behind this node in inputs or outputs, or register how the graph "
                "computes its slopes with @explains beside its rule"
            )
        if node is None or explain is None:
            label = f"output {step.output!r}, which does not depend on x," if node is None else str(node)
            raise UnsupportedError(
                f"{label} cannot explain itself: what it does depends on values that are known only when the "
                "model runs, such as inputs that are held, and nothing computes it within the graph; export "
                "for inputs or outputs that leave it out, hold its parameters as initializers, or register "
                "how the graph computes it with @explains beside its rule"
            )
        return explain(_site(node, scope, shapes), graph)

    return supply


def _is_smooth(op_type: str) -> bool:
    """Whether an operator of ONNX's own domain is smooth; a product is where both of its factors move."""
    entry = REGISTRY.get(("", op_type))
    return entry is not None and (entry.kind is Kind.SMOOTH or bool(entry.products))


def _site(node: Node, scope: Scope, shapes: Mapping[str, Shape]) -> Site:
    """The node without the values that depend on x."""

    def operand(name: str) -> Operand | None:
        if not name:
            return None
        value: Array | None = scope.constants.get(name)
        shape = shapes.get(name, () if value is None else value.shape)
        return Operand(name, shape, name in shapes, value)

    operands = tuple(operand(name) for name in node.inputs)
    return Site(
        *(node.name, node.op_type, node.domain, node.opset, node.attributes),
        *(operands, node.formal, node.outputs, scope.reading),
    )


def _up_to_date(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at an operator set that has what primitives emit."""
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    if version < OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except (RuntimeError, ValueError) as error:
            raise UnsupportedError(
                f"the model has opset {version}, and onnx cannot convert it to {OPSET}, which an explainer "
                f"needs ({' '.join(str(error).split())[:200]}); export the model at opset {OPSET} or later"
            ) from error
    model.ir_version = max(model.ir_version, 8)
    return model


def _names(graph: onnx.GraphProto) -> set[str]:
    """All tensors of a graph, those of its nodes' subgraphs included."""
    names = {put.name for put in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update((*node.input, *node.output))
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= _names(inner)
    return names


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Drop the initializers that only nodes read that are left out."""
    nodes = onnx.GraphProto(node=graph.node, output=graph.output)
    read = _names(nodes)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _free(name: str, taken: Callable[[str], bool]) -> str:
    """The name with as few underscores behind it as make it free."""
    while taken(name):
        name += "_"
    return name


def _fix_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Shape]) -> None:
    """Declare the explained inputs with the shapes that the adjoint was emitted for."""
    for put in graph.input:
        if put.name in shapes:
            declared = helper.make_tensor_value_info(
                put.name, put.type.tensor_type.elem_type, list(shapes[put.name]), put.doc_string
            )
            put.CopyFrom(declared)
