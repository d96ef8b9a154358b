"""A model with exits: what comes out is what running it up to each exit by hand gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.compiler.errors import InvalidModelError, UsageError
from tensmith.driver import cli
from tensmith.driver.budget.metrics import TABLE
from tensmith.driver.cascading.thresholds import (
    JudgedSamples,
    choose_thresholds,
    expected_cost,
    thresholds_of,
)
from tensmith.frontends.onnx import load_model
from tensmith.frontends.onnx.cascading.exits import ExitStages
from tensmith.frontends.onnx.cascading.stages import StagesNote
from tensmith.runtime.counting import Counters
from tensmith.runtime.loader import Module

pytestmark = needs_native
Array = np.ndarray[Any, Any]
ROWS, FEATURES, CLASSES, EXITS = 41, 10, 4, ("early", "middle", "late")


def _model(path: Path, batch: int | str = "batch", skip: bool = True, fold: bool = False) -> Path:
    """Three layers with a head each; `late` also reads the first layer's result and the input."""
    rng = np.random.default_rng(7)
    sizes = {"a": (FEATURES, FEATURES), "b": (FEATURES, FEATURES), "c": (FEATURES, FEATURES)}
    sizes |= {f"h{n}": (FEATURES, CLASSES) for n in range(3)}
    weights = {k: rng.normal(size=s).astype(np.float32) * 0.6 for k, s in sizes.items()}
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "a"], ["xa"]), node("Tanh", ["xa"], ["l0"]),
        node("MatMul", ["l0", "h0"], ["early"]),
        node("MatMul", ["l0", "b"], ["lb"]), node("Tanh", ["lb"], ["l1"]),
        node("MatMul", ["l1", "h1"], ["middle"]),
        node("ReduceMax", ["l1"], ["sure1"], axes=[1], keepdims=1),
        node("ReduceMin", ["x"], ["sure0"], axes=[1], keepdims=1),
    ]  # fmt: skip
    if fold:
        weights["shape"] = np.array([-1, FEATURES // 2], np.int64)
        weights["back"] = np.array([-1, FEATURES], np.int64)
        nodes += [
            node("Reshape", ["l1", "shape"], ["folded"]),
            node("MatMul", ["l1", "h1"], ["unused"]),
            node("Reshape", ["folded", "back"], ["l1c"]),
        ]
    nodes += [
        node("MatMul", ["l1", "c"], ["lc"]),
        node("Add", ["lc", "l0"], ["s0"]) if skip else node("Identity", ["lc"], ["s0"]),
        node("Add", ["s0", "x"], ["s1"]) if skip else node("Identity", ["s0"], ["s1"]),
        node("MatMul", ["s1", "h2"], ["late"]),
    ]
    widths = dict.fromkeys(EXITS, CLASSES) | {"sure0": 1, "sure1": 1}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width])
        for name, width in widths.items()
    ]
    graph = helper.make_graph(
        nodes, "exits", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, FEATURES])],
        outputs, [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@cache
def _whole(model: bytes) -> Module:
    """A compiled model; most tests have the same."""
    return tensmith.compile(onnx.load_from_string(model)).load()


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Iterator[None]:
    yield
    _whole.cache_clear()


def _by_hand(model: Path, x: Array, kinds: tuple[str, ...], cuts: tuple[float, float]) -> Any:
    """Answers and exits of rows, by the whole model."""
    told = _whole(model.read_bytes())({"x": x})
    found, exits = told["late"].copy(), np.full(len(x), 2)
    for stage in (1, 0):
        if kinds[stage % len(kinds)] == "max_softmax":
            powers = np.exp(told[EXITS[stage]])
            sure = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
        else:
            sure = told[kinds[stage % len(kinds)]][:, 0]
        chosen = sure >= np.float32(cuts[stage])
        found[chosen], exits[chosen] = told[EXITS[stage]][chosen], stage
    return found, exits


def _compiled(stages: ExitStages, cuts: tuple[float, ...], folder: Path) -> Any:
    path = folder / "joined.onnx"
    path.write_bytes(stages.joined(cuts).SerializeToString())
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return tensmith.compile(path).load()


X = np.random.default_rng(3).normal(size=(ROWS, FEATURES)).astype(np.float32)


@pytest.mark.parametrize(
    ("kinds", "cuts"),
    [
        (("max_softmax",), (0.6, 0.7)),
        (("max_softmax",), (0.0, 0.0)),
        (("max_softmax",), (1.1, 1.1)),
        (("sure0", "sure1"), (-1.4, 0.9)),
        (("sure0",), (-1.4, -1.9)),
    ],
)
def test_rows_leave_one_by_one(
    tmp_path: Path, kinds: tuple[str, ...], cuts: tuple[float, float]
) -> None:
    model = _model(tmp_path / "m.onnx")
    wanted, exits = _by_hand(model, X, kinds, cuts)
    module = _compiled(ExitStages(model, EXITS, kinds), cuts, tmp_path)
    told = module({"x": X})
    np.testing.assert_array_equal(told["exit"], exits)
    np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)
    counts = np.bincount(exits, minlength=3)
    if cuts[0] not in (0.0, 1.1):
        assert counts.min() > 3
    assert module.counters() == Counters(1, ROWS, ROWS - counts[0], tuple(counts))
    for row in range(4):  # of another size, in the same instance
        one = module({"x": X[row : row + 1]})
        np.testing.assert_array_equal(one["exit"], exits[row : row + 1])
        np.testing.assert_allclose(one["late"], wanted[row : row + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch", "single"), [(1, False), ("batch", True), (4, False)])
def test_fixed_batches(tmp_path: Path, batch: int | str, single: bool) -> None:
    model, cuts = _model(tmp_path / "m.onnx", batch), (0.6, 0.7)
    rows = batch if isinstance(batch, int) else 1
    module = _compiled(ExitStages(model, EXITS, single=single), cuts, tmp_path)
    for first in range(0, 40, rows):
        x = X[first : first + rows]
        wanted, exits = _by_hand(model, x, ("max_softmax",), cuts)
        told = module({"x": x})
        np.testing.assert_array_equal(told["exit"], exits)
        np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)


def test_what_lies_behind_reads_folded_rows(tmp_path: Path) -> None:
    """A value whose rows are not apart may stay where it is; it may not go behind an exit."""
    model = onnx.load(_model(tmp_path / "m.onnx", fold=True))
    nodes = {node.output[0]: node for node in model.graph.node}
    nodes["lc"].input[0] = "l1c"
    onnx.save(model, tmp_path / "m.onnx")
    wanted, exits = _by_hand(tmp_path / "m.onnx", X, ("max_softmax",), (0.6, 0.7))
    told = _compiled(ExitStages(tmp_path / "m.onnx", EXITS), (0.6, 0.7), tmp_path)({"x": X})
    np.testing.assert_array_equal(told["exit"], exits)
    np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)
    nodes["unused"].input[0] = "folded"  # now the middle exit makes the folded value
    nodes["unused"].input[1] = "half"
    half = np.ones((FEATURES // 2, 1), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(half, "half"))
    model.graph.node.extend(
        [helper.make_node("ReduceMean", ["unused"], ["mean"], keepdims=0),
         helper.make_node("Add", ["sure1", "mean"], ["sure2"])]
    )  # fmt: skip
    model.graph.output.append(
        helper.make_tensor_value_info("sure2", TensorProto.FLOAT, ["batch", 1])
    )
    onnx.save(model, tmp_path / "m.onnx")
    stages = ExitStages(tmp_path / "m.onnx", EXITS, ("sure0", "sure2"))
    with pytest.raises(UsageError, match="its rows are not apart"):
        stages.joined((0.0, 0.0))


def _behind_middle(folder: Path, batch: int | str, nodes: list[onnx.NodeProto]) -> Path:
    """The model with nodes that make `mixed` of `l1` in front of what `late` alone reads."""
    model = onnx.load(_model(folder / "m.onnx", batch))
    place = next(n for n, node in enumerate(model.graph.node) if node.output[0] == "lc")
    model.graph.node[place].input[0] = "mixed"
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*rest[:place], *nodes, *rest[place:]])
    for name, value in {"zero": [0], "ten": [10], "minus": [-1], "least": [-(2**60)]}.items():
        tensor = numpy_helper.from_array(np.array(value, np.int64), name)
        model.graph.initializer.append(tensor)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


