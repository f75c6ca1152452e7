"""Models cut to the part that is asked for; protobuf in, protobuf out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from .errors import ModelError


def captured(node: onnx.NodeProto) -> list[str]:
    """Tensors that a node's subgraphs read from outside themselves."""
    names: list[str] = []
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {put.name for put in graph.input} | {tensor.name for tensor in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            read = [name for inner in graph.node for name in (*inner.input, *captured(inner))]
            read += [put.name for put in graph.output]
            names += [name for name in read if name and name not in own]
    return names


def sort_topologically(graph: onnx.GraphProto) -> None:
    """Order the nodes in place; ONNX asks for it, real files do not always keep it. Stable.

    Raises:
        ModelError: there is no such order.
    """
    producers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    done: set[int] = set()
    order: list[int] = []
    for root in range(len(graph.node)):
        stack = [root]
        path: set[int] = set()
        while stack:
            top = stack[-1]
            if top in done:
                stack.pop()
                continue
            path.add(top)
            node = graph.node[top]
            waiting = [
                producers[name]
                for name in (*node.input, *captured(node))
                if name in producers and producers[name] not in done
            ]
            if any(parent in path for parent in waiting):
                raise ModelError(
                    f"not a valid ONNX model: its nodes form a cycle through {node.name or node.op_type!r}"
                )
            if waiting:
                stack.append(waiting[0])
            else:
                done.add(stack.pop())
                path.discard(top)
                order.append(top)
    if order != sorted(order):
        nodes = [onnx.NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
        del graph.node[:]
        graph.node.extend(nodes)


def with_outputs(proto: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of a model that the given tensors depend on, with these as outputs.

    Types of intermediate tensors are left to onnxruntime.
    """
    wanted = set(outputs)
    kept: list[int] = []
    for position in range(len(proto.graph.node) - 1, -1, -1):
        node = proto.graph.node[position]
        if wanted.intersection(node.output):
            kept.append(position)
            wanted.update([*node.input, *captured(node)])
    declared = {put.name: put for put in proto.graph.output}
    asked = onnx.ModelProto()
    asked.CopyFrom(proto)
    for position in sorted(set(range(len(proto.graph.node))) - set(kept), reverse=True):
        del asked.graph.node[position]
    del asked.graph.output[:]
    asked.graph.output.extend(declared.get(name) or onnx.ValueInfoProto(name=name) for name in outputs)
    return asked


def with_inputs(proto: onnx.ModelProto, types: Mapping[str, np.dtype[Any]]) -> onnx.ModelProto:
    """The same model with intermediate tensors as further graph inputs of the given types and any shape.

    Their producers keep running under other output names, as they may have outputs that are still read.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    del cut.graph.value_info[:]
    taken = {name for node in proto.graph.node for name in node.output}
    for node in cut.graph.node:
        for position, output in enumerate(node.output):
            if output in types:
                renamed = f"{output}__computed"
                while renamed in taken:
                    renamed += "_"
                node.output[position] = renamed
    for name, dtype in types.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        cut.graph.input.append(onnx.helper.make_tensor_value_info(name, element, None))
    return cut


def constants_alone(proto: onnx.ModelProto, nodes: Sequence[int]) -> onnx.ModelProto:
    """The nodes at the given positions, which depend on no input, as a model of their own."""
    alone = onnx.ModelProto()
    alone.CopyFrom(proto)
    del alone.graph.node[:]
    alone.graph.node.extend(proto.graph.node[position] for position in nodes)
    del alone.graph.input[:]
    del alone.graph.value_info[:]
    read = {name for node in alone.graph.node for name in (*node.input, *captured(node))}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del alone.graph.initializer[:]
    alone.graph.initializer.extend(kept)
    return alone
