"""Small transformers with random weights: a decoder like GPT-2 or like LLaMA, and a vision transformer.

    python -m benchmarks.transformers

in the repository's root times both maps of each, tangent and frozen, from the embeddings to the logits.
"""

from __future__ import annotations

import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import ilin

WIDTH, HEADS, LAYERS = 64, 4, 2
OPSET = 23  # the first with Attention


class Net:
    """Nodes and weights, added one after the other."""

    def __init__(self, seed: int, *, biases: bool) -> None:
        self.random, self.biases = np.random.default_rng(seed), biases
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """One node with one output, whose name is returned."""
        output = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def weight(self, *shape: int, size: float = 1.0, at: float = 0.0) -> str:
        """A random parameter."""
        return self.held(at + size * self.random.standard_normal(shape).astype(np.float32))

    def held(self, value: np.ndarray) -> str:
        """A given parameter."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(value, value.dtype if value.dtype == np.int64 else np.float32)
        return name

    def linear(self, x: str, rows: int, columns: int) -> str:
        """A dense layer."""
        y = self.add("MatMul", x, self.weight(rows, columns, size=rows**-0.5))
        return self.add("Add", y, self.weight(columns, size=0.1)) if self.biases else y

    def normalised(self, x: str) -> str:
        """LayerNormalization, or without biases RMSNormalization."""
        gain = self.weight(WIDTH, size=0.1, at=1.0)
        if self.biases:
            return self.add("LayerNormalization", x, gain, self.weight(WIDTH, size=0.1))
        return self.add("RMSNormalization", x, gain)

    def attended(self, x: str, *, causal: bool) -> str:
        """Self-attention."""
        q, k, v = (self.linear(x, WIDTH, WIDTH) for _ in range(3))
        y = self.add("Attention", q, k, v, q_num_heads=HEADS, kv_num_heads=HEADS, is_causal=int(causal))
        return self.linear(y, WIDTH, WIDTH)

    def fed_forward(self, x: str) -> str:
        """Two layers with Gelu between them; without biases three, one of which gates: SwiGLU."""
        up = self.linear(x, WIDTH, 4 * WIDTH)
        if self.biases:
            inner = self.add("Gelu", up, approximate="tanh")
        else:
            gate = self.linear(x, WIDTH, 4 * WIDTH)
            inner = self.add("Mul", self.add("Mul", gate, self.add("Sigmoid", gate)), up)
        return self.linear(inner, 4 * WIDTH, WIDTH)

    def blocks(self, x: str, *, causal: bool) -> str:
        """All layers, each of them added to what comes in, and the last normalisation."""
        for _ in range(LAYERS):
            x = self.add("Add", x, self.attended(self.normalised(x), causal=causal))
            x = self.add("Add", x, self.fed_forward(self.normalised(x)))
        return self.normalised(x)

    def model(self, name: str, shape: list[int], logits: list[int]) -> onnx.ModelProto:
        """From "embeddings" to "logits"."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)],
            [numpy_helper.from_array(value, key) for key, value in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def decoder(
    *, biases: bool = True, length: int = 16, vocabulary: int = 100, seed: int = 0
) -> onnx.ModelProto:
    """From embeddings, (1, length, 64), to logits, (1, length, vocabulary).

    With biases as GPT-2: LayerNormalization and Gelu. Without any as LLaMA: RMSNormalization and SwiGLU.
    """
    net = Net(seed, biases=biases)
    x = net.add("Add", "embeddings", net.weight(1, length, WIDTH, size=0.1)) if biases else "embeddings"
    y = net.blocks(x, causal=True)
    net.nodes.append(
        helper.make_node("MatMul", [y, net.weight(WIDTH, vocabulary, size=WIDTH**-0.5)], ["logits"])
    )
    return net.model("decoder", [1, length, WIDTH], [1, length, vocabulary])


def vision(*, patches: int = 16, classes: int = 10, seed: int = 0) -> onnx.ModelProto:
    """From embeddings of patches, (1, patches, 64), to logits of their mean, (1, classes)."""
    net = Net(seed, biases=True)
    x = net.add("Add", "embeddings", net.weight(1, patches, WIDTH, size=0.1))
    y = net.add("ReduceMean", net.blocks(x, causal=False), net.held(np.array([1])), keepdims=0)
    matrix, shift = net.weight(WIDTH, classes, size=WIDTH**-0.5), net.weight(classes)
    net.nodes.append(helper.make_node("Gemm", [y, matrix, shift], ["logits"]))
    return net.model("vision", [1, patches, WIDTH], [1, classes])


MODELS = {
    "decoder like GPT-2": decoder(),
    "decoder like LLaMA": decoder(biases=False),
    "vision transformer": vision(),
}


def embeddings(model: onnx.ModelProto, seed: int = 1) -> np.ndarray:
    """A random point."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def main() -> None:
    """Print the time and what the certificate says of every map."""
    for name, model in MODELS.items():
        x = embeddings(model)
        for mode in ("tangent", "frozen"):
            compiled = ilin.compile(model, mode=mode)
            compiled.at(x)
            start = time.perf_counter()
            affine = compiled.at(x)
            taken = time.perf_counter() - start
            print(
                f"{name}, {mode}: {affine.W.shape[0]} × {affine.W.shape[1]} in {taken:.2f} s; "
                f"{affine.certificate}"
            )


if __name__ == "__main__":
    main()
