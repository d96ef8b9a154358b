"""NaN, infinities, zeros, tails and the ends of integer types, against ONNX Runtime and numpy.

Left out is what ONNX Runtime computes in one way in its vectors and in another in what is left of
them (the largest of numbers among which is NaN, but for ArgMax), and numbers below the normal ones,
which compiled code takes for 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.compiler.ir import DType

from .oracle import model, node, run_ort
from .ort_cases import OrtCase, check_all

Array = np.ndarray[Any, Any]
INF, NAN = np.inf, np.nan
HALVES = [0.5, 1.5, 2.5, 3.49999, 0.49999997, 5.5, 8388607.5]
WHOLE = [1, 3, 7, 20, 50, 88, 89, 104, 120, 1e4, 1e8, 3e38]
NUMBERS = np.array([0.0, -0.0, INF, -INF, NAN, 1e-3, -1e-3]
                   + [sign * v for sign in (1, -1) for v in HALVES + WHOLE])  # fmt: skip
FLOATS = [np.float32, np.float64]
UNARY = {  # of which ONNX Runtime has kernels for f64, and of which for f32 only
    np.float64: ["Abs", "Neg", "Sign", "Ceil", "Floor", "Round", "Sqrt", "Exp", "Log", "Sin", "Cos",
                 "Tanh", "Sigmoid", "Relu", "Reciprocal", "IsNaN", "IsInf", "Identity", "Shrink"],
    np.float32: ["Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Erf",
                 "Elu", "LeakyRelu", "Softplus", "Softsign", "Selu", "Celu", "ThresholdedRelu",
                 "HardSigmoid", "Gelu"],
}  # fmt: skip


def together(
    name: str, nodes: Sequence[onnx.NodeProto], inputs: dict[str, Array], types: Sequence[int],
    constants: dict[str, Array] | None = None, expected: dict[str, Array] | None = None,
) -> OrtCase:  # fmt: skip
    """Many operators in one model; their outputs are y0, y1, ..., of the given types."""
    made = []
    for number, item in enumerate(nodes):
        copy = onnx.NodeProto()
        copy.CopyFrom(item)
        copy.output[0] = f"y{number}"
        made.append(copy)
    outputs = [f"y{number}" for number in range(len(made))]
    proto = model(made, inputs, outputs, types=types, constants=constants, opset=21)
    return OrtCase(name, proto, inputs, 1e-4, 2e-5, expected=expected)


def code(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def pairs(values: Array) -> tuple[Array, Array]:
    """All pairs of elements: [N], [N]."""
    a, b = np.meshgrid(values, values)
    return a.reshape(-1), b.reshape(-1)


def pointwise() -> list[OrtCase]:
    cases = []
    for dtype in FLOATS:
        kind = code(dtype)
        ops = UNARY[np.float64] + (UNARY[np.float32] if dtype is np.float32 else [])
        x = np.append(NUMBERS, [0.75] * 5).astype(dtype)
        types = [TensorProto.BOOL if op.startswith("Is") else kind for op in ops]
        cases.append(together(f"unary {kind}", [node(op, "x") for op in ops], {"x": x}, types))
        a, b = pairs(NUMBERS.astype(dtype))
        compared = ["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"]
        computed = ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"]
        nodes = [node(op, "a b") for op in computed + compared] + [node("Mod", "a b", fmod=1)]
        types = [kind] * len(computed) + [TensorProto.BOOL] * len(compared) + [kind]
        cases.append(together(f"binary {kind}", nodes, {"a": a, "b": b}, types))
        powers = {f"p{i}": np.array(p, dtype) for i, p in enumerate((0.5, -0.5, -1, 2, 3, 0, 1.5))}
        nodes = [node("Pow", f"x {name}") for name in powers]
        cases.append(together(f"powers {kind}", nodes, {"x": x}, [kind] * len(nodes), powers))
    return cases


def clipped() -> list[OrtCase]:
    bounds = [(-1, 1), (NAN, 1), (-1, NAN), (NAN, NAN), (2, -2), (-INF, INF), (0, INF), (0, 6)]
    cases = []
    for dtype, constant in product(FLOATS, (True, False)):
        named = {f"a{i}": np.array(low, dtype) for i, (low, _) in enumerate(bounds)}
        named |= {f"b{i}": np.array(high, dtype) for i, (_, high) in enumerate(bounds)}
        nodes = [node("Clip", f"x a{i} b{i}") for i in range(len(bounds))]
        inputs = {"x": NUMBERS.astype(dtype)} | ({} if constant else named)
        types = [code(dtype)] * len(nodes)
        name = f"clip {code(dtype)} {constant}"
        cases.append(together(name, nodes, inputs, types, named if constant else None))
    return cases


def rows(length: int, dtype: Any, nan_first: bool) -> Array:
    """Rows with NaN and infinities here and there: [N, length]."""
    rng = np.random.default_rng(length)
    made = rng.standard_normal((12, length)).astype(dtype)
    made[0, length // 2], made[1, -1], made[2] = NAN, NAN, NAN
    made[3, -1], made[4, -1], made[5], made[6] = INF, -INF, -INF, INF
    made[7, 0], made[7, -1], made[8], made[9, -1] = INF, -INF, 0, -0.0
    made[10] *= 200
    if nan_first:
        made[11, 0] = NAN
    return made


def along_axes() -> list[OrtCase]:
    cases = []
    for length, dtype in product((3, 16, 37), FLOATS):
        kind, x = code(dtype), rows(length, dtype, nan_first=True)
        ops = ["Softmax", "LogSoftmax"] if dtype is np.float32 else ["Softmax"]
        nodes = [node(op, "x", axis=1) for op in ops] + [node(op, "t", axis=0) for op in ops]
        sums = ["ReduceSum", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceSumSquare"]
        nodes += [node(op, f"x {axis}") for op in sums for axis in ("a0", "a1")]
        axes = {"a0": np.array([0]), "a1": np.array([1])}
        inputs = {"x": x, "t": np.ascontiguousarray(x.T)}
        cases.append(together(f"rows {kind} {length}", nodes, inputs, [kind] * len(nodes), axes))
        x = rows(length, dtype, nan_first=False)
        inputs = {"x": x, "t": np.ascontiguousarray(x.T)}
        nodes = [
            node(op, name, axis=axis, keepdims=0, select_last_index=last)
            for op in ("ArgMax", "ArgMin") for last in (0, 1) for name, axis in (("x", 1), ("t", 0))
        ]  # fmt: skip
        types = [TensorProto.INT64] * len(nodes)
        cases.append(together(f"places {kind} {length}", nodes, inputs, types))
        cases.append(order(f"order {kind} {length}", rows(length, dtype, nan_first=True)))
        # as numpy has them; in ONNX Runtime it depends on where in a vector NaN is
        nodes = [node(f"Reduce{op}", f"x {axis}", keepdims=0) for op in ("Max", "Min")
                 for axis in axes]  # fmt: skip
        with np.errstate(invalid="ignore"):
            found = [fn.reduce(x, axis=axis) for fn in (np.maximum, np.minimum) for axis in (0, 1)]
        expected = {f"y{i}": array for i, array in enumerate(found)}
        name = f"extrema {kind} {length}"
        cases.append(together(name, nodes, {"x": x}, [kind] * 4, axes, expected))
    return cases


def order(name: str, x: Array) -> OrtCase:
    """The places that sorting gives: NaN is above all numbers, and equal ones keep their order."""
    length = x.shape[1]
    wanted = [(largest, k) for largest in (1, 0) for k in (1, length // 2, length)]
    constants = {f"k{number}": np.array([k]) for number, (_, k) in enumerate(wanted)}
    nodes = [node("TopK", f"x k{number}", f"v{number} i{number}", axis=1, largest=largest)
             for number, (largest, _) in enumerate(wanted)]  # fmt: skip
    places = [f"i{number}" for number in range(len(wanted))]
    types = [TensorProto.INT64] * len(places)
    proto = model(nodes, {"x": x}, places, types=types, constants=constants, opset=21)
    return OrtCase(name, proto, {"x": x})


def casts() -> list[OrtCase]:
    ends = [127.5, 128.5, 255.5, -129, 300, 32768, -32769, 65536, 2147483600, 2147483648, 4.3e9,
            -2147483648, -4.3e9, 9.3e18, -9.3e18]  # fmt: skip
    kinds = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, bool]
    nodes = [node("Cast", "x", to=code(kind)) for kind in kinds]
    types = [code(kind) for kind in kinds]
    return [
        together(f"casts {code(d)}", nodes, {"x": np.append(NUMBERS, ends).astype(d)}, types)
        for d in FLOATS
    ]


def few_bits() -> list[OrtCase]:
    """Integers of 2 and 4 bits, which halves are rounded to away from 0, as floats again."""
    ends = [-9.5, -8.5, -2.6, -1.6, 0.6, 2.4, 7.5, 7.6, 15.5, 300.5]
    cases = []
    for dtype in (np.float16, *FLOATS):
        with np.errstate(over="ignore"):
            x = np.append(NUMBERS, ends).astype(dtype)
        for kind in ("INT4", "UINT4", "INT2", "UINT2"):
            narrow = node("Cast", "x", "i", to=TensorProto.DataType.Value(kind))
            wide = node("Cast", "i", "y", to=TensorProto.FLOAT)
            proto = model([narrow, wide], {"x": x}, ["y"], opset=25)
            proto.ir_version = helper.find_min_ir_version_for(proto.opset_import)
            cases.append(OrtCase(f"{kind} of {code(dtype)}", proto, {"x": x}))
    return cases


def few_bits_of_narrow_floats() -> list[OrtCase]:
    """As above, of floats of 8 bits and fewer: each is what ONNX Runtime makes of the same number
    in f32, for not all of these have kernels there."""
    ends = [0.5, 1.5, -2.5, 3.5, 4, 0.25, -0.5, 6, -1.5]
    cases = []
    for dtype in DType:
        if not dtype.is_narrow or not dtype.value.startswith("f"):
            continue
        x = np.array(ends, np.float32).astype(dtype.numpy).astype(np.float32)
        stored = node("Cast", "x", "f", to=code(dtype.numpy))
        for kind in ("INT4", "UINT4", "INT2", "UINT2"):
            target = TensorProto.DataType.Value(kind)
            wide = node("Cast", "i", "y", to=TensorProto.FLOAT)
            proto, plain = (
                model([*first, node("Cast", name, "i", to=target), wide], {"x": x}, ["y"], opset=25)
                for first, name in (([stored], "f"), ([], "x"))
            )
            for made in (proto, plain):
                made.ir_version = helper.find_min_ir_version_for(made.opset_import)
            wanted = run_ort(plain, {"x": x})
            cases.append(OrtCase(f"{kind} of {dtype}", proto, {"x": x}, expected=wanted))
    return cases


def integers() -> list[OrtCase]:
    """Ends of the types; the divisions that ONNX Runtime does not survive are as specified here."""
    cases = []
    for dtype in (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64):
        info = np.iinfo(dtype)
        ends = [0, 1, 2, 3, 7, info.max, info.max - 1, info.min, info.min + 1]
        values = np.array(ends + ([-1, -2, -7] if info.min else []), dtype=object).astype(dtype)
        a, b = pairs(values)
        ops = ["Add", "Sub", "Mul", "Div", "Mod"]
        types = [code(dtype)] * (len(ops) + 1)
        nodes = [node(op, "a b") for op in ops] + [node("Mod", "a b", fmod=1)]
        fine = (b != 0) & ~((a == info.min) & (b.astype(np.float64) == -1))
        cases.append(together(f"{dtype.__name__}", nodes, {"a": a[fine], "b": b[fine]}, types))
        if info.min:
            low, minus = np.array([info.min] * 40, dtype), np.array([-1] * 40, dtype)
            expected = {"y0": low, "y1": np.zeros_like(low), "y2": np.zeros_like(low)}
            nodes = [node("Div", "a b"), node("Mod", "a b"), node("Mod", "a b", fmod=1)]
            name = f"{dtype.__name__} least by -1"
            inputs = {"a": low, "b": minus}
            cases.append(together(name, nodes, inputs, types[:3], expected=expected))
    return cases


def quantised() -> list[OrtCase]:
    """To every integer type, of one scale or one per row: NaN is the lowest."""
    kinds = [np.uint8, np.int8, np.uint16, np.int16]
    cases = []
    for dtype in (np.float32, np.float16):
        with np.errstate(over="ignore"):
            x = np.stack([NUMBERS, NUMBERS[::-1]]).astype(dtype)
        constants = {"s0": np.array(0.5, dtype), "s1": np.array([0.5, 3], dtype)}
        nodes = []
        for i, kind in enumerate(kinds):
            constants |= {f"a{i}": np.array(3, kind), f"b{i}": np.array([0, 7], kind)}
            nodes += [node("QuantizeLinear", f"x s0 a{i}"),
                      node("QuantizeLinear", f"x s1 b{i}", axis=0)]  # fmt: skip
        types = [code(kind) for kind in kinds for _ in range(2)]
        cases.append(together(f"quantised {code(dtype)}", nodes, {"x": x}, types, constants))
    return cases


@pytest.mark.parametrize(
    "group",
    [
        pointwise,
        clipped,
        along_axes,
        casts,
        few_bits,
        few_bits_of_narrow_floats,
        integers,
        quantised,
    ],
)
def test_as_onnx_runtime(group: Any, tmp_path: Path) -> None:
    check_all(group(), tmp_path)
