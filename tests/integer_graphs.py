"""Graphs of floats for targets of integers: one for every rule, and their ranges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensmith.backends.ethosu.integer_form import FLOAT_FORM, integer_passes
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.graph import Graph, Node, Value, constant
from tensmith.compiler.ir.ops.registry import Builder
from tensmith.compiler.ir.types import DType, TensorType
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.precision.fixed_point.quantise_floats import to_quantise

Make = Callable[["Sketch"], Value]
WINDOW, SAMPLES = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}, 8


class Sketch:
    """A graph as it is drawn: inputs, weights, operators."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.builder = Builder(self.nodes)
        self.inputs: list[Value] = []

    def input(self, *shape: int) -> Value:
        """A further input of floats."""
        self.inputs.append(Value(TensorType(DType.F32, shape), f"x{len(self.inputs)}"))
        return self.inputs[-1]

    def weights(self, *shape: int, size: float = 1.0) -> Value:
        """Constants around 0."""
        return constant((size * self.rng.normal(size=shape)).astype(np.float32))

    def op(self, name: str, *inputs: Value | float, **attrs) -> Value:
        """An operator's result; numbers become constants."""
        values = [x if isinstance(x, Value) else constant(np.float32(x)) for x in inputs]
        return self.builder.emit(name, values, attrs)

    def conv(self, x: Value, channels: int, kernel=(3, 3), *, bias=True, **attrs) -> Value:
        """A convolution with random weights."""
        groups = attrs.get("groups", 1)
        w = self.weights(channels, x.shape[1] // groups, *kernel, size=0.3)
        operands = [x, w, self.weights(channels)] if bias else [x, w]
        return self.op("conv", *operands, **{**WINDOW, **attrs})

    def relu(self, x: Value) -> Value:
        """max(x, 0)"""
        return self.op("max", x, 0.0)

    def graph(self, *outputs: Value) -> Graph:
        """What was drawn."""
        for number, value in enumerate(outputs):
            value.name = f"y{number}"
        return Graph(self.inputs, list(outputs), self.nodes)

    def draw(self, seed: int) -> dict[str, np.ndarray]:
        """Normal inputs."""
        rng = np.random.default_rng(seed)
        shapes = {value.name: value.type.static_shape for value in self.inputs}
        return {n: rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}


CASES: dict[str, Make] = {}


def case(make: Make) -> Make:
    """Decorator: a graph with one output, by the name of what makes it."""
    CASES[make.__name__] = make
    return make


@case
def conv_relu(s: Sketch) -> Value:
    return s.relu(s.conv(s.input(1, 5, 9, 8), 12, pads=(1, 1, 1, 1)))


@case
def conv_without_bias(s: Sketch) -> Value:
    return s.conv(s.input(1, 5, 9, 8), 12, bias=False)


@case
def conv_strided_with_rest(s: Sketch) -> Value:
    return s.conv(s.input(1, 4, 10, 11), 8, strides=(2, 3), pads=(1, 0, 1, 2))


@case
def conv_dilated(s: Sketch) -> Value:
    return s.conv(s.input(1, 4, 12, 12), 8, dilations=(2, 3), pads=(2, 3, 2, 3))


@case
def depthwise(s: Sketch) -> Value:
    return s.conv(s.input(1, 16, 9, 7), 16, groups=16, pads=(1, 1, 1, 1), strides=(2, 2))


@case
def depthwise_of_two(s: Sketch) -> Value:
    return s.conv(s.input(1, 6, 8, 8), 12, groups=6)


@case
def conv_of_one_axis(s: Sketch) -> Value:
    x = s.input(1, 8, 40)
    w = s.weights(16, 8, 5, size=0.3)
    attrs = {"strides": (1,), "pads": (2, 2), "dilations": (1,)}
    return s.relu(s.op("conv", x, w, s.weights(16), **attrs))


@case
def transposed(s: Sketch) -> Value:
    x, w = s.input(1, 8, 5, 6), s.weights(8, 6, 3, 3, size=0.3)
    attrs = {**WINDOW, "strides": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)}
    return s.op("conv_transpose", x, w, s.weights(6), **attrs)