_NODE = helper.make_node
_ALONG_ROWS = {
    "mean": [
        _NODE("ReduceMean", ["l1"], ["mean"], axes=[0], keepdims=1),
        _NODE("Sub", ["l1", "mean"], ["mixed"]),
    ],
    "largest": [
        _NODE("ReduceMax", ["l1"], ["most"], keepdims=0),
        _NODE("Div", ["l1", "most"], ["mixed"]),
    ],
    "softmax": [_NODE("Softmax", ["l1"], ["mixed"], axis=0)],
    "sums": [_NODE("CumSum", ["l1", "zero"], ["mixed"])],
    "turned": [_NODE("Slice", ["l1", "minus", "least", "zero", "minus"], ["mixed"])],
    "first": [
        _NODE("Gather", ["l1", "zero"], ["first"], axis=0),
        _NODE("Add", ["l1", "first"], ["mixed"]),
    ],
}
_APART = {
    "mean": [
        _NODE("ReduceMean", ["l1"], ["mean"], axes=[1], keepdims=1),
        _NODE("Sub", ["l1", "mean"], ["mixed"]),
    ],
    "softmax": [_NODE("Softmax", ["l1"], ["mixed"], axis=1)],
    "turned": [_NODE("Slice", ["l1", "minus", "least", "one", "minus"], ["mixed"])],
    "gathered": [_NODE("Gather", ["l1", "order"], ["mixed"], axis=1)],
}


