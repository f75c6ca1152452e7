"""A model evaluated in float64, by what nobody here wrote: onnxruntime, or onnx's reference evaluator.

onnxruntime lacks kernels in float64, such as those of convolutions; the reference evaluator lacks none and is
slow. What does not depend on the inputs is computed in the model's own type first and held, as its rounding
is part of the model: a third is another number in float32 than in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx

from .arrays import Array
from .errors import ModelError
from .session import NoKernelError, ReferenceSession, Runner, Session
from .surgery import captured
from .surroundings import Surroundings, embedded
from .widen import as_float64, widened

# By measurement on one core: a multiply-add of the reference evaluator's convolutions, and a window of its
# pools, which are loops in Python.
_PER_PRODUCT, _PER_WINDOW = 3e-9, 2e-5
_BY_SHAPE = frozenset({"Shape", "Size"})  # what depends on the inputs' shapes alone


def seconds(products: int, windows: int) -> float:
    """A rough estimate of what the reference evaluator takes for one point, of so many multiply-adds."""
    return products * _PER_PRODUCT + windows * _PER_WINDOW


def evaluated(
    proto: onnx.ModelProto,
    surroundings: Surroundings,
    inputs: Collection[str],
    outputs: Sequence[str],
    feeds: Mapping[str, Array],
    points: Sequence[Mapping[str, Array]],
) -> tuple[str, Array]:
    """Evaluate a model in float64.

    Args:
        proto: the model in its own type, with `inputs` among its graph inputs. It is not changed.
        surroundings: where its external data lies, and libraries with operators of its own.
        inputs: the graph inputs that differ from point to point.
        outputs: names of the wanted tensors.
        feeds: every graph input at x, in its own type.
        points: `inputs` by name, in float64.

    Returns:
        What evaluates it, and the outputs there, flattened and stacked, (points, all outputs).

    Raises:
        ModelError: nothing evaluates it in float64.
        OutputError: with its external data it is over protobuf's 2 GB.
    """
    names = _held(proto.graph, inputs, outputs)
    held = {
        name: value
        for name, value in _run(proto, names, surroundings, feeds).items()
        if isinstance(value, np.ndarray)  # neither sequences nor what is left out
    }
    wide = as_float64(embedded(proto, surroundings.folder), held)
    alone = Surroundings(None, surroundings.custom_ops)
    wanted = [name for name in outputs if name not in held]
    runs: dict[str, Callable[[], Runner]] = {
        "onnxruntime": lambda: Session(wide, wanted, surroundings=alone),
        "onnx's reference evaluator": lambda: ReferenceSession(wide, wanted),
    }
    fixed = {name: widened(value) for name, value in feeds.items()}
    for evaluator, prepared in runs.items():
        try:
            runner = prepared()
            found = [_outputs(runner.run({**fixed, **point}), held, outputs) for point in points]
        except ModelError as error:
            refused = error
        else:
            return evaluator, np.array(found)
    raise ModelError(f"nothing evaluates it in float64: {refused}")


def _held(graph: onnx.GraphProto, inputs: Collection[str], outputs: Sequence[str]) -> list[str]:
    """What nodes compute from anything but the inputs' values, as far as others read it, or it is wanted."""
    moving = set(inputs)
    made: dict[str, onnx.NodeProto] = {}
    read = set(outputs)
    for node in graph.node:
        reads = {*node.input, *captured(node)}
        if moving.intersection(reads) and node.op_type not in _BY_SHAPE:
            moving.update(filter(None, node.output))
            read |= reads
        else:
            made |= dict.fromkeys(filter(None, node.output), node)
    nodes = [made[name] for name in made if name in read]
    return list(dict.fromkeys(name for node in nodes for name in node.output if name))


def _run(
    proto: onnx.ModelProto, names: Sequence[str], surroundings: Surroundings, feeds: Mapping[str, Array]
) -> dict[str, object]:
    """Tensors in the model's own type."""
    try:
        return Session(proto, names, surroundings=surroundings).run(feeds)
    except NoKernelError:
        return ReferenceSession(proto, names, surroundings).run(feeds)


def _outputs(values: Mapping[str, Array], held: Mapping[str, Array], outputs: Sequence[str]) -> Array:
    for name, value in values.items():
        if value.dtype != np.float64:
            raise ModelError(f"it computes {name!r} in {value.dtype}")
    every = {**held, **values}
    return np.concatenate([np.ravel(every[name]).astype(np.float64) for name in outputs])
