"""A model with exits: what comes out is what running it up to each exit by hand gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from exit_models import (
    EXITS,
    FEATURES,
    ROWS,
    X,
    by_hand,
    compiled_exits,
    exits_model,
    whole_model,
)
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

pytestmark = needs_native


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Iterator[None]:
    yield
    whole_model.cache_clear()


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
    model = exits_model(tmp_path / "m.onnx")
    wanted, exits = by_hand(model, X, kinds, cuts)
    module = compiled_exits(ExitStages(model, EXITS, kinds), cuts, tmp_path)
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
    model, cuts = exits_model(tmp_path / "m.onnx", batch), (0.6, 0.7)
    rows = batch if isinstance(batch, int) else 1
    module = compiled_exits(ExitStages(model, EXITS, single=single), cuts, tmp_path)
    for first in range(0, 40, rows):
        x = X[first : first + rows]
        wanted, exits = by_hand(model, x, ("max_softmax",), cuts)
        told = module({"x": x})
        np.testing.assert_array_equal(told["exit"], exits)
        np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)


def test_what_lies_behind_reads_folded_rows(tmp_path: Path) -> None:
    """A value whose rows are not apart may stay where it is; it may not go behind an exit."""
    model = onnx.load(exits_model(tmp_path / "m.onnx", fold=True))
    nodes = {node.output[0]: node for node in model.graph.node}
    nodes["lc"].input[0] = "l1c"
    onnx.save(model, tmp_path / "m.onnx")
    wanted, exits = by_hand(tmp_path / "m.onnx", X, ("max_softmax",), (0.6, 0.7))
    told = compiled_exits(ExitStages(tmp_path / "m.onnx", EXITS), (0.6, 0.7), tmp_path)({"x": X})
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
    model = exits_model(tmp_path / "m.onnx")
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
    model = exits_model(tmp_path / "m.onnx")
    x = np.random.default_rng(5).normal(size=(300, FEATURES)).astype(np.float32)
    labels = whole_model(model.read_bytes())({"x": x})["late"].argmax(axis=1)
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
    wanted, exits = by_hand(model, x, ("max_softmax",), tuple(choice["thresholds"]))
    np.testing.assert_array_equal(got["exit"], exits)
    np.testing.assert_allclose(got["late"], wanted, rtol=1e-4, atol=1e-5)
    assert cli.main(["cascade", str(model)]) == 2
    assert cli.main([*words, "--router", str(model)]) == 2
