"""Which products stay in floats for the noise that they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

from tensmith.compiler.errors import ModelWarning
from tensmith.driver import api, calibrated_search, float_parts
from tensmith.driver.artifacts import Artifact
from tensmith.driver.float_parts import LOOKED_AT, RUNS, FloatParts, fewest, least_noise
from tensmith.driver.quantisation import quantise, summary_of
from tensmith.driver.request import CompileRequest
from tensmith.driver.timing import Runs
from tensmith.frontends.onnx.quantising.switching import switch_of

WORK = {"a": 6.0, "b": 1.0, "c": 5.0, "d": 1.0}


def chosen(parts: Mapping[str, float], budget: float) -> frozenset[str]:
    """Of products whose noise adds up."""

    def power(floats: frozenset[str]) -> float:
        return sum(own for key, own in parts.items() if key not in floats)

    return least_noise(power, parts, WORK, budget)


def test_what_makes_most_of_the_noise_comes_first() -> None:
    """Small products take no room that the one that matters needs."""
    assert chosen({"a": 10.0, "b": 2.0, "c": 1.0}, 6.5) == {"a"}


def test_small_products_are_taken_where_they_save_more_together() -> None:
    assert chosen({"a": 5.0, "b": 4.0, "c": 0.1, "d": 4.0}, 6.0) == {"b", "d"}


def test_products_that_make_little_stay_integer() -> None:
    assert chosen({"a": 10.0, "b": 0.1, "c": 10.0}, 100.0) == {"a", "c"}
    assert chosen({"a": 1.0}, 5.0) == frozenset()
    assert chosen({"a": 0.0, "b": 0.0}, 100.0) == frozenset()


def test_noise_that_two_products_share_goes_with_both() -> None:
    """Errors that cancel each other: one alone saves less than with the other."""

    def power(floats: frozenset[str]) -> float:
        return {0: 10.0, 1: 9.0, 2: 1.0}[len(floats & {"b", "d"})] + ("a" not in floats)

    assert least_noise(power, ["a", "b", "d"], WORK, 6.0) == {"b", "d"}


def test_few_of_an_order_are_taken_if_they_are_enough() -> None:
    def power(floats: frozenset[str]) -> float:
        return 1.0 if {"c", "a"} <= floats else 20.0

    assert fewest(power, ["c", "a", "d", "b", "e"]) == {"c", "a"}
    assert fewest(power, ["c", "d", "a", "b", "e"]) == {"c", "d", "a", "b"}
    assert fewest(power, ["c", "d", "e", "b", "a"]) == {"a", "b", "c", "d", "e"}


def spectral(folder: Path, pieces: int = 16, size: int = 32) -> tuple[Path, dict[str, Any]]:
    """The logarithm of a small power, which is a sum of many, in front of large products."""
    drawn = np.random.default_rng(0).standard_normal
    strong = drawn((pieces, size))
    weights = drawn((pieces, size, 8))
    along = np.einsum("ps,psc->pc", strong, weights) / np.sum(strong**2, 1)[:, None]
    weights -= strong[:, :, None] * along[:, None, :]  # what is strong in the data is no part of it
    names = [f"p{n}" for n in range(pieces)]
    nodes = [helper.make_node("Split", ["x"], [f"x{n}" for n in range(pieces)], axis=1)]
    for n, name in enumerate(names):
        nodes += [
            helper.make_node("MatMul", [f"x{n}", f"w{n}"], [name], name),
            helper.make_node("Mul", [name, name], [f"{name}_squared"]),
        ]
    nodes += [
        helper.make_node("Sum", [f"{name}_squared" for name in names], ["power"]),
        helper.make_node("Log", ["power"], ["log"]),
        helper.make_node("MatMul", ["log", "a"], ["h"], "wide"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"], "last"),
    ]
    constants = {f"w{n}": own for n, own in enumerate(weights)}
    constants |= {"a": drawn((8, 256)), "b": drawn((256, 256))}
    shape = (1, pieces * size)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 256))],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save_model(model, folder / "net.onnx")
    data = drawn((8, 1, pieces, 1)) * strong + 1e-4 * drawn((8, 1, pieces, size))
    return folder / "net.onnx", {"x": data.reshape(8, *shape).astype(np.float32)}


@needs_native
def test_products_that_matter_together_alone_stay_in_floats_together(tmp_path: Path) -> None:
    """Each by itself gains nothing: what is left of the others' noise hides the power as well."""
    path, data = spectral(tmp_path)
    request = CompileRequest(precision="int8", calibration=data)
    (tmp_path / "work").mkdir()
    found = quantise(path, tmp_path / "q.onnx", request, tmp_path / "work")
    precisions = {row.name: row.precision for row in found.products}
    assert {precisions.pop("wide"), precisions.pop("last")} == {"int8"}
    assert set(precisions.values()) == {"fp32"}
    assert found.tried["float parts"] > found.tried["minmax"] + 20


