"""The attention operators of com.microsoft against ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensmith.compiler.errors import UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import floats, model, node, run_ort
from .ort_cases import OrtCase, check_all

MS = "com.microsoft"
Array = np.ndarray


def case(
    name: str, op: str, values: dict[str, Array], outputs: str = "y", **attributes: Any
) -> OrtCase:
    """One node on values; a name of the form `-1` stands for an input that is not given."""
    names = " ".join("-" if key.startswith("-") else key for key in values)
    feeds = {key: array for key, array in values.items() if not key.startswith("-")}
    made = node(op, names, outputs, domain=MS, **attributes)
    shown = [output for output in outputs.split() if output != "-"]
    return OrtCase(name, model([made], feeds, shown, domains=[MS]), feeds)


NONE = np.zeros(0)
CACHE = (np.cos(floats(16, 4, seed=90)), np.sin(floats(16, 4, seed=90)))

WIDE_CACHE = (np.cos(floats(16, 8, seed=90)), np.sin(floats(16, 8, seed=90)))


def rotary() -> list[OrtCase]:
    cos, sin = CACHE
    rows = np.array([[3, 4, 5], [0, 1, 2]])
    flat, cube = floats(2, 3, 16), floats(2, 2, 3, 8)
    start = np.array([2])
    return [
        case("3 dimensions", "RotaryEmbedding", {"x": flat, "p": rows, "c": cos, "s": sin}),
        case("4 dimensions", "RotaryEmbedding", {"x": cube, "p": rows, "c": cos, "s": sin}),
        case("interleaved", "RotaryEmbedding", {"x": cube, "p": rows, "c": cos, "s": sin},
             interleaved=1),
        case("offset", "RotaryEmbedding", {"x": cube, "p": start, "c": cos, "s": sin}),
        case("scaled", "RotaryEmbedding", {"x": flat, "p": rows, "c": cos, "s": sin}, scale=2.0,
             is_packed_batching=1),
        case("partial", "RotaryEmbedding",
             {"x": flat, "p": rows, "c": cos[:, :2].copy(), "s": sin[:, :2].copy()},
             num_heads=2, rotary_embedding_dim=4),
    ]  # fmt: skip


def packed_attention() -> list[OrtCase]:
    x, w, b = floats(2, 5, 8), floats(8, 24, seed=1), floats(24, seed=2)
    past = floats(2, 2, 2, 3, 4, seed=3)
    i32 = np.int32
    plain: dict[str, Array] = {"x": x, "w": w, "b": b}
    return [
        case("plain", "Attention", plain, num_heads=2),
        case("causal", "Attention", plain, num_heads=2, unidirectional=1, scale=0.3),
        case("lengths", "Attention", plain | {"m": np.array([3, 5], i32)}, num_heads=2),
        case("starts", "Attention", plain | {"m": np.array([4, 5, 1, 0], i32)}, num_heads=2),
        case("lengths and sums", "Attention",
             plain | {"m": np.array([3, 5, 0, 3, 8, 0, 3, 8], i32)}, num_heads=2),
        case("mask", "Attention", plain | {"m": np.array([[1, 1, 0, 1, 1], [1] * 5], i32)},
             num_heads=2),
        case("mask of steps", "Attention",
             plain | {"m": (floats(2, 5, 5, seed=4) > -0.5).astype(i32)}, num_heads=2),
        case("past", "Attention", plain | {"-m": NONE, "past": past}, "y present", num_heads=2,
             unidirectional=1),
        case("bias", "Attention", plain | {"-m": NONE, "-p": NONE, "a": floats(1, 2, 5, 5, seed=5)},
             num_heads=2),
        case("wide values", "Attention",
             {"x": x, "w": floats(8, 28, seed=1), "b": floats(28, seed=2)}, num_heads=2,
             qkv_hidden_sizes=[8, 8, 12]),
    ]  # fmt: skip


def multi_head() -> list[OrtCase]:
    q, k, v = floats(2, 3, 8), floats(2, 5, 8, seed=1), floats(2, 5, 12, seed=2)
    bias, i32 = floats(28, seed=3), np.int32
    past = {"pk": floats(2, 2, 2, 4, seed=4), "pv": floats(2, 2, 2, 4, seed=5)}
    same = {"q": q, "k": floats(2, 3, 8, seed=6), "v": floats(2, 3, 8, seed=7)}
    none = {"-b": NONE, "-m": NONE}
    three: dict[str, Array] = {"q": q, "k": k, "v": v}
    return [
        case("cross", "MultiHeadAttention", three, num_heads=2),
        case("bias", "MultiHeadAttention", three | {"b": bias}, num_heads=2),
        case("padding", "MultiHeadAttention",
             three | {"-b": NONE, "m": np.array([[1, 1, 1, 0, 0], [1] * 5], i32)}, num_heads=2),
        case("lengths", "MultiHeadAttention",
             three | {"-b": NONE, "m": np.array([2, 5], i32)}, num_heads=2),
        case("added", "MultiHeadAttention", three | none | {"a": floats(2, 1, 3, 5, seed=8)},
             num_heads=2, scale=0.7),
        case("past", "MultiHeadAttention", same | none | {"-a": NONE} | past, "y pk1 pv1",
             num_heads=2, unidirectional=1),
        case("causal across", "MultiHeadAttention", three, num_heads=2, unidirectional=1),
        case("cached keys", "MultiHeadAttention",
             {"q": q, "k": floats(2, 2, 5, 4, seed=9), "v": floats(2, 2, 5, 4, seed=10)},
             num_heads=2),
    ]  # fmt: skip


def packed_forms() -> list[OrtCase]:
    """ONNX Runtime's CPU kernel takes only the separate inputs that these hold."""
    qkv, q, kv = floats(2, 3, 2, 3, 4), floats(2, 3, 8), floats(2, 5, 2, 2, 4, seed=9)
    bias = floats(24, seed=3)

    def flat(part: Array) -> Array:
        return np.ascontiguousarray(part).reshape(*part.shape[:2], -1)

    apart = dict(zip("qkv", (flat(qkv[:, :, :, i]) for i in range(3)), strict=True))
    cross = {"q": q} | {"kv"[i]: flat(kv[:, :, :, i]) for i in range(2)}
    none = {"-k": NONE, "-v": NONE}
    forms: list[tuple[str, dict[str, Array], dict[str, Array]]] = [
        ("all", {"q": qkv}, apart),
        ("all and bias", {"q": qkv} | none | {"b": bias}, apart | {"b": bias}),
        ("keys", {"q": q, "k": kv}, cross),
    ]
    cases = []
    for name, values, separate in forms:
        same = case(name, "MultiHeadAttention", separate, num_heads=2)
        want = run_ort(same.proto, dict(same.inputs))
        made = case(name, "MultiHeadAttention", values, num_heads=2)
        cases.append(replace(made, expected=want))
    return cases


