"""all-MiniLM-L6-v2 as an ONNX graph with 8-bit weights, for one text at a time.

The graph is written out, not traced: that takes half a second instead of 13, needs no PyTorch, and its fused attention
is faster. For one text at a time there is no padding and no mask.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from app.embedding import minilm

LAYERS = 6
HEADS = 12
EPSILON = 1e-12

RUNTIME_DOMAIN = "com.microsoft"
"""Of the operators that only onnxruntime has."""

WEIGHT_LEVELS = 63
"""Seven bits: processors without 8-bit dot products add two products in 16 bits, and 2 * 63 * 255 does not overflow."""


def export(weights: Path) -> bytes:
    """The graph: from `tokens`, word pieces by id, shape (1, tokens), to a vector of unit length, shape (1, 384)."""
    graph = Graph(weights)
    hidden = embeddings(graph)
    for layer in range(LAYERS):
        hidden = transformer(graph, hidden, f"encoder.layer.{layer}")
    mean = graph.add("ReduceMean", hidden, graph.constant(np.array([1])), keepdims=0)
    model = graph.model(graph.add("LpNormalization", mean, axis=-1, p=2))
    serialised: bytes = model.SerializeToString()
    return serialised


def embeddings(graph: "Graph") -> str:
    """The sum of the embeddings of word piece, position and segment."""
    levels, scale = quantised(graph.weights["embeddings.word_embeddings.weight"], axis=1)
    pieces = graph.add("Cast", graph.add("Gather", graph.constant(levels), "tokens"), to=TensorProto.FLOAT)
    words = graph.add("Mul", pieces, graph.add("Gather", graph.constant(scale), "tokens"))
    segment = graph.weights["embeddings.token_type_embeddings.weight"][0]
    places = graph.constant(graph.weights["embeddings.position_embeddings.weight"] + segment)
    places = graph.add("Slice", places, graph.constant(np.array([0])), graph.add("Shape", "tokens", start=1))
    return graph.layer_norm(graph.add("Add", words, places), "embeddings.LayerNorm")


def transformer(graph: "Graph", hidden: str, layer: str) -> str:
    """One layer: attention, then feed-forward; each is added to what goes into it."""
    heads = [graph.linear(hidden, f"{layer}.attention.self.{part}") for part in ("query", "key", "value")]
    attended = graph.add("MultiHeadAttention", *heads, domain=RUNTIME_DOMAIN, num_heads=HEADS)
    attended = graph.linear(attended, f"{layer}.attention.output.dense")
    hidden = graph.layer_norm(graph.add("Add", attended, hidden), f"{layer}.attention.output.LayerNorm")
    inner = graph.add("Gelu", graph.linear(hidden, f"{layer}.intermediate.dense"))
    # Some tokens are far larger here than others; scaled to one size, they do not cost the others their precision.
    size = graph.add("ReduceMax", graph.add("Abs", inner), graph.constant(np.array([-1])), keepdims=1)
    outer = graph.linear(graph.add("Div", inner, size), f"{layer}.output.dense", times=size)
    return graph.layer_norm(graph.add("Add", outer, hidden), f"{layer}.output.LayerNorm")


def quantised(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers and what to multiply them by: one scale for all that lie along the axis."""
    scale = np.abs(values).max(axis, keepdims=True) / WEIGHT_LEVELS
    return np.rint(values / scale).astype(np.int8), scale


class Graph:
    """Collects operators, which know each other by the names of their outputs."""

    def __init__(self, weights: Path) -> None:
        self.weights: dict[str, NDArray[np.float32]] = load_file(weights)
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def constant(self, value: NDArray[Any]) -> str:
        """Adds an array and returns its name."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: float) -> str:
        """Adds an operator and returns the name of its output."""
        name = f"{operator}_{len(self._nodes)}"
        node = helper.make_node(operator, inputs, [name], name, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return name

    def linear(self, x: str, name: str, times: str | None = None) -> str:
        """Adds the product of `x` and a weight, `times` a factor, plus a bias; in 8-bit integers."""
        levels, scale = quantised(self.weights[f"{name}.weight"].T, axis=0)
        constants = self.constant(levels), self.constant(scale.ravel())
        product = self.add("DynamicQuantizeMatMul", x, *constants, domain=RUNTIME_DOMAIN)
        if times is not None:
            product = self.add("Mul", product, times)
        return self.add("Add", product, self.constant(self.weights[f"{name}.bias"]))

    def layer_norm(self, x: str, name: str) -> str:
        """Adds a normalisation of each row of `x`, scaled and shifted."""
        constants = (self.constant(self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.add("LayerNormalization", x, *constants, axis=-1, epsilon=EPSILON)

    def model(self, output: str) -> ModelProto:
        """All that was added, from `tokens` to the output of that name."""
        tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "tokens"])
        vector = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, minilm.DIMENSIONS])
        graph = helper.make_graph(self._nodes, minilm.MODEL, [tokens], [vector], self._constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(RUNTIME_DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)