class Switches:
    """A model of equal products whose noise in the outputs a function tells of those in floats."""

    def __init__(self, count: int, noise: Callable[[frozenset[str]], float]) -> None:
        self.keys = [f"p{n:03}" for n in range(count)]
        self.noise, self.groups, self.runs = noise, [["none"]], 0
        self.products = [
            SimpleNamespace(key=key, terms=1, last=False, data="x") for key in self.keys
        ]

    def scores(self) -> list[str]:
        return []

    def switched(self, recipe: Any, groups: list[list[str]], scores: Any) -> None:
        self.groups = groups

    def run(self, given: Mapping[str, Any]) -> frozenset[str]:
        self.runs += 1
        off = [own for n, own in enumerate(self.groups) if not given[switch_of(n)]]
        return frozenset(key for own in off for key in own)

    def chosen(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> frozenset[str]:
        each: dict[str, float] = dict.fromkeys(self.keys, 1.0)
        monkeypatch.setattr(FloatParts, "_local", lambda parts, *_: (each, each))
        monkeypatch.setattr(float_parts, "compiled_graph", lambda *_: self.run)
        monkeypatch.setattr(
            float_parts, "share_of_noise", lambda pairs: next(self.noise(f) for _, f in pairs)
        )
        source: Any = self
        recipe: Any = SimpleNamespace(integer=frozenset(self.keys))
        parts = FloatParts(source, recipe, [({}, {})] * LOOKED_AT, [], {})
        return parts.chosen(folder, 1, lambda text: None)


def test_large_models_have_few_switches_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many products there are: here 250 are within the share of work."""
    model = Switches(2000, lambda floats: 0.0 if len(floats) > 100 else 1.0)
    found = model.chosen(tmp_path, monkeypatch)
    assert 100 < len(found) <= RUNS
    assert len(model.groups) <= RUNS + RUNS // LOOKED_AT + 1
    assert model.runs <= 4 * RUNS


def test_noise_that_is_no_number_is_no_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Switches(64, lambda floats: math.nan if len(floats) > 2 else 1.0)
    assert model.chosen(tmp_path, monkeypatch) == frozenset()


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of two products, of which the first stays in floats for its noise."""
    monkeypatch.setenv("TENSMITH_TIME_PRECISION", "on")
    monkeypatch.setattr(calibrated_search, "GAIN", 0.0)
    monkeypatch.setattr(FloatParts, "chosen", lambda parts, *_: {parts.products[0].key})
    drawn = np.random.default_rng(0).standard_normal
    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["p"], "first"),
        helper.make_node("MatMul", ["p", "m"], ["y"], "last"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (2, 16)) for n in "xy")
    weights = numpy_helper.from_array(drawn((16, 16)).astype(np.float32), "m")
    graph = helper.make_graph(nodes, "net", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(onnx.shape_inference.infer_shapes(model), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


class Clock:
    """Seconds of int8, one call after the other; fp32 takes 2, making bytes nothing. timed: what
    was."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.timed = [*seconds], list[set[str]]()

    def __call__(self, runs: Runs) -> Mapping[str, list[float]]:
        self.timed.append(set(runs))
        if "bytes" in runs:
            return {"bytes": [0.0]}
        return {"int8": [self.seconds.pop(0)], "fp32": [2.0]}


def compiled(path: Path, clock: Clock) -> Artifact:
    data = {"x": np.random.default_rng(1).standard_normal((4, 2, 16)).astype(np.float32)}
    return api.compile_request(
        path, CompileRequest(precision="int8", calibration=data, timer=clock)
    )


@needs_native
def test_the_binary_with_float_parts_is_what_is_timed(fragile: Path) -> None:
    """It is kept where it is faster than the one of floats, and tells which products are floats."""
    clock = Clock(1.0)
    found = compiled(fragile, clock)
    assert clock.timed == [{"int8", "fp32"}]
    assert found.manifest["precision"] == "int8"
    [line] = [line for line in summary_of(found.manifest) if line.startswith("in floats")]
    assert line.startswith("in floats: MatMul 'first': it makes much of the noise")


@needs_native
def test_float_parts_that_take_too_long_are_left_out(fragile: Path) -> None:
    """Before the model is compiled in fp32; errors are told with that."""
    clock = Clock(3.0, 1.0)
    with pytest.warns(ModelWarning, match=r"most exact model in int8 .* \(3000 ms, fp32 2000 ms\)"):
        found = compiled(fragile, clock)
    assert not clock.seconds
    assert found.manifest["precision"] == "int8"
    assert [row["precision"] for row in found.manifest["contractions"]] == ["int8", "int8"]
    assert found.choice is not None
    assert found.choice.seconds == {"int8": 1.0, "fp32": 2.0}
    assert found.verify().status == "passed"
    with pytest.warns(ModelWarning, match="compiled in fp32: int8 is not faster on this machine"):
        slow = compiled(fragile, Clock(3.0, 2.5, 2.5, 2.5))  # the two products, too
    assert slow.manifest["precision"] == "fp32"
