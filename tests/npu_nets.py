"""Random nets of convolutions, pooling, additions and tables in TOSA, as NPUs are given them."""

from __future__ import annotations

from functools import partial

import npu_operators
import numpy as np

from tensmith.backends.ethosu.tosa.graph import Tensor, TosaGraph
from tensmith.backends.ethosu.tosa.schema import ElementType, Op

INT8, INT32 = ElementType.INT8, ElementType.INT32


class RandomNet:
    """Builds layer after layer. size: height and width of the input."""

    def __init__(self, seed: int, size: int = 32, layers: int = 8) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = TosaGraph(location=f"net {seed}")
        channels = int(self.rng.choice([1, 3, 8, 16]))
        x = self.graph.input((1, size, size, channels), INT8)
        x = self.conv(x, stride=1)
        kept = [x]
        for _ in range(layers):
            x = self._layer(x, kept)
            kept.append(x)
        if self.rng.random() < 0.5:
            x = self._head(x)
        self.graph.output(x)

    def _layer(self, x: Tensor, kept: list[Tensor]) -> Tensor:
        like = [other for other in kept if other.shape == x.shape and other is not x]
        kind = self.rng.choice(["conv", "depthwise", "pool", "add", "table", "stride"])
        if kind == "add" and like:
            return self.add(x, like[int(self.rng.integers(len(like)))])
        if kind == "depthwise":
            return self.conv(x, stride=1, depthwise=True)
        if kind == "pool" and min(x.shape[1:3]) >= 4:
            return self._pool(x)
        if kind == "table":
            values = self.graph.constant(self.rng.integers(-128, 128, 256), INT8)
            return self.graph.emit(Op.TABLE, [x, values], x.shape, INT8)
        return self.conv(x, stride=2 if kind == "stride" and min(x.shape[1:3]) >= 6 else 1)

    def conv(self, x: Tensor, stride: int, depthwise: bool = False) -> Tensor:
        """A convolution with padding on all sides that fits its size."""
        height, width, channels = x.shape[1:]
        kernel = int(self.rng.choice([1, 3, 3, 5] if min(height, width) > 5 else [1]))
        pad = kernel // 2
        # What a stride leaves over is padded less at the end.
        ends = [pad - (n + 2 * pad - kernel) % stride for n in (height, width)]
        if min(ends) < 0:
            return self.conv(x, 1, depthwise)
        shape = [
            (n + pad + end - kernel) // stride + 1
            for n, end in zip((height, width), ends, strict=True)
        ]
        outputs = channels if depthwise else int(self.rng.choice([8, 12, 16, 24, 40]))
        sizes = (kernel, kernel, channels, 1) if depthwise else (outputs, kernel, kernel, channels)
        operands = [
            x,
            self.graph.constant(self.rng.integers(-127, 128, sizes), INT8),
            self.graph.constant(self.rng.integers(-3000, 3000, outputs), INT32),
            self.graph.number(int(self.rng.integers(-20, 20)), INT8),
            self.graph.number(0, INT8),
        ]
        total = self.graph.emit(
            Op.DEPTHWISE_CONV2D if depthwise else Op.CONV2D, operands, (1, *shape, outputs), INT32,
            pad=[pad, ends[0], pad, ends[1]], stride=[stride] * 2, dilation=[1, 1],
        )  # fmt: skip
        reach = np.sqrt(np.prod(sizes) / outputs) * 127 * 74
        scale = self.rng.uniform(60, 200, outputs) / reach
        return self.graph.rescale(total, scale, INT8, zero_out=int(self.rng.integers(-9, 9)))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of two tensors of a shape."""
        scales = self.rng.permutation([2.0**19, self.rng.uniform(0.2, 0.99) * 2**19])
        wide = [
            self.graph.rescale(t, s, INT32, zero_in=int(self.rng.integers(-9, 9)))
            for t, s in zip((x, y), scales, strict=True)
        ]
        total = self.graph.emit(Op.ADD, wide, x.shape, INT32)
        return self.graph.rescale(total, self.rng.uniform(0.5, 1.5) / 2**19, INT8)

    def _pool(self, x: Tensor) -> Tensor:
        height, width, channels = x.shape[1:]
        shape = (1, height // 2, width // 2, channels)
        fits = height % 2 == 0 and width % 2 == 0
        if not fits:
            return self.conv(x, 1)
        sizes = {"kernel": [2, 2], "stride": [2, 2], "pad": [0] * 4}
        if self.rng.random() < 0.5:
            return self.graph.emit(Op.MAX_POOL2D, [x], shape, INT8, **sizes)
        zeros = [self.graph.number(0, INT8)] * 2
        return self.graph.emit(Op.AVG_POOL2D, [x, *zeros], shape, INT8, **sizes)

    def _head(self, x: Tensor) -> Tensor:
        """The mean of every channel, and a fully connected layer."""
        height, width, channels = x.shape[1:]
        zeros = [self.graph.number(0, INT8)] * 2
        x = self.graph.emit(
            Op.AVG_POOL2D, [x, *zeros], (1, 1, 1, channels), INT8,
            kernel=[height, width], stride=[1, 1], pad=[0] * 4,
        )  # fmt: skip
        return self.conv(x, 1)


def random_convolution(seed: int) -> partial:
    """Makes a graph of one convolution, of any shape that TOSA allows."""
    rng = np.random.default_rng(seed)

    def some(*values: int, count: int = 2) -> list[int]:
        return [int(value) for value in rng.choice(values, count)]

    kernel, stride, dilation = (
        some(1, 1, 2, 3, 3, 4, 5, 7, 9),
        some(1, 1, 1, 2, 3),
        some(1, 1, 2, 3),
    )
    pad = [int(rng.integers(0, kernel[side // 2])) for side in range(4)]
    sizes = []
    for axis in range(2):
        span = (kernel[axis] - 1) * dilation[axis] + 1 - pad[2 * axis] - pad[2 * axis + 1]
        least = max(-(-(1 - span) // stride[axis]), 0)
        sizes.append((least + int(rng.integers(0, 13))) * stride[axis] + span)
    depthwise = bool(rng.random() < 0.35)
    (channels,) = some(1, 2, 3, 4, 7, 8, 16, 17, 24, 32, 40, 65, 100, count=1)
    (outputs,) = some(1, 3, 8, 10, 16, 20, 33, 64, 90, 130, count=1)
    return partial(
        npu_operators.given,
        shape=(*sizes, channels),
        outputs=1 if depthwise else outputs,
        kernel=tuple(kernel),
        stride=tuple(stride),
        dilation=tuple(dilation),
        pad=tuple(pad),
        depthwise=depthwise,
        zero=int(rng.integers(-128, 128)),
        double=bool(rng.random() < 0.3),
        values=some(0, 0, 3, 12, count=1)[0],
        sparse=channels % 4 == 0 and not depthwise and bool(rng.random() < 0.3),
    )
