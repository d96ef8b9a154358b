"""Trains a small convolutional network on scikit-learn's digits, in plain numpy, and exports it.

    python examples/digits/train.py            # writes digits.onnx and digits_test.npz beside this
    python examples/digits/train.py --small    # writes digits_small.onnx, of a smaller network

The network reads images of 8x8 pixels, scaled to [0, 1], as `image` of shape (batch, 1, 8, 8), and
writes unnormalised class scores as `scores` of shape (batch, 10); `batch` is symbolic. A seeded
third of the images is held out: `digits_test.npz` holds it as `images` (uint8, 0..16, shape
(n, 1, 8, 8)) and `labels` (uint8). Needs scikit-learn; takes less than two minutes on one core.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

SEED = 20240229
PIXEL_MAX = 16  # the pixels of the data set are 0..16
BATCH, PEAK_RATE, WEIGHT_DECAY = 32, 3e-3, 1e-4
EPOCHS, EPOCHS_SMALL = 40, 80  # few parameters take longer to settle
OPSET = 17

Array = np.ndarray


class Layer(ABC):
    """A differentiable function with parameters: `backward` fills `gradients` in their order."""

    parameters: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """The result for a batch."""

    @abstractmethod
    def backward(self, dy: Array) -> Array:
        """The gradient of the input, given that of the result."""


class Conv(Layer):
    """3x3 convolution with a border of one zero pixel; weight (out, in, 3, 3), images NCHW."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        scale = np.sqrt(2 / (9 * inputs))
        weight = rng.normal(0, scale, (outputs, inputs, 3, 3)).astype(np.float32)
        self.parameters = (weight, np.zeros(outputs, np.float32))

    def forward(self, x: Array) -> Array:
        weight, bias = self.parameters
        self.patches = _patches(x)
        y = self.patches @ weight.reshape(len(weight), -1).T + bias
        return y.transpose(0, 3, 1, 2)

    def backward(self, dy: Array) -> Array:
        weight, _ = self.parameters
        rows = dy.transpose(0, 2, 3, 1).reshape(-1, len(weight))
        dweight = rows.T @ self.patches.reshape(len(rows), -1)
        self.gradients = (dweight.reshape(weight.shape), rows.sum(0))
        flipped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        dx = _patches(dy) @ flipped.reshape(len(flipped), -1).T
        return dx.transpose(0, 3, 1, 2)


class Gemm(Layer):
    """Affine map of the flattened input; weight (out, in)."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        weight = rng.normal(0, np.sqrt(1 / inputs), (outputs, inputs)).astype(np.float32)
        self.parameters = (weight, np.zeros(outputs, np.float32))

    def forward(self, x: Array) -> Array:
        weight, bias = self.parameters
        self.shape, self.x = x.shape, x.reshape(len(x), -1)
        return self.x @ weight.T + bias

    def backward(self, dy: Array) -> Array:
        weight, _ = self.parameters
        self.gradients = (dy.T @ self.x, dy.sum(0))
        return (dy @ weight).reshape(self.shape)


class Relu(Layer):
    def forward(self, x: Array) -> Array:
        self.positive = x > 0
        return np.where(self.positive, x, np.float32(0))

    def backward(self, dy: Array) -> Array:
        return np.where(self.positive, dy, np.float32(0))


class MaxPool(Layer):
    """Maximum over windows of 2x2, stride 2; the gradient goes to the first maximum."""

    def forward(self, x: Array) -> Array:
        n, c, h, w = x.shape
        windows = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
        windows = windows.reshape(n, c, h // 2, w // 2, 4)
        self.chosen = np.eye(4, dtype=np.float32)[windows.argmax(-1)]
        return windows.max(-1)

    def backward(self, dy: Array) -> Array:
        n, c, h, w = dy.shape
        windows = (dy[..., None] * self.chosen).reshape(n, c, h, w, 2, 2)
        return windows.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)


def _patches(x: Array) -> Array:
    """(n, c, h, w) to (n, h, w, c*9): the 3x3 neighbourhood of every pixel, zero outside."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def build(rng: np.random.Generator, small: bool = False) -> list[Layer]:
    """The network, in order of evaluation. small: a twentieth of the multiplications."""
    if small:
        return [
            *(Conv(rng, 1, 8), Relu(), MaxPool()),
            *(Conv(rng, 8, 16), Relu(), MaxPool()),
            Gemm(rng, 16 * 2 * 2, 10),
        ]
    return [
        *(Conv(rng, 1, 16), Relu()),
        *(Conv(rng, 16, 32), Relu(), MaxPool()),
        *(Conv(rng, 32, 32), Relu(), MaxPool()),
        Gemm(rng, 32 * 2 * 2, 10),
    ]