@case
def residual(s: Sketch) -> Value:
    x = s.relu(s.conv(s.input(1, 4, 8, 8), 8, pads=(1, 1, 1, 1)))
    return s.relu(s.op("add", s.conv(x, 8, pads=(1, 1, 1, 1)), x))


@case
def difference(s: Sketch) -> Value:
    x = s.input(1, 4, 8, 8)
    return s.op("sub", s.conv(x, 4, (1, 1)), x)


@case
def gated(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 8, 8), 8, (1, 1))
    gate = s.op("sigmoid", s.conv(x, 8, (1, 1)))
    return s.op("mul", x, gate)


@case
def largest_of_two(s: Sketch) -> Value:
    x = s.input(1, 4, 6, 6)
    return s.op("max", s.conv(x, 4, (1, 1)), x)


@case
def swish(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 8, 8), 8, (1, 1))
    return s.op("mul", x, s.op("sigmoid", x))


@case
def gelu(s: Sketch) -> Value:
    x = s.op("matmul", s.input(5, 16), s.weights(16, 24, size=0.3))
    half = s.op("mul", x, 0.5)
    return s.op("mul", half, s.op("add", s.op("erf", s.op("mul", x, 0.70710678)), 1.0))


@case
def leaky_relu(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 8, 8), 8, (1, 1))
    return s.op("max", x, s.op("mul", x, 0.1))


@case
def slopes_of_channels(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 8, 8), 8, (1, 1))
    slope = constant(np.linspace(-0.25, 0.9, 8, dtype=np.float32).reshape(1, 8, 1, 1))
    return s.conv(s.op("where", s.op("lt", x, 0.0), s.op("mul", x, slope), x), 4)


@case
def steep_slopes_of_channels(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 8, 8), 8, (1, 1))
    slope = constant(np.linspace(0.1, 1.7, 8, dtype=np.float32).reshape(1, 8, 1, 1))
    return s.conv(s.op("where", s.op("lt", x, 0.0), s.op("mul", x, slope), x), 4)


@case
def joined(s: Sketch) -> Value:
    x = s.input(1, 4, 8, 8)
    parts = s.conv(x, 4, (1, 1)), s.op("tanh", x), s.op("mul", s.conv(x, 8, (1, 1)), 4.0)
    return s.op("concat", *parts, axis=1)


