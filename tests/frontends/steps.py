"""Many small models in one: quantised operators, and roundings that discrete results hang on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .oracle import model

Array = np.ndarray[Any, Any]
Case = Callable[["Steps", np.random.Generator], None]
f32 = np.float32
U8, I8, I32, I64 = TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64
FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
TYPES: dict[int, type] = {
    U8: np.uint8, I8: np.int8, TensorProto.UINT16: np.uint16, TensorProto.INT16: np.int16
}  # fmt: skip
ODD = (3, 7, 0.1, 10, 255, 1 / 3)  # divisors whose inverses are rounded
CASES: dict[str, Case] = {}


class Steps:
    """Collects the nodes of all cases."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, Array] = {}
        self.constants: dict[str, Array] = {}
        self.outputs: dict[str, int] = {}
        self.prefix = ""

    def input(self, array: Array) -> str:
        """The name of an input with these elements."""
        name = f"{self.prefix}_x{len(self.inputs)}"
        self.inputs[name] = array
        return name

    def constant(self, array: Any) -> str:
        """The name of a constant."""
        name = f"{self.prefix}_c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def op(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """The name of the node's output, or of all when there are several."""
        made = [f"{self.prefix}_v{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, **attributes))
        return made[0] if outputs == 1 else made

    def output(self, name: str, kind: int) -> None:
        """Make a value an output of the model."""
        self.outputs[name] = kind

    def model(self) -> onnx.ModelProto:
        """All that was collected; leading dims of inputs are symbolic."""
        dims: dict[str, Sequence[int | str | None]] = {
            name: [f"n_{name}", *array.shape[1:]] if array.ndim else []
            for name, array in self.inputs.items()
        }
        return model(
            self.nodes, self.inputs, list(self.outputs), constants=self.constants, opset=21,
            dims=dims, types=list(self.outputs.values()), domains=["com.microsoft"],
        )  # fmt: skip


def all_cases(seed: int) -> Steps:
    """Every case, drawn anew for each seed."""
    steps = Steps()
    for name, case in CASES.items():
        steps.prefix = name
        case(steps, np.random.default_rng((seed, *name.encode())))
    return steps


def _case(function: Case) -> Case:
    CASES[function.__name__.strip("_")] = function
    return function


def _scale(rng: np.random.Generator) -> np.float32:
    return f32(rng.choice([rng.uniform(1e-3, 2), 2.0 ** rng.integers(-8, 3), 1 / 3, 0.02, 1 / 255]))


def _any(rng: np.random.Generator, dtype: type, *shape: int) -> Array:
    limits = np.iinfo(dtype)
    return np.asarray(rng.integers(limits.min, limits.max + 1, shape), dtype)


def _halves(rng: np.random.Generator, scale: float, *shape: int) -> Array:
    """Numbers of which half lie between two steps of the scale."""
    x = rng.standard_normal(shape) * 60 * scale
    middle = (np.round(x / scale) + 0.5) * scale
    return np.where(rng.random(shape) < 0.5, x, middle).astype(f32)


def _kind(rng: np.random.Generator, *kinds: int) -> tuple[int, type]:
    kind = int(rng.choice(kinds or list(TYPES)))
    return kind, TYPES[kind]


@_case
def _quantize(c: Steps, rng: np.random.Generator) -> None:
    kind, dtype = _kind(rng)
    scale = _scale(rng)
    x = np.concatenate([_halves(rng, scale, 900), f32([0, -0.0, np.inf, -np.inf, 1e30, -1e30])])
    zero = c.constant(_any(rng, dtype))
    c.output(c.op("QuantizeLinear", c.input(x), c.constant(scale), zero), kind)


@_case
def _quantize_axis(c: Steps, rng: np.random.Generator) -> None:
    kind, dtype = _kind(rng, U8, I8)
    scales = np.array([_scale(rng) for _ in range(5)])
    x = c.input(_halves(rng, scales[0], 3, 5, 70))
    zero = c.constant(_any(rng, dtype, 5))
    c.output(c.op("QuantizeLinear", x, c.constant(scales), zero, axis=1), kind)


@_case
def _dynamic(c: Steps, rng: np.random.Generator) -> None:
    x = rng.standard_normal(797) * rng.choice([1e-3, 1, 30]) + rng.choice([0, 3, -100])
    made = c.op("DynamicQuantizeLinear", c.input(x.astype(f32)), outputs=3)
    for name, kind in zip(made, (U8, FLOAT, U8), strict=True):
        c.output(name, kind)


@_case
def _requantize(c: Steps, rng: np.random.Generator) -> None:
    kind, dtype = _kind(rng, U8, I8)
    parts = [
        c.op("DequantizeLinear", c.input(_any(rng, dtype, 700)), c.constant(_scale(rng)),
             c.constant(_any(rng, dtype)))
        for _ in range(2)
    ]  # fmt: skip
    if rng.random() < 0.5:
        total = c.op("Relu", parts[0])
    else:
        summed = c.op("Reshape", parts[1], c.op("Shape", parts[0]))
        total = c.op(str(rng.choice(["Add", "Mul", "Sub", "Max"])), parts[0], summed)
    zero = c.constant(_any(rng, dtype))
    c.output(c.op("QuantizeLinear", total, c.constant(_scale(rng)), zero), kind)


@_case
def _qdq_conv(c: Steps, rng: np.random.Generator) -> None:
    """Powers of two as scales: every sum is exact, and many results lie between two steps."""
    zero = c.constant(np.int8(0))
    x = c.op("DequantizeLinear", c.input(_any(rng, np.int8, 1, 4, 14, 14)),
             c.constant(f32(2**-5)), zero)  # fmt: skip
    w = c.constant(rng.integers(-50, 50, (8, 4, 3, 3)).astype(np.int8))
    w = c.op("DequantizeLinear", w, c.constant(f32(2**-6)), zero)
    bias = c.constant((rng.integers(-500, 500, 8) * 2.0**-11).astype(f32))
    y = c.op("Relu", c.op("Conv", x, w, bias, pads=[1, 1, 1, 1]))
    c.output(c.op("QuantizeLinear", y, c.constant(f32(2**-3)), zero), I8)


@_case
def _qlinear_conv(c: Steps, rng: np.random.Generator) -> None:
    scales = np.array([_scale(rng) for _ in range(6)], f32) / f32(50)
    parts = [
        c.input(_any(rng, np.uint8, 1, 3, 12, 11)), c.constant(_scale(rng)),
        c.constant(_any(rng, np.uint8)), c.constant(_any(rng, np.int8, 6, 3, 3, 3)),
        c.constant(scales), c.constant(np.zeros(6, np.int8)), c.constant(_scale(rng) * f32(4)),
        c.constant(_any(rng, np.uint8)), c.constant(rng.integers(-999, 999, 6).astype(np.int32)),
    ]  # fmt: skip
    c.output(c.op("QLinearConv", *parts, pads=[1, 1, 1, 1]), U8)


@_case
def _qlinear_matmul(c: Steps, rng: np.random.Generator) -> None:
    kind, dtype = _kind(rng, U8, I8)
    parts = [
        c.input(_any(rng, dtype, 13, 30)), c.constant(_scale(rng)), c.constant(_any(rng, dtype)),
        c.constant(_any(rng, dtype, 30, 9)), c.constant(_scale(rng) / f32(50)),
        c.constant(_any(rng, dtype)), c.constant(_scale(rng)), c.constant(_any(rng, dtype)),
    ]  # fmt: skip
    c.output(c.op("QLinearMatMul", *parts), kind)


@_case
def _qlinear_binary(c: Steps, rng: np.random.Generator) -> None:
    kind, dtype = _kind(rng, U8, I8)
    parts = [c.input(_any(rng, dtype, 900)), c.constant(_scale(rng)), c.constant(_any(rng, dtype)),
             c.constant(_any(rng, dtype)), c.constant(_scale(rng)), c.constant(_any(rng, dtype)),
             c.constant(_scale(rng) * f32(20)), c.constant(_any(rng, dtype))]  # fmt: skip
    op = str(rng.choice(["QLinearAdd", "QLinearMul"]))
    c.output(c.op(op, *parts, domain="com.microsoft"), kind)


@_case
def _dynamic_layers(c: Steps, rng: np.random.Generator) -> None:
    """What is quantised again is rounded as the model says, sum and product apart."""
    x = c.input((rng.standard_normal((13, 30)) * 3).astype(f32))
    weights, zero = c.constant(_any(rng, np.int8, 30, 30)), c.constant(np.int8(0))
    scale, bias = c.constant(_scale(rng)), c.constant(rng.standard_normal(30).astype(f32))
    for _ in range(3):
        q, s, z = c.op("DynamicQuantizeLinear", x, outputs=3)
        c.output(q, U8)
        total = c.op("Cast", c.op("MatMulInteger", q, weights, z, zero), to=FLOAT)
        x = c.op("Relu", c.op("Add", c.op("Mul", total, c.op("Mul", s, scale)), bias))


@_case
def _rounded_quotient(c: Steps, rng: np.random.Generator) -> None:
    by = f32(rng.choice(ODD))
    x = c.input((rng.integers(-5000, 5000, 900) * by * f32(rng.choice([1, 0.5]))).astype(f32))
    quotient = c.op("Div", x, c.constant(by))
    c.output(c.op(str(rng.choice(["Floor", "Ceil", "Round"])), quotient), FLOAT)
    c.output(c.op("Cast", quotient, to=I32), I32)
    c.output(c.op("Mod", quotient, c.constant(f32(1)), fmod=1), FLOAT)


@_case
def _compared_quotient(c: Steps, rng: np.random.Generator) -> None:
    by, limit = f32(rng.choice(ODD)), f32(rng.integers(1, 200))
    near = limit * by * (1 + rng.integers(-3, 4, (30, 40)) * 2.0**-23)
    quotient = c.op("Div", c.input(near.astype(f32)), c.constant(by))
    op = str(rng.choice(["Less", "Greater", "Equal"]))
    c.output(c.op(op, quotient, c.constant(limit)), BOOL)
    c.output(c.op("ArgMax", quotient, axis=1), I64)
    c.output(c.op("TopK", quotient, c.constant(np.array([5])), outputs=2)[1], I64)


@_case
def _rounded_sum(c: Steps, rng: np.random.Generator) -> None:
    """A product and a sum that are rounded apart, within a kernel and from one to another."""
    by, more = f32(rng.uniform(0.1, 9)), f32(rng.uniform(-50, 50))
    x = ((rng.integers(-1000, 1000, (20, 90)) - np.float64(more)) / by).astype(f32)
    total = c.op("Add", c.op("Mul", c.input(x), c.constant(by)), c.constant(more))
    c.output(c.op("Floor", total), FLOAT)
    largest = c.op("ReduceMax", total, c.constant(np.array([1])), keepdims=0)
    c.output(c.op("Floor", largest), FLOAT)


@_case
def _two_constants(c: Steps, rng: np.random.Generator) -> None:
    a, b = f32(rng.uniform(0.1, 0.3)), f32(rng.uniform(3, 9))
    for op, x in (
        ("Mul", rng.integers(0, 1000, 900) / np.float64(a * b)),
        ("Add", rng.integers(0, 1000, 900) - np.float64(a) - np.float64(b)),
    ):
        once = c.op(op, c.input(x.astype(f32)), c.constant(a))
        c.output(c.op("Floor", c.op(op, once, c.constant(b))), FLOAT)


@_case
def _powers(c: Steps, rng: np.random.Generator) -> None:
    power = f32(rng.choice([0.5, 2, 3, -1, -0.5]))
    x = rng.integers(1, 200, 900) ** (1 / np.float64(power))
    c.output(c.op("Floor", c.op("Pow", c.input(x.astype(f32)), c.constant(power))), FLOAT)


@_case
def _means(c: Steps, rng: np.random.Generator) -> None:
    size = int(rng.choice([3, 5, 6, 7, 49]))
    x = c.input(rng.integers(-500, 500, (90, size)).astype(f32))
    mean = c.op("ReduceMean", x, c.constant(np.array([1])), keepdims=0)
    c.output(c.op("Floor", mean), FLOAT)
    x = c.input(rng.integers(-500, 500, (2, 3, 15, 15)).astype(f32))
    c.output(c.op("Floor", c.op("AveragePool", x, kernel_shape=[3, 3])), FLOAT)


@_case
def _whole_numbers(c: Steps, rng: np.random.Generator) -> None:
    """Sums of whole numbers are exact: a scale behind them stays apart, and so do transforms."""
    factor = c.constant(f32(rng.choice([1 / 3, 0.1])))
    x = c.input(rng.integers(-20, 20, (1, 16, 28, 28)).astype(f32))
    w = c.constant(rng.integers(-3, 4, (16, 16, 3, 3)).astype(f32))
    filtered = c.op("Mul", c.op("Conv", x, w, pads=[1, 1, 1, 1]), factor)
    c.output(c.op("Floor", filtered), FLOAT)
    x = c.input(rng.integers(-20, 20, (31, 64)).astype(f32))
    w = c.constant(rng.integers(-3, 4, (64, 24)).astype(f32))
    c.output(c.op("Floor", c.op("Add", c.op("Mul", c.op("MatMul", x, w), factor), factor)), FLOAT)


@_case
def _casts(c: Steps, rng: np.random.Generator) -> None:
    """What an integer type cannot hold is as conversions of x86 have it."""
    odd = [0, -0.0, 0.5, -0.5, 127.9, 128, -129, 255.9, 256, 300, -1, 32768, -32769, 65536, 2**31]
    far = [-(2.0**31), 2.0**32, 9.2e18, 9.3e18, -9.3e18, 1.9e19, 1e30, -1e30, np.inf, -np.inf]
    x = np.concatenate([odd, far, [np.nan], rng.standard_normal(300) * 10.0 ** rng.integers(0, 12)])
    name = c.input(x.astype(f32))
    for kind in (*TYPES, I32, I64, TensorProto.UINT64, BOOL):
        c.output(c.op("Cast", name, to=kind), kind)
    name = c.input(rng.integers(0, 2**24, 300).astype(f32) * f32(200))
    c.output(c.op("Cast", name, to=TensorProto.UINT32), TensorProto.UINT32)
