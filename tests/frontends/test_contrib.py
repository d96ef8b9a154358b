"""Operators of com.microsoft against ONNX Runtime: activations, norms, products, layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tensmith.compiler.errors import UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import floats, model, node
from .ort_cases import OrtCase, check_all

MS = "com.microsoft"
Array = np.ndarray


def case(
    name: str,
    nodes: list[Any],
    inputs: dict[str, Array],
    outputs: str,
    types: list[int] | None = None,
    **constants: Array,
) -> OrtCase:
    """Nodes of com.microsoft on inputs and constants."""
    proto = model(nodes, inputs, outputs.split(), types=types, constants=constants, domains=[MS])
    return OrtCase(name, proto, inputs)


def one(
    name: str, op: str, inputs: dict[str, Array], outputs: str = "y", **options: Any
) -> OrtCase:
    """One node; inputs called `-...` are not given. Keys of upper case are constants."""
    names = " ".join("-" if key.startswith("-") else key for key in inputs)
    made = node(op, names, outputs, domain=MS, **options)
    feeds = {key: x for key, x in inputs.items() if key.islower() and not key.startswith("-")}
    constants = {key: x for key, x in inputs.items() if key.isupper()}
    shown = " ".join(output for output in outputs.split() if output != "-")
    return case(name, [made], feeds, shown, **constants)


NONE = np.zeros(0)


def activations() -> list[OrtCase]:
    x = floats(3, 8)
    nodes = [
        node("Gelu", "x", "a", domain=MS),
        node("BiasGelu", "x b", "c", domain=MS),
        node("FastGelu", "x b", "d", domain=MS),
        node("FastGelu", "x", "e", domain=MS),
        node("QuickGelu", "x", "f", domain=MS, alpha=1.5),
    ]
    return [case("gelu family", nodes, {"x": x}, "a c d e f", b=floats(8, seed=1))]


def norms() -> list[OrtCase]:
    x, skip = floats(2, 3, 8), floats(2, 3, 8, seed=9)
    g, b, t = (floats(8, seed=i) for i in range(3))
    ids, segments = np.array([[1, 4, 0], [2, 2, 3]], np.int32), np.array([[0, 0, 1]] * 2, np.int32)
    tables = {"W": floats(6, 8), "P": floats(5, 8, seed=1), "S": floats(2, 8, seed=2)}
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    embed = [node("EmbedLayerNormalization", "i s W P S G B m", "y n sum", domain=MS)]
    types = [TensorProto.FLOAT, TensorProto.INT32, TensorProto.FLOAT]
    return [
        one("skip", "SkipLayerNormalization", {"x": x, "S": skip, "G": g, "B": b, "T": t},
            "y - - sum", epsilon=1e-5),
        one("skip without shift", "SkipLayerNormalization", {"x": x, "S": skip, "G": g}),
        one("broadcast skip", "SkipLayerNormalization", {"x": x, "S": skip[:1], "G": g, "B": b}),
        one("simplified skip", "SkipSimplifiedLayerNormalization",
            {"x": x, "S": skip, "G": g, "B": b}, "y - - sum"),
        one("statistics", "SkipLayerNormalization", {"x": x, "S": skip, "G": g}, "y m v"),
        one("simplified statistics", "SkipSimplifiedLayerNormalization",
            {"x": x, "S": skip, "G": g, "B": b}, "y m v sum"),
        case("simplified", [node("SimplifiedLayerNormalization", "x g", epsilon=1e-5)], {"x": x},
             "y", g=g),
        case("embeddings", embed, {"i": ids, "s": segments, "m": mask}, "y n sum", types,
             **tables, G=g, B=b),
        case("words and positions",
             [node("EmbedLayerNormalization", "i - W P - G B - p", "y n", domain=MS)],
             {"i": ids, "p": np.array([[4, 0, 2]] * 2, np.int32)}, "y", W=tables["W"],
             P=tables["P"], G=g, B=b),
    ]  # fmt: skip


def products() -> list[OrtCase]:
    x, p = floats(3, 4), floats(1, 2, 5, 5)
    a, b = floats(2, 3, 4, seed=4), floats(2, 4, 5, seed=5)
    cases = [
        one("gemm", "FusedGemm", {"x": x, "W": floats(5, 4, seed=1), "C": floats(5, seed=2)},
            activation="LeakyRelu", activation_alpha=0.2, transB=1, alpha=0.5, beta=2.0),
        one("transposed", "TransposeMatMul", {"x": x, "W": floats(5, 4, seed=1)}, transB=1),
        one("first transposed", "FusedMatMul", {"a": a.swapaxes(1, 2).copy(), "b": b}, transA=1,
            alpha=3.0),
        one("batch second", "FusedMatMul", {"a": a.swapaxes(0, 1).copy(), "b": b},
            transBatchA=1),
        one("both batches second", "FusedMatMul",
            {"a": a.transpose(2, 0, 1).copy(), "b": b.transpose(2, 0, 1).copy()},
            transBatchA=1, transBatchB=1, transA=1, transB=1),
        one("residual", "FusedConv", {"x": p, "W": floats(3, 2, 3, 3, seed=3),
            "B": floats(3, seed=4), "Z": floats(1, 3, 5, 5, seed=5)}, activation="Relu",
            pads=[1, 1, 1, 1]),
    ]  # fmt: skip
    chosen: dict[str, list[float]] = {
        "Relu": [], "Tanh": [], "Sigmoid": [], "LeakyRelu": [0.1], "Clip": [-0.5, 0.5],
        "HardSigmoid": [0.3, 0.4], "HardSwish": [],
    }  # fmt: skip
    for name, values in chosen.items():
        extra = {"activation_params": values} if values else {}
        cases.append(
            one(f"convolution {name}", "FusedConv", {"x": p, "W": floats(3, 2, 3, 3, seed=3)},
                activation=name, **extra)
        )  # fmt: skip
    return cases


def mixtures() -> list[OrtCase]:
    x, logits = floats(2, 3, 16), floats(6, 4, seed=1)
    up, down = floats(4, 32, 16, seed=2) / 4, floats(4, 16, 32, seed=3) / 4
    plain = {"x": x, "r": logits, "U": up, "A": floats(4, 32, seed=4), "D": down,
             "B": floats(4, 16, seed=5)}  # fmt: skip
    narrow = {**plain, "D": floats(4, 16, 16, seed=3) / 4}
    cases = [
        one(f"{name}, {k} of 4, {'normalised' if normal else 'not'}", "MoE", plain, k=k,
            activation_type=name, normalize_routing_weights=normal)
        for name, k, normal in (("relu", 1, 0), ("silu", 2, 1), ("gelu", 3, 0), ("identity", 2, 0))
    ]  # fmt: skip
    gate = {"activation_type": "swiglu", "swiglu_fusion": 1, "k": 2}
    cases.append(
        one("gate", "MoE", narrow, normalize_routing_weights=1, activation_alpha=1.702,
            activation_beta=1.0, swiglu_limit=1.5, **gate)
    )  # fmt: skip
    early = {**plain, "U": up.reshape(4, 16, 32), "D": down.reshape(4, 32, 16)}
    cases.append(one("dims of early files", "MoE", early, k=2, activation_type="silu"))
    rng = np.random.default_rng(0)
    for bits, rows in ((4, 16), (8, 32)):
        values: dict[str, Array] = {
            "x": floats(6, 32), "r": logits,
            "U": rng.integers(0, 256, (4, rows, 32 * bits // 8)).astype(np.uint8),
            "S": np.abs(floats(4, rows, seed=6)) / 30, "A": floats(4, rows, seed=7),
            "D": rng.integers(0, 256, (4, 32, rows * bits // 8)).astype(np.uint8),
            "T": np.abs(floats(4, 32, seed=8)) / 30, "B": floats(4, 32, seed=9),
        }  # fmt: skip
        cases.append(
            one(f"{bits} bits", "QMoE", values, k=2, activation_type="silu",
                normalize_routing_weights=1, expert_weight_bits=bits)
        )  # fmt: skip
    return [*cases, blocks_of_experts()]


def blocks_of_experts() -> OrtCase:
    """One block for a row of the first weight, whose zero point fills half of a byte."""
    rng = np.random.default_rng(1)
    values: dict[str, Array] = {
        "x": floats(6, 32), "r": floats(6, 4, seed=1),
        "U": rng.integers(0, 256, (4, 64, 16)).astype(np.uint8),
        "S": np.abs(floats(4, 64, 1, seed=2)) / 30, "-a": NONE,
        "D": rng.integers(0, 256, (4, 32, 32)).astype(np.uint8),
        "T": np.abs(floats(4, 32, 2, seed=3)) / 30, "-b": NONE, "-c": NONE, "-d": NONE, "-e": NONE,
        "Y": rng.integers(0, 256, (4, 64, 1)).astype(np.uint8),
        "Z": rng.integers(0, 256, (4, 32, 1)).astype(np.uint8),
    }  # fmt: skip
    return one("blocks with zero points", "QMoE", values, k=2, activation_type="silu",
               normalize_routing_weights=1, block_size=32, expert_weight_bits=4)  # fmt: skip


def recurrent_layers() -> list[OrtCase]:
    q, k = floats(2, 3, 8), floats(2, 3, 8, seed=1)
    v, state = floats(2, 3, 6, seed=2), floats(2, 2, 4, 3, seed=3)
    decay, beta = -np.abs(floats(2, 3, 2, seed=4)), np.abs(floats(2, 3, 2, seed=5)) / 3
    heads: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 2}
    all_: dict[str, Array] = {"q": q, "k": k, "v": v, "s": state, "d": decay, "b": beta}
    x, w = floats(2, 4, 6), floats(4, 1, 3, seed=1)
    return [
        one("linear", "LinearAttention", {"q": q, "k": k, "v": v}, "y z", update_rule="linear",
            **heads),
        one("gated", "LinearAttention", {key: all_[key] for key in "qkvsd"}, "y z",
            update_rule="gated", **heads),
        one("gated delta", "LinearAttention", all_, "y z", **heads),
        one("queries that several keys share", "LinearAttention", {**all_, "q": q[:, :, :4].copy()},
            "y z", q_num_heads=1, kv_num_heads=2),
        one("convolution", "CausalConvWithState", {"x": x, "W": w}, "y z"),
        one("state and activation", "CausalConvWithState",
            {"x": x, "W": w, "B": floats(4, seed=2), "p": floats(2, 4, 2, seed=3)}, "y z",
            activation="silu"),
    ]  # fmt: skip


GROUPS = [activations, norms, products, mixtures, recurrent_layers]


@pytest.mark.parametrize("group", GROUPS)
def test_operators(group: Any, tmp_path: Path) -> None:
    check_all(group(), tmp_path)


NCHWC = "com.microsoft.nchwc"


@pytest.mark.parametrize(
    ("op", "domain"),
    [
        *((op, NCHWC) for op in ("Conv", "MaxPool", "AveragePool", "ReorderInput", "Upsample")),
        *((op, MS) for op in ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch")),
        ("OfSomebodyElse", MS),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_a_remedy(op: str, domain: str) -> None:
    made = helper.make_node(op, ["x"], ["y"], domain=domain)
    with pytest.raises(UnsupportedError) as error:
        load_model(model([made], {"x": floats(1, 8, 4, 4)}, ["y"], domains=[MS, NCHWC]))
    (item,) = error.value.items
    assert item.remedy
    assert op in str(error.value)
