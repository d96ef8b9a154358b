"""Operators of com.microsoft on integers of 2 to 16 bits against ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from .oracle import floats, model, node
from .ort_cases import OrtCase, check_all

MS = "com.microsoft"
Array = np.ndarray
NONE = np.zeros(0)


def bytes_of(*shape: int, seed: int = 0, signed: bool = False) -> Array:
    """Random 8-bit integers."""
    numbers = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return numbers.view(np.int8) if signed else numbers


def weights(*shape: int, seed: int = 0) -> Array:
    """Random signed integers of 7 bits.

    With 8, ONNX Runtime's products of u8 and s8 saturate on processors with AVX2 alone. Source:
    ONNX Runtime's documentation, "Quantize ONNX Models".
    """
    return np.random.default_rng(seed).integers(-64, 64, shape).astype(np.int8)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)


def one(name: str, op: str, inputs: dict[str, Array], result: Any = np.float32,
        **options: Any) -> OrtCase:  # fmt: skip
    """One node with a result of a type; keys of upper case are constants, `-...` is not given."""
    names = " ".join("-" if key.startswith("-") else key for key in inputs)
    domain = options.pop("domain", MS)
    made = node(op, names, options.pop("outputs", "y"), domain=domain, **options)
    feeds = {key: x for key, x in inputs.items() if key.islower() and not key.startswith("-")}
    constants = {key: x for key, x in inputs.items() if key.isupper()}
    types = [helper.np_dtype_to_tensor_dtype(np.dtype(result))] * len(made.output)
    proto = model([made], feeds, list(made.output), types=types, constants=constants, domains=[MS])
    return OrtCase(name, proto, feeds, steps=1)


def n_bits() -> list[OrtCase]:
    rows, cases = 6, []
    for bits in (2, 4, 8):
        for depth, block in ((64, 32), (48, 16), (40, 32)):
            blocks = -(-depth // block)
            values: dict[str, Array] = {
                "x": floats(3, depth),
                "W": bytes_of(rows, blocks, block * bits // 8),
                "S": floats(rows, blocks, seed=1) / 10,
            }
            options = {"N": rows, "K": depth, "block_size": block, "bits": bits}
            packed = bytes_of(rows, -(-blocks * bits // 8), seed=2)
            text = f"{bits} bits, {depth} by {block}"
            cases += [
                one(text, "MatMulNBits", values, **options),
                one(f"{text}, packed zeros", "MatMulNBits", values | {"Z": packed}, **options),
                one(f"{text}, bias", "MatMulNBits",
                    values | {"-z": NONE, "-g": NONE, "B": floats(rows, seed=4)}, **options),
            ]  # fmt: skip
            if bits < 8:  # ONNX Runtime has no kernel for the others
                zeros = {"Z": np.abs(floats(rows, blocks, seed=3)) * 2}
                cases.append(one(f"{text}, float zeros", "MatMulNBits", values | zeros, **options))
    return cases


def odd_bits() -> list[OrtCase]:
    """Widths that ONNX Runtime's CPU kernel lacks, against integers packed here."""
    cases = []
    rng = np.random.default_rng(0)
    for bits in (3, 5, 6, 7):
        numbers = rng.integers(0, 1 << bits, (4, 2, 16))
        flags = (numbers[..., None] >> np.arange(bits)) & 1
        packed = np.packbits(flags.reshape(4, 2, -1).astype(np.uint8), -1, bitorder="little")
        scales, x = floats(4, 2, seed=1), floats(3, 32)
        made = one(
            f"{bits} bits", "MatMulNBits", {"x": x, "W": packed, "S": scales},
            N=4, K=32, block_size=16, bits=bits,
        )  # fmt: skip
        real = (numbers - (1 << (bits - 1))) * scales[..., None]
        want = (x @ real.reshape(4, 32).T).astype(np.float32)
        cases.append(replace(made, expected={"y": want}))
    return cases