def infer(layers: list[Layer], x: Array) -> Array:
    """Class scores (n, 10) of images (n, 1, 8, 8)."""
    for layer in layers:
        x = layer.forward(x)
    return x


def loss_gradient(scores: Array, labels: Array) -> Array:
    """Gradient of the mean softmax cross entropy with respect to the scores."""
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    probabilities[np.arange(len(labels)), labels] -= 1
    return probabilities / np.float32(len(labels))


def shifted(rng: np.random.Generator, x: Array) -> Array:
    """The images, each moved by up to one pixel in each direction."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (8, 8), axis=(2, 3))
    rows, columns = rng.integers(0, 3, (2, len(x)))
    return windows[np.arange(len(x)), :, rows, columns]


def train(
    rng: np.random.Generator, layers: list[Layer], x: Array, labels: Array, epochs: int
) -> list[Layer]:
    """Adam with decoupled weight decay and a one-cycle cosine rate (Kingma and Ba, 2014)."""
    trained = [layer for layer in layers if layer.parameters]
    moments = [[(np.zeros_like(p), np.zeros_like(p)) for p in la.parameters] for la in trained]
    steps_per_epoch = len(x) // BATCH
    step, steps = 0, epochs * steps_per_epoch
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for chunk in np.array_split(order, steps_per_epoch):
            gradient = loss_gradient(infer(layers, shifted(rng, x[chunk])), labels[chunk])
            for layer in reversed(layers):
                gradient = layer.backward(gradient)
            step += 1
            rate = PEAK_RATE * min(step / (0.1 * steps), 0.5 + 0.5 * np.cos(np.pi * step / steps))
            for layer, layer_moments in zip(trained, moments, strict=True):
                triples = zip(layer.parameters, layer.gradients, layer_moments, strict=True)
                for parameter, slope, (mean, square) in triples:
                    _adam(parameter, slope, mean, square, rate, step)
    return layers


def _adam(p: Array, slope: Array, mean: Array, square: Array, rate: float, step: int) -> None:
    mean += 0.1 * (slope - mean)
    square += 0.001 * (slope * slope - square)
    scale = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    p -= (scale * mean / (np.sqrt(square) + 1e-8) + rate * WEIGHT_DECAY * p).astype(p.dtype)


def export(layers: list[Layer]) -> onnx.ModelProto:
    """The trained network as a checked ONNX model."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    x = "image"

    def add(op: str, x: str, parameters: tuple[Array, ...] = (), **attributes: object) -> str:
        name = f"{op.lower()}_{len(nodes)}"
        names = [f"{name}.{part}" for part, _ in zip(("weight", "bias"), parameters, strict=False)]
        pairs = zip(parameters, names, strict=True)
        weights.extend(numpy_helper.from_array(array, key) for array, key in pairs)
        output = "scores" if op == "Gemm" else name
        nodes.append(helper.make_node(op, [x, *names], [output], name=name, **attributes))
        return output

    for layer in layers:
        if isinstance(layer, Conv):
            x = add("Conv", x, layer.parameters, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif isinstance(layer, Relu):
            x = add("Relu", x)
        elif isinstance(layer, MaxPool):
            x = add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        else:
            x = add("Gemm", add("Flatten", x), layer.parameters, transB=1)
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model_gen_version(graph, opset_imports=[opset], producer_name="digits")
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Trains, prints the accuracy on the held-out images, writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to"
    )
    parser.add_argument("--small", action="store_true", help="train the smaller network")
    options = parser.parse_args()
    out = options.out
    rng = np.random.default_rng(SEED)
    data, labels = load_digits(return_X_y=True)
    images = data.astype(np.uint8).reshape(-1, 1, 8, 8)
    order = rng.permutation(len(images))
    held_out, kept = order[: len(order) // 3], order[len(order) // 3 :]
    scaled = images.astype(np.float32) / PIXEL_MAX
    epochs = EPOCHS_SMALL if options.small else EPOCHS
    layers = train(rng, build(rng, options.small), scaled[kept], labels[kept], epochs)
    accuracy = np.mean(infer(layers, scaled[held_out]).argmax(1) == labels[held_out])
    print(f"accuracy on {len(held_out)} held-out images: {accuracy:.4f}")
    name = "digits_small.onnx" if options.small else "digits.onnx"
    onnx.save(export(layers), out / name)
    if options.small:
        return
    test_labels = labels[held_out].astype(np.uint8)
    np.savez(out / "digits_test.npz", images=images[held_out], labels=test_labels)


if __name__ == "__main__":
    main()
