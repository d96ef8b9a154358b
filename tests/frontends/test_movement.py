"""Moving elements, shape arithmetic and symbolic dimensions against ONNX Runtime."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import RunError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node
from .ort_cases import OrtCase, check_all

I64 = TensorProto.INT64


def test_reshape_copies_and_infers_dimensions() -> None:
    x = floats(2, 3, 4)
    proto = model([node("Reshape", "x s")], {"x": x}, ["y"], constants={"s": np.int64([0, -1, 2])})
    check(proto, {"x": x})


def test_reshape_of_symbolic_shape_divides_exactly() -> None:
    x = floats(4, 6, 8)
    proto = model(
        [
            node("Shape", "x", "s"),
            node("Gather", "s k", "n"),
            node("Concat", "n m", "t", axis=0),
            node("Reshape", "x t"),
        ],
        {"x": x},
        ["y"],
        constants={"k": np.int64([0]), "m": np.int64([2, -1])},
        dims={"x": ["n", 6, "w"]},
    )
    graph = check(proto, {"x": x})
    assert [str(dim) for dim in graph.outputs[0].shape] == ["n", "2", "3*w"]


@pytest.mark.parametrize("opset", [7, 11, 13])
def test_squeeze_unsqueeze_versions(opset: int) -> None:
    x = floats(2, 1, 3, 1)
    if opset < 13:
        nodes = [node("Squeeze", "x", "s", axes=[1, 3]), node("Unsqueeze", "s", axes=[0, 2])]
        constants = {}
    else:
        nodes = [node("Squeeze", "x a", "s"), node("Unsqueeze", "s b")]
        constants = {"a": np.int64([1, -1]), "b": np.int64([0, -2])}
    check(model(nodes, {"x": x}, ["y"], constants=constants, opset=opset), {"x": x})


SLICES = [
    ([1], [5], [0], [1]),
    ([-3, 0], [2**63 - 1, -1], [1, 2], [1, 1]),
    ([5, 7], [-(2**63), 0], [0, 1], [-1, -2]),
    ([0], [100], [1], [3]),
    ([4], [2], [0], [1]),
]


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), SLICES)
def test_slice(
    starts: list[int], ends: list[int], axes: list[int], steps: list[int], symbolic: bool
) -> None:
    x = floats(6, 8, 5)
    names = dict(zip("seat", map(np.int64, (starts, ends, axes, steps)), strict=True))
    proto = model(
        [node("Slice", "x s e a t")],
        {"x": x},
        ["y"],
        constants=names,
        dims={"x": ["a", "b", "c"]} if symbolic else None,
    )
    check(proto, {"x": x})


def test_slice_with_attributes() -> None:
    x = floats(6, 8)
    proto = model(
        [node("Slice", "x", starts=[1, -4], ends=[4, 9], axes=[1, 0])], {"x": x}, ["y"], opset=9
    )
    check(proto, {"x": x})


def test_dynamic_slice_of_early_files() -> None:
    x = floats(6, 8)
    bounds = {"s": np.int64([1, -4]), "e": np.int64([4, 9]), "a": np.int64([1, 0])}
    proto = model([node("DynamicSlice", "x s e a")], {"x": x}, ["y"], constants=bounds, opset=9)
    check(proto, {"x": x}, expected={"y": x[-4:9, 1:4]})


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split_versions(opset: int) -> None:
    x = floats(7, 4)
    if opset == 11:
        nodes = [node("Split", "x", "a b", axis=0, split=[2, 5])]
    elif opset == 13:
        nodes = [node("Split", "x n", "a b", axis=0)]
    else:
        nodes = [node("Split", "x", "a b", axis=0, num_outputs=2)]
    constants = {"n": np.int64([2, 5])} if opset == 13 else {}
    check(model(nodes, {"x": x}, ["a", "b"], constants=constants, opset=opset), {"x": x})


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad(mode: str) -> None:
    x = floats(3, 4)
    proto = model(
        [node("Pad", "x p v" if mode == "constant" else "x p", mode=mode)],
        {"x": x},
        ["y"],
        constants={"p": np.int64([1, -1, 0, 2]), "v": np.float32(7)}
        if mode == "constant"
        else {"p": np.int64([1, 0, 2, 3])},
    )
    check(proto, {"x": x})


def test_pad_with_attributes() -> None:
    x = floats(3, 4)
    check(
        model([node("Pad", "x", pads=[1, 0, 2, 1], value=3.0)], {"x": x}, ["y"], opset=7), {"x": x}
    )


def test_expand_tile_concat_flatten_transpose() -> None:
    x = floats(2, 1, 3)
    nodes = [
        node("Expand", "x e", "a"),
        node("Tile", "x r", "b"),
        node("Transpose", "b", "c"),
        node("Flatten", "b", "d", axis=-1),
        node("Concat", "a a", "f", axis=-2),
    ]
    constants = {"e": np.int64([2, 1, 4, 1]), "r": np.int64([1, 2, 3])}
    check(model(nodes, {"x": x}, list("abcdf"), constants=constants), {"x": x})


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(mode: str) -> None:
    x = floats(1, 8, 2, 3)
    nodes = [
        node("DepthToSpace", "x", "a", blocksize=2, mode=mode),
        node("SpaceToDepth", "a", "y", blocksize=2),
    ]
    check(model(nodes, {"x": x}, ["a", "y"]), {"x": x})


def test_gathers_and_scatters() -> None:
    x = floats(3, 4)
    nodes = [
        node("Gather", "x i", "a", axis=1),
        node("GatherElements", "x j", "b", axis=0),
        node("GatherND", "x k", "c"),
        node("ScatterElements", "x j u", "d", axis=0, reduction="add"),
        node("ScatterND", "x k v", "e"),
    ]
    constants = {
        "i": np.int64([[0, -1]]),
        "j": np.int64([[0, -1, 1, 2]]),
        "k": np.int64([[0, 1], [2, -1]]),
        "u": floats(1, 4, seed=1),
        "v": floats(2, seed=2),
    }
    check(model(nodes, {"x": x}, list("abcde"), constants=constants, opset=16), {"x": x})


@pytest.mark.parametrize("upper", [0, 1])
def test_trilu_eye_one_hot(upper: int) -> None:
    x, i = floats(2, 4, 5), np.int64([[0, -1], [3, 9]])
    nodes = [
        node("Trilu", "x k", "a", upper=upper),
        node("OneHot", "i d v", "b", axis=upper),
        node("EyeLike", "i", "c", k=1, dtype=TensorProto.FLOAT),
    ]
    constants = {"k": np.int64(1), "d": np.int64(5), "v": np.float32([-1, 2])}
    check(model(nodes, {"x": x, "i": i}, list("abc"), constants=constants), {"x": x, "i": i})


def test_range_of_symbolic_length_and_constant_of_shape() -> None:
    x = floats(3, 5)
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s one", "n"),
        node("Range", "zero n step", "r"),
        node("ConstantOfShape", "s", "z"),
        node("Size", "x", "c"),
    ]
    constants = {"one": np.int64(1), "zero": np.int64(1), "step": np.int64(2)}
    proto = model(
        nodes,
        {"x": x},
        ["r", "z", "c"],
        constants=constants,
        types=[I64, TensorProto.FLOAT, I64],
        dims={"x": ["a", "b"]},
    )
    check(proto, {"x": x})


STEPS = [(0, 1, 0.1), (0.1, 10, 0.1), (1, -3, -0.3), (0, 1000, 0.7), (0, 7, 1), (0.25, 7, 0.5),
         (0.1, 5, 1), (3, 3, 0.1), (3, 2, 0.1), (16777200, 16777230, 1)]  # fmt: skip


def test_float_ranges_add_up(tmp_path: Path) -> None:
    """To the bit: every sum is rounded, as in the operator's definition."""
    cases = []
    for dtype, row, known in product((np.float32, np.float64), STEPS, ("", "abc", "ac", "c", "a")):
        amounts = {name: np.array(v, dtype) for name, v in zip("abc", row, strict=True)}
        inputs = {n: v for n, v in amounts.items() if n not in known} or {"q": np.zeros(2, dtype)}
        constants = {n: v for n, v in amounts.items() if n in known}
        nodes = [node("Range", "a b c")] + ([node("Neg", "q", "r")] if known == "abc" else [])
        types = [helper.np_dtype_to_tensor_dtype(np.dtype(dtype))]
        proto = model(nodes, inputs, ["y"], types=types, constants=constants)
        cases.append(OrtCase(f"{dtype.__name__} {row} {known}", proto, inputs, 0, 0))
    check_all(cases[::3], tmp_path)