@case
def max_pooled(s: Sketch) -> Value:
    x = s.relu(s.conv(s.input(1, 4, 9, 9), 8))
    attrs = {**WINDOW, "kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 0, 0)}
    return s.op("max_pool", x, **attrs)


@case
def averaged(s: Sketch) -> Value:
    x = s.relu(s.conv(s.input(1, 4, 8, 8), 8, (1, 1)))
    return s.op("avg_pool", x, **{**WINDOW, "kernel": (2, 2), "strides": (2, 2)})


@case
def averaged_at_borders(s: Sketch) -> Value:
    attrs = {**WINDOW, "kernel": (3, 3), "pads": (1, 1, 1, 1), "strides": (2, 2)}
    return s.op("avg_pool", s.input(1, 4, 9, 9), **attrs)


@case
def averaged_whole(s: Sketch) -> Value:
    x = s.relu(s.conv(s.input(1, 4, 7, 5), 8, (1, 1)))
    pooled = s.op("reduce_mean", x, axes=(2, 3), keepdims=False)
    return s.op("add", s.op("matmul", pooled, s.weights(8, 10)), s.weights(10))


@case
def averaged_by_a_finer_scale(s: Sketch) -> Value:
    x = s.relu(s.conv(s.input(1, 4, 12, 9), 16, (1, 1)))
    return s.op("mul", s.op("reduce_mean", x, axes=(2, 3), keepdims=True), 4.0)


@case
def averaged_rows(s: Sketch) -> Value:
    return s.op("reduce_mean", s.input(6, 24), axes=(1,), keepdims=True)


@case
def dense(s: Sketch) -> Value:
    x = s.relu(s.op("add", s.op("matmul", s.input(3, 20), s.weights(20, 32)), s.weights(32)))
    return s.op("matmul", x, s.weights(32, 6))


@case
def softmax_of_few(s: Sketch) -> Value:
    return s.op("softmax", s.op("mul", s.input(3, 12), 2.5), axis=1)


@case
def softmax_of_one(s: Sketch) -> Value:
    return s.op("softmax", s.op("mul", s.input(3, 1), 2.5), axis=1)


@case
def softmax_of_thousands(s: Sketch) -> Value:
    return s.op("softmax", s.op("mul", s.input(1, 2000), 3.0), axis=1)


@case
def softmax_of_many(s: Sketch) -> Value:
    return s.op("softmax", s.op("mul", s.input(2, 300), 3.0), axis=1)


@case
def layer_normalised(s: Sketch) -> Value:
    x = s.op("mul", s.input(4, 48), 3.0)
    return s.op("layer_norm", x, s.weights(48), s.weights(48), axis=1)


@case
def attention(s: Sketch) -> Value:
    x = s.input(1, 8, 16)
    q, k, v = (s.op("matmul", x, s.weights(16, 16, size=0.4)) for _ in range(3))
    heads = [
        s.op("transpose", s.op("reshape", y, shape=(8, 2, 8)), perm=perm)
        for y, perm in ((q, (1, 0, 2)), (k, (1, 2, 0)), (v, (1, 0, 2)))
    ]
    scores = s.op("softmax", s.op("mul", s.op("matmul", heads[0], heads[1]), 0.35), axis=2)
    return s.op("matmul", scores, heads[2])


@case
def cut_and_padded(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 9, 9), 8, (1, 1))
    part = s.op("slice", x, starts=(0, 1, 0, 1), stops=(1, 7, 9, 9), steps=(1, 2, 2, 1))
    return s.conv(s.op("pad", part, 0.0, pads=(0, 0, 1, 0, 0, 0, 2, 1), mode="constant"), 4)


def _places(*numbers: int) -> Value:
    return constant(np.array(numbers, np.int64))


@case
def upsampled(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 5, 6), 8, (1, 1))
    for axis, size in ((2, 5), (3, 6)):
        x = s.op("gather", x, _places(*np.repeat(np.arange(size), 2)), axis=axis)
    return s.conv(x, 4)


@case
def picked(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 9, 9), 8, (1, 1))
    x = s.op("gather", x, _places(1, 2, 3, 0, 0, 7), axis=1)
    return s.conv(s.op("gather", x, _places(8, 3, -2, -1, 0, 1), axis=3), 4)


@case
def in_groups(s: Sketch) -> Value:
    x = s.relu(s.conv(s.input(1, 4, 9, 8), 12, (1, 1)))
    x = s.relu(s.conv(x, 24, groups=3, pads=(1, 1, 1, 1)))
    return s.conv(x, 8, (1, 1), groups=2, bias=False)


@case
def mirrored_margins(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 7, 6), 8, (1, 1))
    pads = (0, 0, 2, 1, 0, 0, 1, 3)
    return s.conv(s.op("pad", x, pads=pads, mode="reflect"), 4)


@case
def margins_of_edges(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 7, 6), 8, (1, 1))
    return s.conv(s.op("pad", x, pads=(0, 0, 2, 0, 0, 0, 0, 3), mode="edge"), 4)


@case
def turned_around(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 7, 6), 8, (1, 1))
    attrs = {"starts": (0, 0, 6, 0), "stops": (1, 8, -1, 6), "steps": (1, 1, -2, 1)}
    return s.conv(s.op("slice", x, **attrs), 4)


