"""Sizes that only a run knows, of which any may be 1, in every operator that broadcasts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import RunError
from tensmith.frontends.onnx import load_model

from .oracle import Array, floats, model, node
from .ort_cases import OrtCase, check_all

Dims = Mapping[str, Sequence[int | str]]


def proto_of(
    nodes: Sequence[onnx.NodeProto],
    dims: Dims,
    *,
    types: Mapping[str, type] | None = None,
    constants: Mapping[str, Array] | None = None,
    result: int = onnx.TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of the nodes with inputs of the given dims and one output `y`."""
    kinds = types or {}
    inputs = {
        name: np.zeros((1,) * len(d), kinds.get(name, np.float32)) for name, d in dims.items()
    }
    domains = sorted({n.domain for n in nodes if n.domain})
    return model(
        nodes,
        inputs,
        ["y"],
        constants=dict(constants or {}),
        dims=dict(dims),
        types=[result],
        opset=opset,
        domains=domains,
    )


def feed(proto: onnx.ModelProto, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    """Seeded inputs whose symbolic dims have the given sizes."""
    rng = np.random.default_rng(seed)
    found = {}
    for info in proto.graph.input:
        tensor = info.type.tensor_type
        shape = [sizes[d.dim_param] if d.dim_param else d.dim_value for d in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f":
            found[info.name] = rng.standard_normal(shape).astype(dtype)
        else:
            high = 2 if dtype.kind == "b" else 9
            found[info.name] = rng.integers(1 - (dtype.kind == "b"), high, shape).astype(dtype)
    return found


def runs(
    name: str, proto: onnx.ModelProto, symbols: str, *sizes: Sequence[int], **more: float
) -> list[OrtCase]:
    """The model once for each list of sizes of the symbols."""
    cases = []
    for each in sizes:
        inputs = feed(proto, dict(zip(symbols.split(), each, strict=True)))
        cases.append(OrtCase(f"{name} {list(each)}", proto, inputs, **more))  # type: ignore[arg-type]
    return cases


PAIRS = {"a": ["A", 3, "C"], "b": ["B", 3, "D"]}
PAIR_SIZES = ((2, 5, 2, 5), (1, 5, 2, 5), (2, 1, 1, 5), (1, 1, 4, 33), (0, 1, 1, 5), (1, 4, 0, 1))


def pointwise_cases() -> list[OrtCase]:
    cases: list[OrtCase] = []
    cases += runs("Add", proto_of([node("Add", "a b")], PAIRS), "A C B D", *PAIR_SIZES)
    for op in ("Sub", "Div", "PRelu", "Max", "Mean"):
        cases += runs(op, proto_of([node(op, "a b")], PAIRS), "A C B D", PAIR_SIZES[2])
    for op in ("Mod", "BitwiseAnd", "BitShift"):
        kinds = {"a": np.uint32, "b": np.uint32}
        attributes = {"direction": "LEFT"} if op == "BitShift" else {}
        made = node(op, "a b", **attributes)
        proto = proto_of([made], PAIRS, types=kinds, result=onnx.TensorProto.UINT32, opset=18)
        cases += runs(op, proto, "A C B D", *PAIR_SIZES[2:4])
    for op in ("Less", "Equal"):
        proto = proto_of([node(op, "a b")], PAIRS, result=onnx.TensorProto.BOOL)
        cases += runs(op, proto, "A C B D", PAIR_SIZES[2])
    where = {"c": ["E", 1, "F"], **PAIRS}
    proto = proto_of([node("Where", "c a b")], where, types={"c": np.bool_})
    sizes = ((2, 5, 2, 5, 2, 5), (2, 1, 1, 5, 1, 1), (1, 5, 2, 1, 1, 1), (1, 1, 1, 1, 2, 5))
    cases += runs("Where", proto, "E F A C B D", *sizes)
    ranks = {"a": ["A", "C"], "b": ["D"], "c": ["E", 1, "F"]}
    proto = proto_of([node("Sum", "a b c")], ranks)
    cases += runs("Sum", proto, "A C D E F", (3, 4, 4, 2, 4), (3, 1, 4, 2, 1), (1, 4, 1, 1, 1))
    fixed = proto_of([node("Mul", "a b")], {"a": ["A", 6], "b": [4, "B"]})
    cases += runs("literal", fixed, "A B", (4, 6), (1, 6), (4, 1), (1, 1))
    return cases


def product_cases() -> list[OrtCase]:
    dims = {"a": ["A", "H", 5, "K"], "b": ["B", "J", "L", 6]}
    cases = runs(
        "MatMul",
        proto_of([node("MatMul", "a b")], dims),
        "A H K B J L",
        (2, 3, 7, 2, 3, 7),
        (1, 3, 7, 2, 3, 7),
        (2, 1, 7, 1, 3, 7),
        (2, 3, 1, 1, 1, 1),
        (0, 3, 7, 1, 1, 7),
    )
    gemm = [node("Gemm", "a b c", transB=1, beta=0.5)]
    dims = {"a": ["M", 5], "b": ["N", 5], "c": ["P", "Q"]}
    sizes = ((3, 4, 3, 4), (3, 4, 1, 4), (3, 4, 3, 1), (3, 4, 1, 1), (1, 1, 1, 1))
    cases += runs("Gemm", proto_of(gemm, dims), "M N P Q", *sizes)
    einsum = [node("Einsum", "a b", equation="hqd,hkd->hqk")]
    dims = {"a": ["A", 5, "D"], "b": ["B", "K", "E"]}
    sizes = ((2, 4, 2, 3, 4), (1, 4, 2, 3, 1), (2, 1, 1, 3, 4))
    cases += runs("Einsum", proto_of(einsum, dims), "A D B K E", *sizes)
    sums = [node("Einsum", "a b", equation="ij,ij->")]
    dims = {"a": ["A", "B"], "b": ["C", "D"]}
    cases += runs("dot", proto_of(sums, dims), "A B C D", (1, 4, 4, 1), (3, 4, 3, 4))
    norm = [node("LayerNormalization", "x s b")]
    dims = {"x": ["B", "S", "C"], "s": ["D"], "b": ["E"]}
    sizes = ((2, 3, 8, 8, 8), (2, 3, 8, 1, 8), (2, 3, 8, 8, 1))
    cases += runs("LayerNormalization", proto_of(norm, dims), "B S C D E", *sizes[:1])
    expand = [node("Shape", "b", "s"), node("Expand", "a s")]
    dims = {"a": ["A", 1, "C"], "b": ["B", "D", "E"]}
    sizes = ((2, 5, 2, 3, 5), (1, 5, 2, 3, 1), (2, 1, 1, 1, 7), (1, 1, 1, 1, 1), (1, 2, 0, 4, 1))
    cases += runs("Expand", proto_of(expand, dims), "A C B D E", *sizes)
    return cases


def test_operators_against_onnx_runtime(tmp_path: Path) -> None:
    check_all([*pointwise_cases(), *product_cases()], tmp_path)


def attention(masked: Sequence[int | str]) -> onnx.ModelProto:
    """Attention of [batch, steps] queries over [other, keys], a mask of its own sizes added."""
    nodes = [
        node("Transpose", "k", "t", perm=[0, 1, 3, 2]),
        node("MatMul", "q t", "p"),
        node("Mul", "p scale", "scaled"),
        node("Add", "scaled mask", "scores"),
        node("Softmax", "scores", "w", axis=-1),
        node("MatMul", "w v", "c"),
        node("Add", "c rest", "r"),
        node("ReduceMean", "r", "y", axes=[-1]),
    ]
    dims = {
        "q": ["A", 2, "Q", 8],
        "k": ["B", 2, "K", 8],
        "v": ["B", 2, "K", 8],
        "mask": masked,
        "rest": ["E", "H", "Q", 8],
    }
    return proto_of(nodes, dims, constants={"scale": np.float32(0.3)})


def test_attention_masks(tmp_path: Path) -> None:
    names = "A B Q K M S T E H"
    sizes = (
        (2, 2, 3, 5, 2, 3, 5, 2, 2),
        (2, 1, 3, 5, 2, 1, 5, 1, 1),
        (1, 3, 3, 5, 1, 1, 1, 3, 1),
        (1, 1, 3, 5, 4, 3, 5, 1, 2),
        (2, 2, 1, 1, 1, 4, 1, 2, 2),
    )
    cases = runs("mask", attention(["M", 1, "S", "T"]), names, *sizes[:4])
    short = [[s for n, s in zip(names.split(), each, strict=True) if n != "S"] for each in sizes]
    cases += runs("row", attention(["M", 1, 1, "T"]), names.replace("S ", ""), *short[:4])
    contrib = node("MultiHeadAttention", "q k v - - bias", num_heads=2, domain="com.microsoft")
    dims = {"q": ["A", "Q", 16], "k": ["A", "K", 16], "v": ["A", "K", 16]}
    dims["bias"] = ["M", 2, "Q", "K"]
    proto = proto_of([contrib], dims)
    cases += runs("contrib", proto, "A Q K M", (2, 3, 5, 2), (2, 3, 5, 1), (1, 1, 4, 1))
    check_all(cases, tmp_path)


def test_what_surrounds_a_meeting_of_sizes(tmp_path: Path) -> None:
    """Operators before and behind it, shapes computed of the result, regions that use it."""
    nodes = [
        node("MatMul", "x w", "p"),
        node("Relu", "p", "h"),
        node("Add", "h r", "s"),
        node("Shape", "s", "shape"),
        node("Expand", "one shape", "ones"),
        node("Concat", "s ones", "both", axis=-1),
        node("ReduceSum", "both axes", "total", keepdims=0),
        node("Mul", "h h", "square"),
        node("ReduceMax", "square", "m", axes=[0, 1, 2]),
        node("Add", "total m"),
    ]
    constants = {"w": floats(6, 8), "one": np.float32([1]), "axes": np.int64([1])}
    proto = proto_of(nodes, {"x": ["A", "S", 6], "r": ["B", "T", 8]}, constants=constants)
    sizes = ((2, 4, 2, 4), (1, 4, 3, 4), (3, 1, 1, 4), (1, 1, 2, 5), (2, 5, 1, 1))
    check_all(runs("around", proto, "A S B T", *sizes), tmp_path)


def random_model(rng: np.random.Generator) -> tuple[onnx.ModelProto, dict[str, int], list[int]]:
    """A model of operators that broadcast on one grid, the axis of every symbol, the grid."""
    rank = int(rng.integers(1, 5))
    grid = [int(rng.integers(2, 8)) for _ in range(rank)]
    axis_of: dict[str, int] = {}

    def dims() -> list[int | str]:
        found: list[int | str] = []
        for axis in range(int(rng.integers(0, rank)) if rng.random() < 0.3 else 0, rank):
            known = [name for name, at in axis_of.items() if at == axis]
            choice = rng.random()
            if choice < 0.15:
                found.append(1)
            elif choice < 0.45 and known:
                found.append(str(rng.choice(known)))
            else:
                axis_of[f"s{len(axis_of)}"] = axis
                found.append(f"s{len(axis_of) - 1}")
        return found

    inputs = {f"x{i}": dims() for i in range(int(rng.integers(2, 5)))}
    inputs["c"] = dims()
    values, nodes = [name for name in inputs if name != "c"], []
    for number in range(int(rng.integers(3, 9))):
        a, b, c = (str(rng.choice(values[-4:])) for _ in range(3))
        choices = (
            node(str(rng.choice(["Add", "Sub", "Mul", "Max", "PRelu"])), f"{a} {b}", f"v{number}"),
            node(str(rng.choice(["Relu", "Tanh", "Sigmoid"])), a, f"v{number}"),
            node("Where", f"c {a} {b}", f"v{number}"),
            node("Mean", f"{a} {b} {c}", f"v{number}"),
            node("Softmax", a, f"v{number}", axis=-1),
        )
        nodes.append(choices[int(rng.choice(5, p=[0.5, 0.2, 0.12, 0.1, 0.08]))])
        values.append(f"v{number}")
    nodes.append(node("Sum", " ".join(values[-3:])))
    return proto_of(nodes, inputs, types={"c": np.bool_}), axis_of, grid


def random_cases(seed: int) -> list[OrtCase]:
    rng = np.random.default_rng(seed)
    proto, axis_of, grid = random_model(rng)
    cases = []
    for number in range(3):
        sizes = [int(rng.choice([n, n + 1, 0, 1], p=[0.6, 0.2, 0.1, 0.1])) for n in grid]
        kept = (1.0, 0.5, 0.5)[number]
        chosen = {s: sizes[at] if rng.random() < kept else 1 for s, at in axis_of.items()}
        cases.append(OrtCase(f"seed {seed} {chosen}", proto, feed(proto, chosen, seed)))
    return cases


def test_random_models(tmp_path: Path) -> None:
    check_all([case for seed in range(6) for case in random_cases(seed)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 400, 30))
def test_more_random_models(first: int, tmp_path: Path) -> None:
    cases = itertools.chain.from_iterable(map(random_cases, range(first, first + 30)))
    check_all(list(cases), tmp_path)


def test_sizes_that_do_not_broadcast_end_the_run() -> None:
    proto = proto_of([node("Add", "a b")], PAIRS)
    graph = load_model(proto)
    with pytest.raises(RunError, match=r"broadcast"):
        run_graph(graph, feed(proto, {"A": 2, "B": 3, "C": 4, "D": 4}))
    with pytest.raises(RunError, match=r"broadcast"):
        run_graph(graph, feed(proto, {"A": 0, "B": 3, "C": 4, "D": 4}))
    gemm = load_model(
        proto_of([node("Gemm", "a b c")], {"a": ["M", 5], "b": [5, 4], "c": ["P", 4]})
    )
    with pytest.raises(RunError, match=r"broadcast"):
        run_graph(gemm, {"a": floats(1, 5), "b": floats(5, 4), "c": floats(3, 4)})
    expand = load_model(model([node("Expand", "x s")], {"x": floats(3), "s": np.int64([3])}, ["y"]))
    with pytest.raises(RunError, match=r"'Expand:y' .* to be 1 or 3"):
        run_graph(expand, {"x": floats(3), "s": np.int64([2])})


def test_sizes_that_are_one_together_are_equal() -> None:
    """Positions of a table that is cut to the sequence: nothing is expanded."""
    nodes = [
        node("Shape", "x", "n", start=1, end=2),
        node("Slice", "table zero n axis", "cut"),
        node("Add", "x cut"),
    ]
    constants = {"table": floats(1, 12, 4), "zero": np.int64([0]), "axis": np.int64([1])}
    graph = load_model(proto_of(nodes, {"x": ["B", "S", 4]}, constants=constants))
    assert not [n for n in graph.walk() if n.op == "expand"]


def test_positions_of_a_size_that_exists(tmp_path: Path) -> None:
    """As many as the size says, which is not negative: no larger of it and 0, nothing expanded."""
    nodes = [
        node("AveragePool", "x", "pooled", kernel_shape=[3]),
        node("Shape", "pooled", "n", start=2),
        node("Squeeze", "n", "last"),
        node("Range", "zero last one", "positions"),
        node("Cast", "positions", "numbers", to=onnx.TensorProto.FLOAT),
        node("Add", "pooled numbers"),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1)}
    proto = proto_of(nodes, {"x": ["B", 2, "N"]}, constants=constants)
    graph = load_model(proto)
    assert [str(dim) for dim in graph.outputs[0].shape] == ["B", "2", "N - 2"]
    assert not [n for n in graph.walk() if n.op == "expand"]
    sizes = (3, 4, 9)
    check_all([OrtCase(f"of {n}", proto, {"x": floats(2, 2, n)}) for n in sizes], tmp_path)
