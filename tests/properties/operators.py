"""How each operator is put into a random graph, in the form of the graph's opset.

An emitter takes a `Builder`, draws operands and attributes, and adds one node, sometimes with helpers around
it. It may raise `Refused` where nothing fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from .builder import FUNCTIONS, Builder, Refused

Emitter = Callable[[Builder], object]
EMITTERS: dict[str, Emitter] = {}


def emits(*op_types: str) -> Callable[[Callable[[Builder, str], object]], Callable[[Builder, str], object]]:
    """Register an emitter, called with the operator's name, for one or more operators."""

    def register(emitter: Callable[[Builder, str], object]) -> Callable[[Builder, str], object]:
        for op_type in op_types:
            EMITTERS[op_type] = lambda builder, op_type=op_type: emitter(builder, op_type)
        return emitter

    return register


# -- helpers -----------------------------------------------------------------------------------------------


def _axis(b: Builder, rank: int, since: int = 11) -> int:
    """An axis; negative where the opset allows it."""
    axis = b.integer(0, rank - 1)
    return axis - rank if b.opset >= since and b.flag() else axis


def _axes(b: Builder, rank: int, since: int = 11) -> list[int]:
    chosen = b.subset(range(rank))
    return [axis - rank if b.opset >= since and b.flag() else axis for axis in chosen]


def _compatible(shape: tuple[int, ...]) -> Callable[[tuple[int, ...]], bool]:
    def fits(other: tuple[int, ...]) -> bool:
        return all(i == j or 1 in (i, j) for i, j in zip(reversed(shape), reversed(other), strict=False))

    return fits