def quantised() -> list[OrtCase]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 5, 8)).astype(np.uint8)
    w = rng.integers(-64, 64, (8, 24)).astype(np.int8)  # see test_contrib_quantized.weights
    values: dict[str, Array] = {
        "x": x, "w": w, "b": floats(24), "xs": np.array(0.02, np.float32),
        "ws": np.array(0.01, np.float32),
        "m": np.array([3, 5], np.int32), "xz": np.array(120, np.uint8), "wz": np.array(3, np.int8),
    }  # fmt: skip
    given = {**values, "m": np.ones((2, 5), np.int32)}
    del given["wz"]
    columns = values | {"ws": np.abs(floats(24, seed=1)) / 50, "wz": np.zeros(24, np.int8)}
    return [
        case("per tensor", "QAttention", values, num_heads=2),
        case("a zero point for the input alone", "QAttention", given, num_heads=2),
        case("per column", "QAttention", columns, num_heads=2, unidirectional=1),
    ]


def grouped(name: str, steps: int, room: int, lengths: list[int], **options: Any) -> OrtCase:
    """4 query heads of size 16, 2 of keys. lengths: the keys of each row, new ones included."""
    batch = len(lengths)
    extra: dict[str, Array] = options.pop("extra", {})
    packed = options.pop("packed", False)
    q, k, v = (floats(batch, steps, n, seed=i) for i, n in enumerate((64, 32, 32)))
    total = max(lengths)
    values: dict[str, Array] = {"q": q, "k": k, "v": v}
    if packed:
        values = {"q": np.concatenate([q, k, v], 2), "-k": NONE, "-v": NONE}
    values |= {
        "pk": floats(batch, 2, room, 16, seed=3), "pv": floats(batch, 2, room, 16, seed=4),
        "l": np.array(lengths, np.int32) - 1, "t": np.array(total, np.int32),
    }  # fmt: skip
    if options.get("do_rotary"):
        values |= {"c": WIDE_CACHE[0], "s": WIDE_CACHE[1]}
    elif extra:
        values |= {"-c": NONE, "-s": NONE}
    values |= extra
    scores = " s" if options.get("qk_output") else ""
    shown = "y pk1 pv1" + scores if total == steps + room or len(set(lengths)) == 1 else "y"
    return case(name, "GroupQueryAttention", values, shown, num_heads=4, kv_num_heads=2, **options)


