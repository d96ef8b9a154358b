"""ONNX models with sizes that only a run knows, and nested control flow, compiled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import Job, Setting, compile_graph, run_all
from frontends.oracle import floats, model, node, run_ort
from onnx import TensorProto, helper

from tensmith.backends.common.link import link
from tensmith.driver.shapes import ShapeSpecs, parse_shapes
from tensmith.frontends.onnx import load_model
from tensmith.runtime.loader import ModuleError, load

F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
SETTING = Setting("native", 2)
Case = tuple[onnx.ModelProto, Mapping[str, np.ndarray]]


def info(name: str, kind: int, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def selection() -> dict[str, Case]:
    """How many elements come out depends on the data."""
    x = np.float32([[1, 0, 2, 0], [0, 3, 0, 3], [1, 0, 2, 0]])
    dims = {"x": ["N", "M"]}
    boxes = np.float32([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 2, 1, 3], [5, 5, 6, 6]]])
    scores = np.float32([[[0.9, 0.8, 0.7, 0.1], [0.2, 0.3, 0.9, 0.95]]])
    limits = {"most": np.int64([2]), "overlap": np.float32([0.5]), "least": np.float32([0.15])}
    found: dict[str, Case] = {
        "nonzero": (
            model([node("NonZero", "x", "i"), node("Cast", "i", to=F)], {"x": x}, ["y"], dims=dims),
            {"x": x},
        ),
        "where": (
            model(
                [
                    node("NonZero", "x", "i"),
                    node("Transpose", "i", "t", perm=[1, 0]),
                    node("GatherND", "x t", "y"),
                ],
                {"x": x},
                ["y"],
                dims=dims,
            ),
            {"x": x},
        ),
        "compress": (
            model(
                [
                    node("Greater", "x z", "c"),
                    node("Reshape", "c minus", "f"),
                    node("Compress", "x f", "k"),
                    node("Mul", "k k"),
                ],
                {"x": x},
                ["y"],
                dims=dims,
                constants={"z": np.float32(0.5), "minus": np.int64([-1])},
            ),
            {"x": x},
        ),
        "nms": (
            model(
                [
                    node("NonMaxSuppression", "boxes scores most overlap least", "i"),
                    node("Cast", "i", to=F),
                ],
                {"boxes": boxes, "scores": scores},
                ["y"],
                dims={"boxes": [1, "K", 4], "scores": [1, 2, "K"]},
                constants=limits,
            ),
            {"boxes": boxes, "scores": scores},
        ),
    }
    for axis in (0, 1):
        unique = node("Unique", "x", "u i j k", axis=axis)
        names, types = ["u", "i", "j", "k"], [F, I64, I64, I64]
        proto = model([unique], {"x": x}, names, dims=dims, types=types)
        found[f"unique_{axis}"] = (proto, {"x": x})
    return found


def loop_body(nodes: list[onnx.NodeProto], kind: Sequence[int | str | None]) -> onnx.GraphProto:
    """(i, c, acc) -> (c2, acc2, row)."""
    ins = [info("i", I64, []), info("c", B, []), info("acc", F, kind)]
    outs = [info("c2", B, []), info("acc2", F, kind), info("row", F, kind)]
    return helper.make_graph([*nodes, node("Identity", "c", "c2")], "body", ins, outs)


def inner_loop() -> onnx.GraphProto:
    """(j, d, b) -> (d, b + x)."""
    return helper.make_graph(
        [node("Add", "b x", "b2"), node("Identity", "d", "d2")],
        "inner",
        [info("j", I64, []), info("d", B, []), info("b", F, [3])],
        [info("d2", B, []), info("b2", F, [3])],
    )


def nested() -> dict[str, Case]:
    """Loops in loops, branches in loops and scans in branches, with states and stacked results."""
    then = helper.make_graph([node("Mul", "half two", "t")], "then", [], [info("t", F, [3])])
    other = helper.make_graph([node("Neg", "half", "e")], "else", [], [info("e", F, [3])])
    branching = loop_body(
        [
            node("Add", "acc x", "half"),
            node("Mod", "i i2", "m"),
            node("Equal", "m i0", "even"),
            helper.make_node("If", ["even"], ["acc2"], then_branch=then, else_branch=other),
            node("Identity", "acc2", "row"),
        ],
        [3],
    )
    step = helper.make_graph(
        [node("Add", "s e", "s2"), node("Mul", "s2 e", "o")],
        "step",
        [info("s", F, [3]), info("e", F, [3])],
        [info("s2", F, [3]), info("o", F, [3])],
    )
    scanning = loop_body(
        [
            helper.make_node("Scan", ["acc", "rows"], ["acc2", "os"], body=step, num_scan_inputs=1),
            node("ReduceMax", "os", "row", axes=[0], keepdims=0),
        ],
        [3],
    )
    twice = loop_body(
        [  # round i runs the inner loop i times
            helper.make_node("Loop", ["i", "true", "acc"], ["acc2"], body=inner_loop()),
            node("Identity", "acc2", "row"),
        ],
        [3],
    )
    growing = loop_body(
        [node("Concat", "acc x", "acc2", axis=0), node("ReduceSum", "acc2", "row", keepdims=1)],
        ["L"],
    )
    x, rows = floats(3), floats(4, 3, seed=1)
    constants = {
        "two": np.float32(2),
        "i2": np.int64(2),
        "i0": np.int64(0),
        "true": np.array(True),
    }
    found: dict[str, Case] = {}
    bodies = {"if_in_loop": branching, "scan_in_loop": scanning, "loop_in_loop": twice}
    for name, body in (bodies | {"growing": growing}).items():
        for trip in (0, 4):
            if name == "growing" and not trip:
                continue  # without a round the shape of its rows is not defined
            loop = helper.make_node("Loop", ["trip", "true", "x"], ["last", "all"], body=body)
            inputs = {"trip": np.array(trip), "x": x, "rows": rows}
            proto = model([loop], inputs, ["last", "all"], constants=constants, opset=12)
            found[f"{name}_{trip}"] = (proto, inputs)
    return found


@pytest.mark.parametrize("build", [selection, nested])
def test_models_of_sizes_that_data_decides(tmp_path: Path, build: type[dict[str, Case]]) -> None:
    if missing := SETTING.missing():
        pytest.skip(missing)
    cases = build()
    jobs = {name: Job(load_model(proto), inputs) for name, (proto, inputs) in cases.items()}
    results = run_all(jobs, SETTING, tmp_path)
    for name, (proto, inputs) in cases.items():
        got = results[name]
        assert isinstance(got, dict), f"{name}: {got!r}"
        for key, want in run_ort(proto, dict(inputs)).items():
            np.testing.assert_allclose(got[key], want, 1e-5, 1e-6, err_msg=name, strict=True)


def encoder() -> onnx.ModelProto:
    """Convolution, rows of positions, attention weights: batch and sequence are symbols."""
    w, v = floats(6, 4, 3, seed=2), floats(6, 6, seed=3)
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1]),
        node("Transpose", "c", "t", perm=[0, 2, 1]),
        node("MatMul", "t v", "q"),
        node("Transpose", "t", "k", perm=[0, 2, 1]),
        node("MatMul", "q k", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p t", "y"),
    ]
    x = {"x": floats(2, 4, 5)}
    return model(nodes, x, ["y"], dims={"x": ["B", 4, "S"]}, constants={"w": w, "v": v})


def test_one_library_serves_every_size(tmp_path: Path) -> None:
    if missing := SETTING.missing():
        pytest.skip(missing)
    proto = encoder()
    compiled = compile_graph(load_model(proto), SETTING, tmp_path)
    with load(link(compiled, "so", tmp_path / "m.so")[0]) as module:
        for batch, length in [(1, 1), (2, 7), (3, 16), (1, 129), (5, 2), (2, 7), (0, 4)]:
            x = {"x": floats(batch, 4, length, seed=batch)}
            want = run_ort(proto, x)["y"] if batch else np.zeros((0, length, 6), np.float32)
            np.testing.assert_allclose(module(x)["y"], want, 1e-4, 1e-4, strict=True)


def test_limits_of_a_dimension_are_checked_by_every_run(tmp_path: Path) -> None:
    if missing := SETTING.missing():
        pytest.skip(missing)
    inputs = {"a": floats(2, 3), "b": floats(2, 3)}
    proto = model([node("Add", "a b")], inputs, ["y"], dims={"a": ["B", "S"], "b": ["B", 3]})
    graph = load_model(proto, shapes={"a": ("2..4", "1..3")})
    with load(link(compile_graph(graph, SETTING, tmp_path), "so", tmp_path / "m.so")[0]) as module:
        for rows in (2, 4):
            assert module(floats(rows, 3), floats(rows, 3))["y"].shape == (rows, 3)
        for rows in (1, 5):
            message = rf"input 'a': dimension 0 \(B\): expected 2 to 4, got {rows}"
            with pytest.raises(ModuleError, match=message):
                module(floats(rows, 3), floats(rows, 3))
        with pytest.raises(ModuleError, match=r"input 'a': dimension 1 \(S\): expected 1 to 3"):
            module(floats(2, 4), floats(2, 3))
        with pytest.raises(ModuleError, match="expected 4 as in dimension 0 of input 'a', got 2"):
            module(floats(4, 3), floats(2, 3))


def test_a_shared_size_is_freed_as_the_run_says(tmp_path: Path) -> None:
    """Of a name that --shape cannot spell, too."""
    if missing := SETTING.missing():
        pytest.skip(missing)
    inputs = {"a": floats(2, 3), "b": floats(4, 3)}
    proto = model(
        [node("Neg", "a", "y"), node("Neg", "b", "z")],
        inputs,
        ["y", "z"],
        dims={"a": ["rows of a", 3], "b": ["rows of a", "S"]},
    )
    shapes: ShapeSpecs = {}
    for attempt in ("refused", "taken"):
        graph = load_model(proto, shapes=shapes)
        folder = tmp_path / attempt
        folder.mkdir()
        code = compile_graph(graph, SETTING, folder)
        with load(link(code, "so", folder / "m.so")[0]) as module:
            if shapes:
                assert module(inputs)["z"].shape == (4, 3)
                continue
            with pytest.raises(ModuleError) as error:
                module(inputs)
        argument = re.search("--shape '(.*?)'", str(error.value))
        assert argument is not None
        shapes = parse_shapes([argument[1]])
        assert shapes == {"b": ("?", "S")}