@pytest.mark.parametrize("kind", _ALONG_ROWS)
def test_what_goes_along_rows_is_not_gathered(tmp_path: Path, kind: str) -> None:
    model = _behind_middle(tmp_path, "batch", _ALONG_ROWS[kind])
    with pytest.raises(UsageError, match=r"goes along the rows .* its rows are not apart"):
        ExitStages(model, EXITS).joined((0.6, 0.7))
    ExitStages(model, EXITS, single=True).joined((0.6, 0.7))


@pytest.mark.parametrize("kind", _APART)
def test_what_goes_along_features_is_gathered(tmp_path: Path, kind: str) -> None:
    model = onnx.load(_behind_middle(tmp_path, "batch", _APART[kind]))
    for name, value in {"one": [1], "order": list(range(FEATURES))[::-1]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    onnx.save(model, tmp_path / "m.onnx")
    wanted, exits = _by_hand(tmp_path / "m.onnx", X, ("max_softmax",), (0.6, 0.7))
    told = _compiled(ExitStages(tmp_path / "m.onnx", EXITS), (0.6, 0.7), tmp_path)({"x": X})
    np.testing.assert_array_equal(told["exit"], exits)
    np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)


def test_rows_may_see_each_other_in_front_of_the_first_exit(tmp_path: Path) -> None:
    """Nothing is gathered there."""
    model = onnx.load(_model(tmp_path / "m.onnx"))
    first = model.graph.node[0]
    assert first.output[0] == "xa"
    first.input[0] = "mixed"
    rest = list(model.graph.node)
    del model.graph.node[:]
    mean = _NODE("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1)
    model.graph.node.extend([mean, _NODE("Sub", ["x", "mean"], ["mixed"]), *rest])
    onnx.save(model, tmp_path / "m.onnx")
    wanted, exits = _by_hand(tmp_path / "m.onnx", X, ("max_softmax",), (0.6, 0.7))
    told = _compiled(ExitStages(tmp_path / "m.onnx", EXITS), (0.6, 0.7), tmp_path)({"x": X})
    np.testing.assert_array_equal(told["exit"], exits)
    np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", ["batch", 4])
def test_rows_that_see_each_other_are_not_gathered(tmp_path: Path, batch: int | str) -> None:
    """Attention among rows behind the middle exit: a fixed batch runs as a whole."""
    mixing = [
        helper.make_node("Transpose", ["l1"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["l1", "turned"], ["among"]),
        helper.make_node("MatMul", ["among", "l1"], ["mixed"]),
    ]
    _behind_middle(tmp_path, batch, mixing)
    stages = ExitStages(tmp_path / "m.onnx", EXITS)
    if batch == "batch":
        with pytest.raises(UsageError, match="its rows are not apart"):
            stages.joined((0.6, 0.7))
        ExitStages(tmp_path / "m.onnx", EXITS, single=True).joined((0.6, 0.7))
        return
    wanted, exits = _by_hand(tmp_path / "m.onnx", X[:4], ("max_softmax",), (0.6, 0.7))
    told = _compiled(stages, (0.6, 0.7), tmp_path)({"x": X[:4]})
    np.testing.assert_array_equal(told["exit"], exits)
    np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [(TensorProto.FLOAT16, "f16"), (TensorProto.FLOAT, "f32"), (TensorProto.INT64, "")],
)
def test_a_noted_output_has_numbers_of_stages(kind: int, shown: str) -> None:
    x, y = (helper.make_tensor_value_info(name, kind, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "noted", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    StagesNote("y", 2).write(model)
    if not shown:
        assert load_model(model).meanings["y"].stages == 2
        return
    with pytest.raises(InvalidModelError, match=f"'y' is noted to tell stages, and is {shown}"):
        load_model(model)


@pytest.mark.parametrize(
    ("exits", "confidence", "message"),
    [
        (("late",), ("margin",), "two different exits"),
        (("early", "early"), ("margin",), "two different exits"),
        (tuple(f"e{n}" for n in range(17)), ("margin",), "17 exits: a cascade has 16 at most"),
        (EXITS, ("margin",) * 3, "3 confidences for 2 early"),
        (("early", "nothing"), ("margin",), "has no output 'nothing'"),
        (("sure0", "late"), ("margin",), "the exit 'sure0' is float"),
        (("early", "late"), ("beauty",), "no output 'beauty'"),
    ],
)
def test_exits_that_cannot_be(
    tmp_path: Path, exits: tuple[str, ...], confidence: tuple[str, ...], message: str
) -> None:
    model = _model(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=message):
        ExitStages(model, exits, confidence).joined((0.5,) * (len(exits) - 1))


def test_the_limit_goes_where_it_saves_most() -> None:
    """The second stage is right wherever it is sure, and the first is only ever lucky."""
    rng, count = np.random.default_rng(0), 600
    sure = [rng.random(count).astype(np.float32) for _ in range(2)]
    first = [np.array([float(right)]) for right in rng.random(count) < 0.6]
    second = [np.array([float(own > 0.3)]) for own in sure[1]]
    samples = JudgedSamples(TABLE["top1"], [first, second, [np.ones(1)] * count], sure)
    costs = (1.0, 1.0, 20.0)
    found = choose_thresholds(samples, 0.02, costs)
    assert found.chosen_drop <= 0.02
    assert found.answered[1] > 0.5
    alone = choose_thresholds(
        JudgedSamples(TABLE["top1"], samples.stages[::2], sure[:1]), 0.02, (1.0, 21.0)
    )
    above = thresholds_of(samples.part(0).confidences[1])[-1]
    one = expected_cost(samples.part(0), (*alone.thresholds, above), costs)
    assert expected_cost(samples.part(0), found.thresholds, costs) < one


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = _model(tmp_path / "m.onnx")
    x = np.random.default_rng(5).normal(size=(300, FEATURES)).astype(np.float32)
    labels = _whole(model.read_bytes())({"x": x})["late"].argmax(axis=1)
    np.savez(tmp_path / "eval.npz", x=x, labels=labels)
    words = [
        "cascade", str(model), "--exits", "early,middle,late", "--eval", str(tmp_path / "eval.npz"),
        "--max-accuracy-drop", "10%", "-o", str(tmp_path / "both.so"), "--json",
    ]  # fmt: skip
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    choice = told["report"]["choice"]
    assert sum(choice["answered"]) == pytest.approx(1)
    assert 0 < choice["chosen_answered"][2] < 1
    assert choice["chosen_drop"] <= 0.1
    assert told["report"]["predicted"]["last"]["kind"] == "modelled"
    module = tensmith.load(tmp_path / "both.so")
    got = module({"x": x})
    wanted, exits = _by_hand(model, x, ("max_softmax",), tuple(choice["thresholds"]))
    np.testing.assert_array_equal(got["exit"], exits)
    np.testing.assert_allclose(got["late"], wanted, rtol=1e-4, atol=1e-5)
    assert cli.main(["cascade", str(model)]) == 2
    assert cli.main([*words, "--router", str(model)]) == 2