def test_ranges_of_whole_numbers_are_no_loops() -> None:
    """A start that is cast from a size, and a step of 1 or 1/2."""
    for step in (1.0, 0.5, 0.1):
        nodes = [node("Cast", "n", "start", to=1), node("Range", "start end step")]
        constants = {"step": np.float32(step)}
        inputs = {"n": np.array(3), "end": np.array(9, np.float32)}
        graph = check(model(nodes, inputs, ["y"], constants=constants), inputs, rtol=0, atol=0)
        assert any(item.op == "scan" for item in graph.nodes) == (step == 0.1)


def test_expand_idiom_of_exporters_stays_symbolic() -> None:
    """Where(Equal(shape, -1), ones, shape) is decided at import."""
    x = floats(2, 1, 3)
    nodes = [
        node("Shape", "x", "s"),
        node("Concat", "k t", "w", axis=0),
        node("Gather", "s zero", "t0"),
        node("Unsqueeze", "t0 axes", "t"),
        node("Equal", "w m", "q"),
        node("ConstantOfShape", "three", "ones"),
        node("Where", "q w1 w", "e"),
        node("Mul", "ones3 one", "w1"),
        node("Expand", "x e2", "y"),
        node("Concat", "t five last", "e2", axis=0),
    ]
    constants = {
        "zero": np.int64(0),
        "axes": np.int64([0]),
        "k": np.int64([-1, 4]),
        "m": np.int64(-1),
        "three": np.int64([3]),
        "ones3": np.int64([1, 1, 1]),
        "one": np.int64(1),
        "five": np.int64([5]),
        "last": np.int64([1]),
    }
    proto = model(
        nodes, {"x": x}, ["y", "e"], constants=constants, types=[1, I64], dims={"x": ["n", 1, 3]}
    )
    graph = check(proto, {"x": x})
    assert not any(n.op in ("where", "read_dims") for n in graph.nodes)