@case
def few_channels_without_margins(s: Sketch) -> Value:
    return s.conv(s.conv(s.input(1, 3, 8, 8), 4), 4, (1, 3), strides=(1, 2))


@case
def copies_that_are_scaled(s: Sketch) -> Value:
    """Joined, padded and cut operands of sums whose scales differ widely, or along channels."""
    x = s.conv(s.input(1, 4, 7, 6), 8, (1, 1))
    wide = s.op("concat", x, s.op("mul", x, 9.0), axis=2)
    wide = s.op("pad", wide, pads=(0, 0, 1, 0, 0, 0, 0, 2), mode="constant")
    parts = [
        s.op("slice", wide, starts=(0, 0, n, n), stops=(1, 8, 12 + n, 7 + n), steps=(1,) * 4)
        for n in (0, 1)
    ]
    moved = s.op("mul", parts[1], s.weights(1, 8, 1, 1))
    return s.op(
        "sub", s.op("mul", parts[0], 0.01), s.op("reduce_mean", moved, axes=(3,), keepdims=True)
    )


@case
def lstm_step(s: Sketch) -> Value:
    """Gates of one step; the sum of both products goes into sigmoids and a tanh alone."""
    x, h, c = s.input(1, 12), s.input(1, 8), s.input(1, 8)
    gates = s.op("add", s.op("matmul", x, s.weights(12, 32)), s.weights(32, size=3.0))
    gates = s.op("add", gates, s.op("matmul", h, s.weights(8, 32)))
    parts = [
        s.op("slice", gates, starts=(0, 8 * n), stops=(1, 8 * n + 8), steps=(1, 1))
        for n in range(4)
    ]
    i, o, f = (s.op("sigmoid", part) for part in parts[:3])
    kept = s.op("add", s.op("mul", f, c), s.op("mul", i, s.op("tanh", parts[3])))
    return s.op("concat", s.op("mul", o, s.op("tanh", kept)), kept, axis=1)


@case
def flattened(s: Sketch) -> Value:
    x = s.relu(s.conv(s.input(1, 3, 6, 5), 8, (1, 1)))
    return s.op("matmul", s.op("reshape", x, shape=(1, 240)), s.weights(240, 7, size=0.2))


def ranges_of(graph: Graph, samples: list[dict[str, np.ndarray]]) -> dict[Value, tuple]:
    """The ranges of the values that have to be quantised; the graph is brought into the form."""
    run_passes(graph, FLOAT_FORM)
    wanted, found = to_quantise(graph), dict[Value, tuple[float, float]]()

    def note(value: Value, array: np.ndarray) -> None:
        low, high = found.get(value, (np.inf, -np.inf))
        found[value] = (min(low, float(array.min())), max(high, float(array.max())))

    def observe(node: Node, results) -> None:
        for value, array in zip(node.outputs, results, strict=True):
            if value in wanted:
                note(value, array)

    for sample in samples:
        for value in graph.inputs:
            if value in wanted:
                note(value, sample[value.name])
        run_graph(graph, sample, observe)
    return found


def integers_of(name: str, seed: int) -> tuple[Graph, Sketch, list[dict], list[dict]]:
    """A case by its name; see `integers_made`."""
    return integers_made(lambda sketch: (CASES[name](sketch),), seed)


def integers_made(
    make: Callable[[Sketch], tuple[Value, ...]], seed: int
) -> tuple[Graph, Sketch, list[dict], list[dict]]:
    """(a graph with such outputs in integers, its sketch, samples, what it gave in floats)"""
    sketch = Sketch(seed)
    graph = sketch.graph(*make(sketch))
    samples = [sketch.draw(100 * seed + n) for n in range(SAMPLES)]
    wanted = [run_graph(graph, sample) for sample in samples]
    run_passes(graph, integer_passes(ranges_of(graph, samples)))
    return graph, sketch, samples, wanted