def tables() -> list[OrtCase]:
    index = np.array([[3, 0], [5, 5]])
    cases = []
    for bits in (4, 8):
        width = 64 * bits // 8
        values: dict[str, Array] = {
            "D": bytes_of(6, width), "i": index, "S": floats(6, 2, seed=1),
        }  # fmt: skip
        zeros = bytes_of(6, max(1, 2 * bits // 8), seed=2)
        options = {"bits": bits, "block_size": 32, "quantize_axis": 1}
        cases += [
            one(f"{bits} bits", "GatherBlockQuantized", values, **options),
            one(f"{bits} bits, zeros", "GatherBlockQuantized", values | {"Z": zeros}, **options),
        ]
    return cases


def bnb4() -> list[OrtCase]:
    values: dict[str, Array] = {
        "x": floats(3, 64), "W": bytes_of(6 * 64 // 2), "S": np.abs(floats(12, seed=1)),
    }  # fmt: skip
    options = {"N": 6, "K": 64, "block_size": 32}
    return [one(f"kind {k}", "MatMulBnb4", values, quant_type=k, **options) for k in (0, 1)]


def _pair(name: str, x: Array, at: float, zero: int) -> dict[str, Array]:
    return {name: x, f"{name}s".upper(): scalar(at), f"{name}z".upper(): scalar(zero, x.dtype)}


def pointwise() -> list[OrtCase]:
    cases = []
    for signed in (False, True):
        kind = np.int8 if signed else np.uint8
        zero = 3 if signed else 131
        a = _pair("a", bytes_of(2, 3, 4, signed=signed), 0.02, zero)
        b = _pair("b", bytes_of(3, 4, seed=1, signed=signed), 0.03, zero - 5)
        result = {"YS": scalar(0.04), "YZ": scalar(zero + 7, kind)}
        small = {"YS": scalar(1 / 256), "YZ": scalar(-128 if signed else 0, kind)}
        condition = {"c": floats(2, 1, 4, seed=3) > 0}
        text = kind.__name__
        cases += [
            one(f"add {text}", "QLinearAdd", a | b | result, kind),
            one(f"multiply {text}", "QLinearMul", a | b | result, kind),
            one(f"sigmoid {text}", "QLinearSigmoid", a | small, kind),
            one(f"leaky {text}", "QLinearLeakyRelu", a | result, kind, alpha=0.1),
            one(f"softmax {text}", "QLinearSoftmax", a | small, kind, axis=-1, opset=13),
            one(f"old softmax {text}", "QLinearSoftmax", a | small, kind, axis=1, opset=11),
            one(f"where {text}", "QLinearWhere", condition | a | b | result, kind),
            one(f"concat {text}", "QLinearConcat",
                result | a | _pair("d", bytes_of(2, 1, 4, seed=4, signed=signed), 0.05, zero), kind,
                axis=1),
        ]  # fmt: skip
    return cases


def pools() -> list[OrtCase]:
    x = _pair("x", bytes_of(2, 3, 7, 6), 0.02, 131)
    last = _pair("x", bytes_of(2, 7, 6, 3), 0.02, 131)
    result = {"YS": scalar(0.018), "YZ": scalar(120, np.uint8)}
    window = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    return [
        one("average", "QLinearAveragePool", x | result, np.uint8, **window),
        one("with padding", "QLinearAveragePool", x | result, np.uint8, count_include_pad=1,
            **window),
        one("beyond the padding", "QLinearAveragePool", x | result, np.uint8, count_include_pad=1,
            ceil_mode=1, kernel_shape=[3, 2], strides=[3, 2], pads=[1, 1, 0, 1]),
        one("channels last", "QLinearAveragePool", last | result, np.uint8, channels_last=1,
            **window),
        one("global", "QLinearGlobalAveragePool", x | result, np.uint8),
        one("global, channels last", "QLinearGlobalAveragePool", last | result, np.uint8,
            channels_last=1),
        one("largest", "NhwcMaxPool", {"x": last["x"]}, np.uint8, **window),
    ]  # fmt: skip


def ties() -> list[OrtCase]:
    """Results half-way between two steps: where the zero point is added decides their direction."""
    cases = []
    every = np.arange(256, dtype=np.uint8)
    window = {"kernel_shape": [1, 2], "pads": [0, 1, 0, 0]}
    for kind in (np.uint8, np.int8):
        for zero in (4, 7):
            left = _pair("a", every[:, None].view(kind), 1 / 64, 3)
            right = _pair("b", every[None, ::8].view(kind), 1 / 32, 5)
            image = _pair("x", bytes_of(1, 1, 40, 40).view(kind), 1 / 64, 3)
            result = {"YS": scalar(1 / 16), "YZ": scalar(zero, kind)}
            product = result | {"YS": scalar(1 / 64)}
            text = f"{kind.__name__}, {zero}"
            cases += [
                one(f"sums {text}", "QLinearAdd", left | right | result, kind),
                one(f"products {text}", "QLinearMul", left | right | product, kind),
                one(f"means {text}", "QLinearAveragePool", image | result, kind, **window),
            ]
    return [replace(case, steps=0) for case in cases]


def products() -> list[OrtCase]:
    x, w = bytes_of(4, 8), weights(8, 5, seed=1)
    left = {"a": x, "AS": scalar(0.02), "AZ": scalar(120, np.uint8)}
    right = {"B": w, "BS": scalar(0.01), "BZ": scalar(2, np.int8)}
    columns = {"B": w, "BS": np.abs(floats(5)) / 50, "BZ": weights(5, seed=3)}
    bias = {"C": np.arange(-200, 300, 100).astype(np.int32)}
    result = {"YS": scalar(0.05), "YZ": scalar(128, np.uint8)}
    image = {"x": bytes_of(1, 6, 5, 4), "XS": scalar(0.02), "XZ": scalar(120, np.uint8)}
    kernel = {"W": weights(3, 4, 3, 3, seed=5), "WS": scalar(0.01),
              "WZ": scalar(0, np.int8)}  # fmt: skip
    wide = {"X": floats(3, 8)}
    turned = {**right, "B": np.ascontiguousarray(w.T)}
    return [
        one("gemm", "QGemm", left | right | bias | result, np.uint8),
        one("gemm to floats", "QGemm", left | right | bias),
        one("gemm by column", "QGemm", left | columns | bias | result, np.uint8),
        one("gemm transposed", "QGemm", left | turned | bias | result, np.uint8, transB=1,
            alpha=0.7),
        one("dynamic", "DynamicQuantizeMatMul", {"x": wide["X"], **right}),
        one("dynamic by column", "DynamicQuantizeMatMul",
            {"x": wide["X"], **columns, "C": floats(5, seed=6)}),
        one("integer to float", "MatMulIntegerToFloat",
            {"a": x, "B": w, "AS": scalar(0.02), "BS": scalar(0.01), "AZ": scalar(120, np.uint8),
             "BZ": scalar(2, np.int8), "C": floats(5, seed=6)}),
        one("integer to float by column", "MatMulIntegerToFloat",
            {"a": x, "B": w, "AS": scalar(0.02), "BS": columns["BS"],
             "AZ": scalar(120, np.uint8), "BZ": columns["BZ"]}),
        one("convolution, channels last", "QLinearConv", image | kernel | result, np.uint8,
            channels_last=1, pads=[1, 1, 1, 1]),
    ]  # fmt: skip


def linear() -> list[OrtCase]:
    """QuantizeLinear and DequantizeLinear of 16 bits below opset 21."""
    x = floats(3, 4)
    cases = []
    for kind in (np.uint8, np.int8, np.uint16, np.int16):
        middle = (int(np.iinfo(kind).max) + int(np.iinfo(kind).min)) // 2
        step = 8.0 / (float(np.iinfo(kind).max) - float(np.iinfo(kind).min))
        parameters = {"S": scalar(step), "Z": scalar(middle, kind)}
        whole = np.random.default_rng(0).integers(np.iinfo(kind).min, np.iinfo(kind).max, (3, 4))
        columns = {"S": np.abs(floats(4, seed=1)) * step, "Z": np.full(4, middle, kind)}
        text = kind.__name__
        cases += [
            one(f"to {text}", "QuantizeLinear", {"x": x} | parameters, kind),
            one(f"from {text}", "DequantizeLinear", {"x": whole.astype(kind)} | parameters),
            one(f"from {text} by column", "DequantizeLinear", {"x": whole.astype(kind)} | columns,
                axis=1),
        ]  # fmt: skip
    return cases


def embeddings() -> list[OrtCase]:
    ids = np.array([[1, 4, 0], [2, 2, 3]], np.int32)
    sizes = (("W", 6), ("P", 5), ("T", 2))
    values: dict[str, Array] = {"i": ids, "s": np.array([[0, 0, 1]] * 2, np.int32)}
    values |= {name: bytes_of(rows, 8, seed=rows) for name, rows in sizes}
    values |= {"G": bytes_of(8, seed=7), "B": bytes_of(8, seed=8), "m": np.ones((2, 3), np.int32)}
    values |= {f"{name}S": scalar(0.01 + i / 500) for i, name in enumerate("WPTGB")}
    values |= {f"{name}Z": scalar(120 + i, np.uint8) for i, name in enumerate("WPTGB")}
    made = one("embeddings", "QEmbedLayerNormalization", values, outputs="y n")
    made.proto.graph.output[1].type.tensor_type.elem_type = 6
    return [made]


GROUPS = [
    n_bits, odd_bits, tables, bnb4, pointwise, pools, ties, products, linear, embeddings,
]  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_operators(group: Any, tmp_path: Path) -> None:
    check_all(group(), tmp_path)


@pytest.mark.parametrize("gathered", [0, 1])
def test_table_of_four_bit_integers(tmp_path: Path, gathered: int) -> None:
    """Of rows, and of numbers along the axis that has the blocks."""
    numbers = np.random.default_rng(0).integers(-8, 8, (6, 32)).astype(np.int8)
    tensor = helper.make_tensor("D", 22, numbers.shape, numbers.reshape(-1))
    made = node("GatherBlockQuantized", "D i S", domain=MS, block_size=16, quantize_axis=1,
                gather_axis=gathered)  # fmt: skip
    index = np.array([4, 1])
    proto = model([made], {"i": index}, ["y"], constants={"S": floats(6, 2)}, domains=[MS])
    proto.graph.initializer.append(tensor)
    check_all([OrtCase("four bits", proto, {"i": index})], tmp_path)