def test_values_computed_at_run_time_become_symbols() -> None:
    x, n = floats(12), np.float32([3.2])
    nodes = [
        node("Floor", "n", "f"),
        node("Cast", "f", "k", to=I64),
        node("Concat", "k m", "s", axis=0),
        node("Reshape", "x s", "y"),
    ]
    proto = model(nodes, {"x": x, "n": n}, ["y"], constants={"m": np.int64([4])})
    graph = check(proto, {"x": x, "n": n})
    assert sum(node.op == "read_dims" for node in graph.nodes) == 1


def test_names_and_symbols_of_inputs() -> None:
    x = floats(2, 3)
    proto = model([node("Relu", "x")], {"x": x}, ["y"], dims={"x": ["batch size", None]})
    graph = load_model(proto)
    assert [value.name for value in graph.inputs] == ["x"]
    assert [value.name for value in graph.outputs] == ["y"]
    assert [str(dim) for dim in graph.inputs[0].shape] == ["batch_size", "x_d1"]
    pinned = load_model(proto, shapes={"x": (2, "m")})
    assert [str(dim) for dim in pinned.outputs[0].shape] == ["2", "m"]


def test_inputs_and_constants_as_outputs() -> None:
    x = floats(2, 3)
    proto = model(
        [node("Identity", "x", "a"), node("Identity", "x", "b"), node("Identity", "c", "d")],
        {"x": x},
        ["a", "b", "d"],
        constants={"c": floats(2)},
    )
    graph = check(proto, {"x": x})
    assert [value.name for value in graph.outputs] == ["a", "b", "d"]


def test_expanding_a_symbolic_dim_that_turns_out_to_be_one() -> None:
    x = {"x": floats(3, 1), "s": np.int64([3, 4])}
    graph = load_model(model([node("Expand", "x s")], x, ["y"], dims={"x": ["N", 1]}))
    assert run_graph(graph, x)["y"].shape == (3, 4)
    assert run_graph(graph, {**x, "s": np.int64([1, 4])})["y"].shape == (3, 4)
    assert run_graph(graph, {"x": floats(1, 1), "s": np.int64([3, 4])})["y"].shape == (3, 4)
    with pytest.raises(RunError, match=r"'Expand:y' .* to be 1 or broadcast"):
        run_graph(graph, {**x, "s": np.int64([2, 4])})


def test_a_squeeze_of_all_axes_needs_sizes_that_stay() -> None:
    x = {"x": floats(2, 1, 3)}
    proto = model([node("Squeeze", "x")], x, ["y"], dims={"x": ["N", 1, 3]})
    graph = check(proto, x)
    with pytest.raises(RunError, match=r"'Squeeze:y' .*N decides .*pin it with --shape"):
        run_graph(graph, {"x": floats(1, 1, 3)})
    proto.graph.output[0].type.tensor_type.shape.dim.add()
    check(proto, {"x": floats(1, 1, 3)})


def test_a_declared_rank_tells_how_many_sizes_there_are() -> None:
    inputs = {"x": floats(2, 6), "s": np.int64([3, 2, 2])}
    for op in ("Reshape", "Expand"):
        proto = model([node(op, "x s")], inputs, ["y"], dims={"s": ["L"], "x": ["N", "M"]})
        if op == "Reshape":
            with pytest.raises(UnsupportedError, match="declare the result's shape"):
                load_model(proto)
        else:  # to as many dimensions as it has, unless more are declared
            with pytest.raises(RunError, match="declare its shape in the model for more"):
                run_graph(load_model(proto), inputs)
        for _ in range(3):
            proto.graph.output[0].type.tensor_type.shape.dim.add()
        x = inputs["x"] if op == "Reshape" else floats(1, 2)
        graph = check(proto, {**inputs, "x": x})
        with pytest.raises(RunError, match="do not make the shape"):
            run_graph(graph, {"x": x, "s": np.int64([3, 4])})


def test_a_list_of_no_axes_squeezes_all() -> None:
    x = {"x": floats(2, 1, 3, 1)}
    check(model([node("Squeeze", "x a")], x, ["y"], constants={"a": np.zeros(0, np.int64)}), x)


@pytest.mark.parametrize("axes", [[1, 1], [1, -1, 0]])
def test_an_axis_that_is_listed_twice_is_reduced_once(axes: list[int]) -> None:
    x, constants = {"x": floats(2, 3)}, {"a": np.int64(axes)}
    check(model([node("ReduceMax", "x a")], x, ["y"], constants=constants, opset=18), x)