def normalised_heads() -> OrtCase:
    """Queries and keys normed by epsilons of their own; ONNX Runtime gets them with that done."""
    absent = {f"-{name}": NONE for name in ("p", "b", "sink", "ks", "vs")}
    scales = {"qn": floats(16, seed=5), "kn": floats(16, seed=6)}
    made = grouped("norms", 3, 5, [8], extra={**absent, **scales}, qk_norm_epsilon=0.5,
                   k_norm_epsilon=0.1)  # fmt: skip
    plain = grouped("plain", 3, 5, [8])
    inputs = dict(plain.inputs)
    for name, scale, epsilon in (("q", scales["qn"], 0.5), ("k", scales["kn"], 0.1)):
        heads = inputs[name].reshape(1, 3, -1, 16)
        power = np.square(heads).mean(3, keepdims=True)
        inputs[name] = (heads / np.sqrt(power + epsilon) * scale).reshape(1, 3, -1)
    return replace(made, expected=run_ort(plain.proto, inputs))


def group_query() -> list[OrtCase]:
    bias = {"-p": NONE, "bias": floats(1, 4, 3, 8, seed=7)}
    sink = {"-p": NONE, "-b": NONE, "sink": floats(4, seed=8)}
    absent = {f"-{name}": NONE for name in ("p", "b", "sink", "ks", "vs")}
    padded = {**absent, "-qn": NONE, "-kn": NONE, "qs": np.array([4, 4], np.int32),
              "t": np.array(12, np.int32)}  # fmt: skip
    return [
        grouped("decode", 1, 6, [7, 7]),
        grouped("chunk", 3, 5, [8]),
        grouped("rotated", 1, 6, [7, 7], do_rotary=1),
        grouped("packed, interleaved", 1, 6, [7, 7], do_rotary=1, rotary_interleaved=1,
                packed=True),
        grouped("rows of different length", 1, 6, [7, 4], do_rotary=1),
        grouped("room left", 1, 12, [7, 7], do_rotary=1),
        grouped("prompt into a buffer", 4, 12, [4, 4], do_rotary=1),
        grouped("window", 3, 9, [12], local_window_size=4),
        grouped("softcap", 3, 5, [8], softcap=2.0, scale=0.9),
        grouped("bias", 3, 5, [8], extra=bias),
        grouped("sink", 3, 5, [8], extra=sink),
        grouped("smooth", 3, 5, [8], smooth_softmax=1),
        grouped("scores", 3, 5, [8], qk_output=1, softcap=2.0, local_window_size=4, extra=bias),
        grouped("weights", 3, 5, [8], qk_output=2, smooth_softmax=1),
        grouped("weights in a buffer", 1, 12, [7, 7], qk_output=2),
        normalised_heads(),
        grouped("places of a prompt", 4, 12, [4, 4], do_rotary=1,
                extra={"p": np.array([[5, 1, 9, 0], [3, 3, 3, 3]])}),
        grouped("places of a chunk", 3, 5, [8], do_rotary=1, extra={"p": np.array([[5, 1, 9]])}),
        grouped("padded chunks", 4, 12, [7, 7], extra=padded),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "group", [rotary, packed_attention, multi_head, packed_forms, quantised, group_query]
)
def test_attention(group: Any, tmp_path: Path) -> None:
    check_all(group(), tmp_path)


def test_quantised_cache_is_refused() -> None:
    made = grouped("cache", 1, 6, [7, 7], k_quant_type="PER_TENSOR", v_quant_type="PER_TENSOR")
    with pytest.raises(UnsupportedError, match="float cache"):
        load_model(made.proto)