def _fills(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether a shape that is compatible broadcasts to the given one."""
    return np.broadcast_shapes(shape, other) == shape


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# -- entry by entry ------------------------------------------------------------------------------------------


@emits("Relu", "Abs", "Neg", "Identity")
def unary(b: Builder, op: str) -> object:
    return b.add(op, [b.pick()])


_SINCE = {"Celu": 12, "Gelu": 20, "HardSwish": 14, "Mish": 18, "Swish": 24}
_SINCE |= dict.fromkeys(("Erf", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"), 9)
_ATTRIBUTES = {
    "Elu": [{}, {"alpha": 0.5}],
    "Celu": [{}, {"alpha": 2.0}],
    "Selu": [{}, {"alpha": 0.5, "gamma": 2.0}],
    "Gelu": [{}, {"approximate": "tanh"}],
    "Swish": [{}, {"alpha": 1.5}],
}


def _above(b: Builder, x: str, least: float) -> str:
    """|x| + least, for operators that are not defined everywhere."""
    return b.add("Add", [b.add("Abs", [x]), b.held(b.scalar(least), fixed=True)])


def _inside(b: Builder, x: str) -> str:
    """0.9 sin(x), for operators that are not defined or steep outside of [-1, 1]."""
    return b.add("Mul", [b.add("Sin", [x]), b.held(b.scalar(0.9), fixed=True)])


@emits("Sigmoid", "Tanh", "Erf", "Sin", "Cos", "Atan", "Asinh", "Softplus", "Softsign", "Exp", "Sinh", "Cosh")
def smooth(b: Builder, op: str) -> object:
    if b.opset < _SINCE.get(op, 0):
        raise Refused
    return b.add(op, [b.pick()])


@emits("Elu", "Celu", "Selu", "Gelu", "Mish", "Swish", "HardSwish")
def activation(b: Builder, op: str) -> object:
    if b.opset < _SINCE.get(op, 0):
        raise Refused
    return b.add(op, [b.pick()], **b.choose(_ATTRIBUTES.get(op, [{}])))


@emits("Asin", "Acos", "Atanh", "Tan")
def of_small_values(b: Builder, op: str) -> object:
    if b.opset < _SINCE.get(op, 0):
        raise Refused
    return b.add(op, [_inside(b, b.pick())])


@emits("Log", "Sqrt", "Reciprocal", "Acosh")
def of_positive_values(b: Builder, op: str) -> object:
    if b.opset < _SINCE.get(op, 0):
        raise Refused
    return b.add(op, [_above(b, b.pick(), 1.25)])


@emits("Pow")
def power(b: Builder, op: str) -> object:
    x = b.pick()
    if b.flag():
        return b.add(op, [x, b.held(b.scalar(float(b.integer(1, 3))), fixed=True)])
    exponent = b.pick(_compatible(b.shape(x))) if b.flag() else b.held(b.broadcastable(b.shape(x)))
    return b.add(op, [_above(b, x, 0.5), exponent])


@emits("Det")
def det(b: Builder, op: str) -> object:
    if b.opset < 11:
        raise Refused
    return b.add(op, [b.pick(lambda shape: len(shape) > 1 and shape[-1] == shape[-2])])


@emits("LeakyRelu")
def leaky_relu(b: Builder, op: str) -> object:
    return b.add(op, [b.pick()], **b.choose([{}, {"alpha": 0.3}, {"alpha": -0.5}, {"alpha": 0.0}]))


@emits("HardSigmoid")
def hard_sigmoid(b: Builder, op: str) -> object:
    options = [
        {},
        {"alpha": 0.5, "beta": 0.25},
        {"alpha": -0.5},
        {"beta": -0.25},
        {"alpha": 0.0, "beta": 2.0},
    ]
    return b.add(op, [b.pick()], **b.choose(options))


@emits("ThresholdedRelu")
def thresholded_relu(b: Builder, op: str) -> object:
    if b.opset < 10:
        raise Refused
    return b.add(op, [b.pick()], **b.choose([{}, {"alpha": 0.25}, {"alpha": -0.5}]))


@emits("Shrink")
def shrink(b: Builder, op: str) -> object:
    if b.opset < 9 or b.element == TensorProto.DOUBLE:  # which onnxruntime computes in float32
        raise Refused
    end = b.choose([0.25, 0.5])
    return b.add(op, [b.pick()], lambd=end, bias=end)


@emits("PRelu")
def prelu(b: Builder, op: str) -> object:
    x = b.pick()
    shape, fits = b.shape(x), _compatible(b.shape(x))
    own = [1 if b.flag() else size for size in shape][b.integer(0, max(0, len(shape) - 1)) :]
    if b.flag() and b.flag():
        # Not larger than x, says the specification; onnxruntime would take it.
        choose = b.pick if b.smooth else b.computed
        return b.add(op, [x, choose(lambda other: fits(other) and _fills(shape, other))])
    return b.add(op, [x, b.held(b.array(*own))])


@emits("Clip")
def clip(b: Builder, op: str) -> object:
    x, low, high = b.pick(), b.flag(), b.flag()
    ends = sorted(float(v) for v in b.array(2))
    if b.flag() and b.flag():
        ends.reverse()  # the upper bound wins
    if b.opset < 11:
        return b.add(op, [x], **({"min": ends[0]} if low else {}), **({"max": ends[1]} if high else {}))
    names = [_bound(b, end) if given else "" for end, given in zip(ends, (low, high), strict=True)]
    while names and not names[-1]:
        names.pop()
    return b.add(op, [x, *names])


def _bound(b: Builder, end: float) -> str:
    """A bound of Clip; now and then one that depends on x."""
    scalars = [name for name in b.active if b.shape(name) == ()]
    return b.choose(scalars) if scalars and b.flag() else b.held(b.scalar(end))


@emits("Dropout")
def dropout(b: Builder, op: str) -> object:
    if b.opset < 12:
        return b.add(op, [b.pick()], ratio=0.25)
    inputs = [b.pick(), *([b.held(np.float32(0.75))] if b.flag() else [])]
    if len(inputs) == 2 and b.flag():
        inputs.append(b.held(np.array(False)))
    return b.add(op, inputs, outputs=b.integer(1, 2))


@emits("Cast")
def cast(b: Builder, op: str) -> object:
    if b.element == TensorProto.DOUBLE or b.flag():
        return b.add(op, [b.pick()], to=b.element)
    return b.add(op, [b.add(op, [b.pick()], to=TensorProto.DOUBLE)], to=b.element)


# -- several operands ----------------------------------------------------------------------------------------


@emits("Add", "Sub")
def sum_of_two(b: Builder, op: str) -> object:
    x = b.pick()
    other = b.held(b.broadcastable(b.shape(x))) if b.flag() else b.pick(_compatible(b.shape(x)))
    return b.add(op, [x, other] if b.flag() else [other, x])


@emits("Sum", "Mean", "Max", "Min")
def variadic(b: Builder, op: str) -> object:
    x = b.pick()
    operands = [x]
    for _ in range(b.integer(0, 3)):
        others = b.held(b.broadcastable(b.shape(x))) if b.flag() else b.pick(_compatible(b.shape(x)))
        operands.insert(b.integer(0, len(operands)), others)
    return b.add(op, operands)


@emits("Mul")
def mul(b: Builder, op: str) -> object:
    x = b.pick()
    if b.smooth and b.flag():
        return b.add(op, [x, b.pick(_compatible(b.shape(x)))])
    by = b.flag() and b.flag()
    other = b.computed(_compatible(b.shape(x))) if by else b.held(b.broadcastable(b.shape(x)))
    return b.add(op, [x, other] if b.flag() else [other, x])


@emits("Div")
def div(b: Builder, op: str) -> object:
    x = b.pick()
    if b.smooth and b.flag():
        return b.add(op, [x, _above(b, b.pick(_compatible(b.shape(x))), 0.5)])
    other = b.broadcastable(b.shape(x))
    return b.add(op, [x, b.held(np.where(other < 0, other - 0.5, other + 0.5).astype(b.dtype))])


@emits("Where")
def where(b: Builder, op: str) -> object:
    if b.opset < 9:
        raise Refused
    x = b.pick()
    other = b.held(b.broadcastable(b.shape(x))) if b.flag() else b.pick(_compatible(b.shape(x)))
    condition = b.held(b.broadcastable(b.shape(x)) > 0)
    return b.add(op, [condition, *([x, other] if b.flag() else [other, x])])


@emits("Einsum")
def einsum(b: Builder, op: str) -> object:
    if b.opset < 12:
        raise Refused
    x = b.pick(lambda shape: 0 < len(shape) < 4)
    own = "ijk"[: len(b.shape(x))]
    sizes = {**dict(zip(own, b.shape(x), strict=True)), "n": b.integer(1, 3)}
    other = "".join(b.subset(own)) + b.choose(["", "n"])
    output = "".join(label for label in dict.fromkeys(own + other) if b.flag())
    operands = [(own, x), (other, b.held(b.array(*(sizes[label] for label in other))))]
    terms, names = zip(*(operands if b.flag() else operands[::-1]), strict=True)
    return b.add(op, names, equation=f"{','.join(terms)}->{output}")


@emits("Concat")
def concat(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0)
    shape = b.shape(x)
    axis = b.integer(0, len(shape) - 1)
    operands = [x]
    for _ in range(b.integer(0, 2)):
        if b.flag():
            own = [b.integer(1, 2) if i == axis else size for i, size in enumerate(shape)]
            operands.append(b.held(b.array(*own)))
        else:
            operands.append(
                b.pick(
                    lambda s: (
                        len(s) == len(shape) and s[:axis] + s[axis + 1 :] == shape[:axis] + shape[axis + 1 :]
                    )
                )
            )
    operands = operands[::-1] if b.flag() else operands
    return b.add(op, operands, axis=axis - len(shape) if b.opset >= 11 and b.flag() else axis)


@emits("Gemm")
def gemm(b: Builder, op: str) -> object:
    x = b.pick()
    if len(b.shape(x)) != 2:
        x = b.add("Flatten", [x], axis=min(1, len(b.shape(x))))
    if b.flag():
        rows, inner = b.shape(x)
        attributes = {"transA": int(turned := b.flag())}
        inner, rows = (rows, inner) if turned else (inner, rows)
        columns, other = b.integer(1, 4), b.flag()
        operands = [x, b.held(b.array(*((columns, inner) if other else (inner, columns))))]
        attributes["transB"] = int(other)
    else:
        inner, columns = b.shape(x)
        attributes = {"transB": int(turned := b.flag())}
        inner, columns = (columns, inner) if turned else (inner, columns)
        rows, other = b.integer(1, 4), b.flag()
        operands = [b.held(b.array(*((inner, rows) if other else (rows, inner)))), x]
        attributes["transA"] = int(other)
    if b.opset < 11 or b.flag():
        shape = b.choose([(rows, columns), (1, columns), (columns,), (rows, 1), (1,)])
        same = [name for name in b.active if b.shape(name) == shape]
        operands.append(b.choose(same) if same and b.flag() else b.held(b.array(*shape)))
    attributes |= b.choose([{}, {"alpha": 0.5}, {"beta": -0.25}, {"alpha": -1.5, "beta": 0.5}])
    return b.add(op, operands, **attributes)


@emits("MatMul")
def matmul(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0)
    *lead, rows, columns = (1, *b.shape(x)) if len(b.shape(x)) == 1 else b.shape(x)
    if b.smooth and len(b.shape(x)) > 1 and b.flag():
        others = b.pick(lambda s: len(s) > 1 and s[-2] == columns and _compatible(tuple(lead))(s[:-2]))
        return b.add(op, [x, others])
    stack = [1 if b.flag() else size for size in lead][b.integer(0, len(lead)) :]
    if b.flag():
        shape = (columns,) if b.flag() and b.flag() else (*stack, columns, b.integer(1, 3))
        return b.add(op, [x, b.held(b.array(*shape))])
    inner = columns if len(b.shape(x)) == 1 else rows
    shape = (inner,) if b.flag() and b.flag() else (*stack, b.integer(1, 3), inner)
    return b.add(op, [b.held(b.array(*shape)), x])


@emits("BatchNormalization")
def batch_normalization(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) >= 2)
    channels = b.shape(x)[1]
    scale, shift, mean = (b.held(b.array(channels)) for _ in range(3))
    variance = b.held(np.abs(b.array(channels)) + b.scalar(0.25))
    return b.add(op, [x, scale, shift, mean, variance], **b.choose([{}, {"epsilon": 0.125}]))


# -- windows -------------------------------------------------------------------------------------------------


def _window(
    b: Builder, spatial: tuple[int, ...], *, dilations: bool = True, most: int = 3
) -> dict[str, object]:
    """Kernel, strides, dilations and padding that fit an image."""
    rank = len(spatial)
    kernel = [b.integer(1, min(most, size)) for size in spatial]
    attributes: dict[str, object] = {"kernel_shape": kernel}
    if b.flag():
        attributes["strides"] = b.integers(rank, 1, 3)
    dilated = [1] * rank
    if dilations and b.flag():
        dilated = [
            b.integer(1, 2) if (k - 1) * 2 < size else 1 for k, size in zip(kernel, spatial, strict=True)
        ]
        attributes["dilations"] = dilated
    padding = b.choose(["none", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if padding == "pads":
        reach = [k - 1 for k in kernel]  # onnxruntime asks for less than the kernel
        attributes["pads"] = [b.integer(0, r) for r in (*reach, *reach)]
    elif padding != "none":
        attributes["auto_pad"] = padding
    return attributes


@emits("Conv")
def conv(b: Builder, op: str) -> object:
    x = b.picture()
    _, channels, *spatial = b.shape(x)
    attributes = _window(b, tuple(spatial))
    group = b.choose([g for g in range(1, channels + 1) if channels % g == 0])
    outputs = group * b.integer(1, 2)
    weight = b.held(b.array(outputs, channels // group, *attributes["kernel_shape"]))
    if group > 1 or b.flag():
        attributes["group"] = group
    if b.flag():
        del attributes["kernel_shape"]
    return b.add(op, [x, weight, *([b.held(b.array(outputs))] if b.flag() else [])], **attributes)


@emits("ConvTranspose")
def conv_transpose(b: Builder, op: str) -> object:
    x = b.picture()
    _, channels, *spatial = b.shape(x)
    rank = len(spatial)
    group = b.choose([g for g in range(1, channels + 1) if channels % g == 0])
    outputs = b.integer(1, 2)
    kernel, strides, dilations = b.integers(rank, 1, 3), b.integers(rank, 1, 2), [1] * rank
    attributes: dict[str, object] = {"kernel_shape": kernel, "strides": strides, "group": group}
    if b.flag():
        attributes["dilations"] = dilations = b.integers(rank, 1, 2)
    padding = b.choose(["none", "pads", "SAME_UPPER", "SAME_LOWER", "output_shape"])
    extra = (
        [b.integer(0, max(s, d) - 1) for s, d in zip(strides, dilations, strict=True)] if b.flag() else None
    )
    if extra:
        attributes["output_padding"] = extra
    if padding == "pads":
        attributes["pads"] = [b.integer(0, k - 1) for k in (*kernel, *kernel)]
    elif padding == "output_shape":
        free = [
            (i - 1) * s + (k - 1) * d + 1 + e
            for i, s, k, d, e in zip(spatial, strides, kernel, dilations, extra or [0] * rank, strict=True)
        ]
        attributes["output_shape"] = [max(1, size - b.integer(0, 2)) for size in free]
        attributes |= b.choose([{}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}])
    elif padding != "none":
        attributes["auto_pad"] = padding
    weight = b.held(b.array(channels, outputs, *kernel))
    bias = [b.held(b.array(outputs * group))] if b.flag() else []
    return b.add(op, [x, weight, *bias], **attributes)


@emits("MaxPool")
def max_pool(b: Builder, op: str) -> object:
    x = b.picture()
    attributes = _window(b, b.shape(x)[2:], dilations=b.opset >= 10)
    if b.opset >= 10 and "auto_pad" not in attributes and b.flag():
        attributes["ceil_mode"] = 1
    return b.add(op, [x], outputs=b.integer(1, 2) if b.opset >= 8 else 1, **attributes)


@emits("AveragePool")
def average_pool(b: Builder, op: str) -> object:
    x = b.picture()
    attributes = _window(b, b.shape(x)[2:], dilations=b.opset >= 19)
    if b.opset >= 10 and "auto_pad" not in attributes and b.flag():
        attributes["ceil_mode"] = 1
    if b.flag():
        attributes["count_include_pad"] = 1
    return b.add(op, [x], **attributes)


@emits("GlobalAveragePool", "GlobalMaxPool")
def global_pool(b: Builder, op: str) -> object:
    return b.add(op, [b.picture()])


@emits("LpPool", "GlobalLpPool")
def lp_pool(b: Builder, op: str) -> object:
    x = b.picture()
    p = {"p": b.choose([1, 2, 3])} if b.flag() else {}
    window = _window(b, b.shape(x)[2:], dilations=b.opset >= 18) if op == "LpPool" else {}
    return b.add(op, [x], **p, **window)


# -- normalisations ------------------------------------------------------------------------------------------

_EPSILON = [{"epsilon": 0.25}, {"epsilon": 0.0625}]  # the default makes slopes of 300 where all entries agree


@emits("Softmax", "LogSoftmax")
def softmax(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0 and math.prod(shape) > 0)
    return b.add(op, [x], **({"axis": _axis(b, len(b.shape(x)))} if b.flag() or len(b.shape(x)) == 1 else {}))


@emits("LayerNormalization", "RMSNormalization")
def layer_normalization(b: Builder, op: str) -> object:
    if b.opset < {"LayerNormalization": 17, "RMSNormalization": 23}[op]:
        raise Refused
    x = b.pick(lambda shape: len(shape) > 0 and math.prod(shape) > 0)
    axis = _axis(b, len(b.shape(x)))
    own = b.shape(x)[axis:]
    parameters = [b.held(b.array(*own)) for _ in range(b.integer(1, 1 + (op == "LayerNormalization")))]
    return b.add(op, [x, *parameters], axis=axis, **b.choose(_EPSILON))


@emits("InstanceNormalization", "GroupNormalization")
def instance_normalization(b: Builder, op: str) -> object:
    if op == "GroupNormalization" and b.opset < 21:
        raise Refused
    x = b.picture()
    channels = b.shape(x)[1]
    groups = {}
    if op == "GroupNormalization":
        groups = {"num_groups": b.choose([n for n in range(1, channels + 1) if channels % n == 0])}
    return b.add(op, [x, *(b.held(b.array(channels)) for _ in range(2))], **groups, **b.choose(_EPSILON))


@emits("LpNormalization")
def lp_normalization(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0 and math.prod(shape) > 0)
    return b.add(op, [_above(b, x, 0.5)], axis=_axis(b, len(b.shape(x)), since=1), p=b.integer(1, 2))


@emits("LRN")
def lrn(b: Builder, op: str) -> object:
    return b.add(op, [b.picture((4,))], size=b.choose([1, 3, 5]), alpha=0.5, beta=b.choose([0.75, 0.5]))


# -- reductions ----------------------------------------------------------------------------------------------


@emits("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1")
@emits("ReduceL2", "ReduceProd", "ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum")
def reduce(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0 and math.prod(shape) > 0)
    if op == "ReduceLogSum":
        x = _above(b, x, 0.5)
    attributes: dict[str, object] = {"keepdims": int(b.flag())} if b.flag() else {}
    axes = _axes(b, len(b.shape(x))) if b.flag() else None
    if b.opset < (13 if op == "ReduceSum" else 18):
        return b.add(op, [x], **attributes, **({"axes": axes} if axes else {}))
    if axes is None:
        if b.flag():
            attributes["noop_with_empty_axes"] = int(b.flag())
        return b.add(op, [x, b.held(_ints())] if b.flag() else [x], **attributes)
    return b.add(op, [x, b.held(_ints(*axes))], **attributes)


# -- moves ---------------------------------------------------------------------------------------------------


@emits("Reshape")
def reshape(b: Builder, op: str) -> object:
    x = b.pick()
    shape, size = b.shape(x), math.prod(b.shape(x))
    divisor = b.choose([d for d in range(1, size + 1) if size % d == 0])
    options = [(-1,), (divisor, size // divisor), (divisor, -1), (1, -1, divisor)]
    options += [(0, -1)] if shape else []
    options += [(0, 0, -1)] if len(shape) > 1 else []
    asked = b.choose(options)
    attributes = {"allowzero": int(b.flag())} if b.opset >= 14 and b.flag() and 0 not in asked else {}
    if b.flag():
        return b.add(op, [x, b.held(_ints(*asked))], **attributes)
    like = b.pick(lambda other: math.prod(other) == size)  # a shape that is computed in the graph
    return b.add(op, [x, b.add("Shape", [like])])


@emits("Flatten")
def flatten(b: Builder, op: str) -> object:
    x = b.pick()
    rank = len(b.shape(x))
    axis = b.integer(-rank if b.opset >= 11 else 0, rank)
    return b.add(op, [x], **({} if b.flag() and rank else {"axis": axis}))


@emits("Squeeze")
def squeeze(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: 1 in shape)
    ones = [axis for axis, size in enumerate(b.shape(x)) if size == 1]
    if b.flag():
        return b.add(op, [x])
    axes = [a - len(b.shape(x)) if b.opset >= 11 and b.flag() else a for a in b.subset(ones)]
    return b.add(op, [x], axes=axes) if b.opset < 13 else b.add(op, [x, b.held(_ints(*axes))])


@emits("Unsqueeze")
def unsqueeze(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) < 5)
    rank = len(b.shape(x)) + (count := b.integer(1, 2))
    axes = b.subset(range(rank))[:count]
    rank = len(b.shape(x)) + len(axes)
    axes = [axis if axis < rank else rank - 1 for axis in axes]
    if len(set(axes)) < len(axes):
        raise Refused
    if b.opset >= 11:
        axes = [axis - rank if b.flag() else axis for axis in axes]
        axes = axes[::-1] if b.flag() else axes
    return b.add(op, [x], axes=axes) if b.opset < 13 else b.add(op, [x, b.held(_ints(*axes))])


@emits("Transpose")
def transpose(b: Builder, op: str) -> object:
    x = b.pick()
    rank = len(b.shape(x))
    if b.flag() or not rank:
        return b.add(op, [x])
    left = list(range(rank))
    return b.add(op, [x], perm=[left.pop(b.integer(0, len(left) - 1)) for _ in range(rank)])


@emits("Slice")
def slice_(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0)
    rank = len(b.shape(x))
    axes = b.subset(range(rank))
    starts, ends, steps = [], [], []
    for axis in axes:
        size = b.shape(x)[axis]
        backwards = b.opset >= 10 and b.flag()
        step = b.integer(1, 2) * (-1 if backwards else 1)
        start, end = b.integer(-size - 1, size + 1), b.integer(-size - 1, size + 1)
        if b.flag():  # from one end to the other, as exporters write it
            start, end = (size - 1, -(2**31)) if backwards else (0, 2**31 - 1)
        starts.append(start)
        ends.append(end)
        steps.append(step)
    named = b.flag() or len(axes) < rank
    if b.opset < 10:
        return b.add(op, [x], starts=starts, ends=ends, **({"axes": axes} if named else {}))
    signed = [axis - rank if b.flag() else axis for axis in axes]
    kind = b.choose([np.int64, np.int32])
    parts = [starts, ends, *([signed] if named else [])]
    inputs = [x, *(b.held(np.array(part, kind)) for part in parts)]
    if min(steps) < 0 or max(steps) > 1 or b.flag():
        inputs += [*([] if named else [""]), b.held(np.array(steps, kind))]
    return b.add(op, inputs)


@emits("Gather")
def gather(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0)
    axis = _axis(b, len(b.shape(x)))
    size = b.shape(x)[axis]
    shape = b.choose([(), (1,), (3,), (2, 2)])
    low = -size if b.opset >= 11 else 0
    indices = np.array(b.integers(math.prod(shape), low, size - 1), b.choose([np.int64, np.int32])).reshape(
        shape
    )
    return b.add(op, [x, b.held(indices)], **({} if axis == 0 and b.flag() else {"axis": axis}))


@emits("GatherElements")
def gather_elements(b: Builder, op: str) -> object:
    if b.opset < 11:
        raise Refused
    x = b.pick(lambda shape: len(shape) > 0)
    axis = _axis(b, len(b.shape(x)))
    shape = list(b.shape(x))
    size, shape[axis] = shape[axis], b.integer(1, 3)
    return b.add(op, [x, b.held(b.random().integers(-size, size, shape))], axis=axis)


@emits("GatherND")
def gather_nd(b: Builder, op: str) -> object:
    if b.opset < 11:
        raise Refused
    x = b.pick(lambda shape: len(shape) > 0)
    depth, count = b.integer(1, len(b.shape(x))), b.integer(1, 3)
    indices = [[b.integer(-size, size - 1) for size in b.shape(x)[:depth]] for _ in range(count)]
    return b.add(op, [x, b.held(_ints(*indices))])


@emits("ScatterElements")
def scatter_elements(b: Builder, op: str) -> object:
    if b.opset < 11:
        raise Refused
    x = b.pick(lambda shape: len(shape) > 0)
    axis, shape = _axis(b, len(b.shape(x))), list(b.shape(x))
    reduction = b.choose(["none", "none", *(["add"] if b.opset >= 16 else [])])
    if b.opset >= 18:
        reduction = b.choose([reduction, "max", "min"])
    size = shape[axis]
    shape[axis] = b.integer(1, size)
    indices = np.argsort(b.random().random((*b.shape(x),)), axis)  # no entry twice
    indices = indices[tuple(slice(length) for length in shape)]
    same = [name for name in b.active if list(b.shape(name)) == shape]
    updates = b.choose(same) if same and b.flag() else b.held(b.array(*shape))
    operands = [x, b.held(indices - size * b.flag()), updates]
    return b.add(op, operands, axis=axis, **({"reduction": reduction} if b.opset >= 16 else {}))


@emits("Compress")
def compress(b: Builder, op: str) -> object:
    if b.opset < 9:
        raise Refused
    x = b.pick(lambda shape: len(shape) > 0)
    axis = _axis(b, len(b.shape(x)))
    kept = np.array([True, *(b.flag() for _ in range(b.shape(x)[axis] - 1))])
    return b.add(op, [x, b.held(kept)], axis=axis)


@emits("Trilu")
def trilu(b: Builder, op: str) -> object:
    if b.opset < 14:
        raise Refused
    x = b.pick(lambda shape: len(shape) > 1)
    shift = [b.held(np.array(b.integer(-2, 2)))] if b.flag() else []
    return b.add(op, [x, *shift], **b.choose([{}, {"upper": 0}]))


@emits("CumSum")
def cum_sum(b: Builder, op: str) -> object:
    if b.opset < 11:
        raise Refused
    x = b.pick(lambda shape: len(shape) > 0)
    axis = np.array(_axis(b, len(b.shape(x))), b.choose([np.int64, np.int32]))
    return b.add(op, [x, b.held(axis)], exclusive=int(b.flag()), reverse=int(b.flag()))


@emits("TopK")
def top_k(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: max(shape, default=0) > 0)
    axis = _axis(b, len(b.shape(x)))
    k = b.integer(1, b.shape(x)[axis])
    if b.opset < 10:
        return b.add(op, [x], outputs=2, k=k, axis=axis)
    largest = {} if b.opset < 11 or b.flag() else {"largest": 0}
    return b.add(op, [x, b.held(_ints(k))], outputs=2, axis=axis, **largest)


@emits("Split")
def split(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: max(shape, default=0) > 1)
    axis = _axis(b, len(b.shape(x)))
    size = b.shape(x)[axis]
    count = b.integer(1, min(3, size))
    attributes: dict[str, object] = {} if axis == 0 and b.flag() else {"axis": axis}
    if b.flag():
        cuts = sorted({b.integer(1, max(1, size - 1)) for _ in range(count - 1)} - {size})
        sizes = np.diff([0, *cuts, size])
        if b.opset < 13:
            return b.add(op, [x], outputs=len(sizes), split=[int(s) for s in sizes], **attributes)
        return b.add(op, [x, b.held(_ints(*sizes))], outputs=len(sizes), **attributes)
    if b.opset >= 18:
        attributes["num_outputs"] = count  # the last piece may be smaller
    elif size % count:
        raise Refused
    return b.add(op, [x], outputs=count, **attributes)


@emits("Expand")
def expand(b: Builder, op: str) -> object:
    if b.opset < 8:
        raise Refused
    x = b.pick()
    asked = [b.integer(1, 3) if size == 1 else b.choose([1, size]) for size in b.shape(x)]
    asked = (
        [*([b.integer(1, 2)] if b.flag() else []), *asked] if b.flag() else asked[b.integer(0, len(asked)) :]
    )
    return b.add(op, [x, b.held(_ints(*asked))])


@emits("Tile")
def tile(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0)
    return b.add(op, [x, b.held(_ints(*b.integers(len(b.shape(x)), 1, 2)))])


@emits("DepthToSpace")
def depth_to_space(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) == 4 and shape[1] % 4 == 0)
    mode = b.choose([{}, {"mode": "CRD"}, {"mode": "DCR"}]) if b.opset >= 11 else {}
    return b.add(op, [x], blocksize=2, **mode)


@emits("SpaceToDepth")
def space_to_depth(b: Builder, op: str) -> object:
    block = b.choose([2, 3])
    x = b.pick(lambda shape: len(shape) == 4 and not shape[2] % block and not shape[3] % block)
    mode = b.choose([{}, {"mode": "CRD"}, {"mode": "DCR"}]) if b.opset >= 28 else {}
    return b.add(op, [x], blocksize=block, **mode)


@emits("Pad")
def pad(b: Builder, op: str) -> object:
    x = b.pick(lambda shape: len(shape) > 0)
    shape = b.shape(x)
    mode = b.choose(["constant", "reflect", "edge", *(["wrap"] if b.opset >= 19 else [])])
    most = [2 if mode in ("constant", "edge") else min(2, size - (mode == "reflect")) for size in shape]
    lowest = -1 if b.flag() and b.flag() else 0
    axes = b.subset(range(len(shape))) if b.opset >= 18 and b.flag() else list(range(len(shape)))
    pads = [b.integer(lowest, most[axis]) for axis in (*axes, *axes)]
    attributes = {"mode": mode} if mode != "constant" or b.flag() else {}
    fill = float(b.array()) if b.flag() else None
    if b.opset < 11:
        return b.add(op, [x], pads=pads, **attributes, **({} if fill is None else {"value": fill}))
    inputs = [x, b.held(_ints(*pads)), "" if fill is None else b.held(b.scalar(fill))]
    if len(axes) < len(shape) or (b.opset >= 18 and b.flag()):
        inputs.append(b.held(_ints(*(a - len(shape) if b.flag() else a for a in axes))))
    return b.add(op, inputs if inputs[-1] else inputs[:-1], **attributes)


# -- resampling ----------------------------------------------------------------------------------------------


@emits("Upsample")
def upsample(b: Builder, op: str) -> object:
    if b.opset >= 10:
        raise Refused("deprecated")
    x = b.picture((4,))
    mode = b.choose(["nearest", "linear"])
    scales = [1.0, 1.0, b.choose([1.0, 2.0, 3.0, 1.5]), b.choose([1.0, 2.0, 2.5])]
    if b.opset < 9:
        return b.add(op, [x], mode=mode, scales=scales)
    return b.add(op, [x, b.held(np.float32(scales), fixed=True)], mode=mode)


@emits("Resize")
def resize(b: Builder, op: str) -> object:
    if b.opset < 10:
        raise Refused
    x = b.picture((3, 4))
    shape = b.shape(x)
    scales = [1.0, 1.0, *(b.choose([0.5, 0.6, 1.0, 1.5, 2.0, 3.0]) for _ in shape[2:])]
    if b.opset == 10:
        mode = b.choose(["nearest", "linear"])
        return b.add(op, [x, b.held(np.float32(scales), fixed=True)], mode=mode)
    mode = b.choose(["nearest", "linear", *(["cubic"] if len(shape) == 4 else [])])
    modes = ["half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners"]
    attributes: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": b.choose(modes)}
    if mode == "nearest":
        attributes["nearest_mode"] = b.choose(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    no_roi = "" if b.opset >= 13 else b.held(np.float32([]), fixed=True)
    if b.flag():
        sizes = [max(1, int(size * scale)) for size, scale in zip(shape, scales, strict=True)]
        no_scales = "" if b.opset >= 13 else b.held(np.float32([]), fixed=True)
        return b.add(op, [x, no_roi, no_scales, b.held(_ints(*sizes), fixed=True)], **attributes)
    if min(int(size * scale) for size, scale in zip(shape, scales, strict=True)) < 1:
        raise Refused
    return b.add(op, [x, no_roi, b.held(np.float32(scales), fixed=True)], **attributes)


# -- held branches -------------------------------------------------------------------------------------------


@emits("Size")
def size(b: Builder, op: str) -> object:
    """Mean by hand: Sum divided by the number of entries, which the graph counts."""
    x = b.pick()
    return b.add("Div", [x, b.add("Cast", [b.add(op, [x])], to=b.element)])


@emits("Shape")
def shape(b: Builder, op: str) -> object:
    """Broadcast to the shape of another tensor."""
    if b.opset < 8:
        raise Refused
    x = b.pick()
    like = b.pick(_compatible(b.shape(x)))
    return b.add("Expand", [x, b.add(op, [like])])


# -- geometry and signals ------------------------------------------------------------------------------


def _shaped(b: Builder, *shape: int) -> str:
    """A tensor in another shape, whose one length -1 is what remains."""
    known = abs(math.prod(shape))
    x = b.pick(lambda own: math.prod(own) > 0 and math.prod(own) % known == 0)
    return b.add("Reshape", [x, b.held(_ints(*shape))])


@emits("GridSample")
def grid_sample(b: Builder, op: str) -> object:
    x = b.picture((4, 5))
    batch, _, *spatial = b.shape(x)
    modes = ["nearest", *(("linear", "cubic") if b.opset >= 20 else ("bilinear", "bicubic"))]
    grid = b.held(b.array(batch, *b.integers(len(spatial), 1, 2), len(spatial)))
    # Reflection between the centres of a single entry is refused.
    align = b.flag() and 1 not in spatial
    padding = b.choose(["zeros", "border", "reflection"])
    return b.add(op, [x, grid], mode=b.choose(modes), padding_mode=padding, align_corners=int(align))


@emits("RoiAlign", "MaxRoiPool")
def regions(b: Builder, op: str) -> object:
    x = b.picture((4,))
    rois = np.sort(b.array(2, 2, 2), axis=1).reshape(2, 4) * 2
    if op == "MaxRoiPool":
        rois = np.concatenate([np.zeros((2, 1), b.dtype), rois], axis=1)
        return b.add(op, [x, b.held(rois)], pooled_shape=b.integers(2, 1, 2), spatial_scale=0.5)
    images = b.held(_ints(0, b.shape(x)[0] - 1))
    sizes = {
        "output_height": b.integer(1, 2),
        "output_width": b.integer(1, 2),
        "sampling_ratio": b.integer(0, 2),
    }
    return b.add(op, [x, b.held(rois), images], mode=b.choose(["avg", "max"]), **sizes)


@emits("AffineGrid")
def affine_grid(b: Builder, op: str) -> object:
    rank = b.integer(2, 3)
    theta = _shaped(b, -1, rank, rank + 1)
    size = b.held(_ints(b.shape(theta)[0], 1, *b.integers(rank, 1, 3)))
    return b.add(op, [theta, size], align_corners=int(b.flag()))


@emits("MaxUnpool")
def max_unpool(b: Builder, op: str) -> object:
    x = b.picture()
    batch, channels, *spatial = b.shape(x)
    out = (batch, channels, *(2 * length for length in spatial))
    indices = b.random().permutation(math.prod(out))[: math.prod(b.shape(x))].reshape(b.shape(x))
    window = [2] * len(spatial)
    return b.add(op, [x, b.held(indices.astype(np.int64))], kernel_shape=window, strides=window)


@emits("Col2Im")
def col2im(b: Builder, op: str) -> object:
    x = _shaped(b, 1, 4, -1)
    return b.add(op, [x, b.held(_ints(b.shape(x)[2] + 1, 2)), b.held(_ints(2, 2))])


@emits("DeformConv")
def deform_conv(b: Builder, op: str) -> object:
    x = b.picture((4,))
    batch, channels, *spatial = b.shape(x)
    kernel = b.integers(2, 1, 2)
    out = [length + 2 - k + 1 for length, k in zip(spatial, kernel, strict=True)]
    taps = math.prod(kernel)
    inputs = [x, b.held(b.array(1, channels, *kernel)), b.held(b.array(batch, 2 * taps, *out))]
    if b.flag():
        inputs += ["", b.held(b.array(batch, taps, *out))]
    return b.add(op, inputs, kernel_shape=kernel, pads=[1] * 4)


@emits("DFT")
def dft(b: Builder, op: str) -> object:
    x = _shaped(b, 1, -1, b.integer(1, 2))
    halved, length = b.shape(x)[-1] == 1 and b.flag(), b.shape(x)[1]
    inverse = not halved and b.flag()
    if inverse and b.dtype == np.float64 and length & (length - 1):
        raise Refused("onnxruntime's is only good to 4e-9, so that no answer is verified")
    return b.add(op, [x], inverse=int(inverse), onesided=int(halved))


@emits("STFT")
def stft(b: Builder, op: str) -> object:
    x = _shaped(b, 1, -1, 1)
    length = b.integer(1, b.shape(x)[1])
    return b.add(op, [x, b.held(np.array(b.integer(1, 3))), b.held(b.array(length))])


@emits("RotaryEmbedding")
def rotary_embedding(b: Builder, op: str) -> object:
    x = _shaped(b, 1, 1, -1, 4)
    caches = [b.held(b.array(1, b.shape(x)[2], 2)) for _ in range(2)]
    return b.add(op, [x, *caches], interleaved=int(b.flag()))


# -- local functions -----------------------------------------------------------------------------------------


def function(b: Builder) -> object:
    """A call of a local function: with an attribute, with several outputs, or nested."""
    opsets = [helper.make_opsetid("", b.opset), helper.make_opsetid(FUNCTIONS, 1)]
    leaky = helper.make_node("LeakyRelu", ["t"], ["y"])
    leaky.attribute.append(helper.make_attribute_ref("alpha", onnx.AttributeProto.FLOAT, "slope"))
    shifted = [helper.make_node("Add", ["x", "c"], ["t"]), leaky]
    twice = [
        helper.make_node("Shifted", ["x", "c"], ["t"], domain=FUNCTIONS, slope=0.25),
        helper.make_node("Relu", ["t"], ["u"]),
        helper.make_node("Shifted", ["u", "c"], ["y"], domain=FUNCTIONS, slope=-0.5),
    ]
    centred = [helper.make_node("ReduceMean", ["x"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    for name, inputs, outputs, nodes, attributes in (
        ("Shifted", ["x", "c"], ["y"], shifted, ["slope"]),
        ("Twice", ["x", "c"], ["y"], twice, []),
        ("Centred", ["x"], ["y", "m"], centred, []),
    ):
        b.functions[name] = helper.make_function(FUNCTIONS, name, inputs, outputs, nodes, opsets, attributes)
    x = b.pick(lambda shape: len(shape) > 0)
    name = b.choose(["Shifted", "Twice", "Centred"])
    if name == "Centred":
        return b.add(name, [x], outputs=2, domain=FUNCTIONS)
    shift = b.held(b.array(b.shape(x)[-1])) if b.flag() else x
    return b.add(name, [x, shift], domain=FUNCTIONS, **({"slope": 0.125} if name == "Shifted" else {}))
