"""Calls like the last one, which the library answers without the loader's own checks."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cplans import make_model, needs_x86
from together import run_together

from tensmith.backends.common.link import link
from tensmith.runtime import repeat
from tensmith.runtime.loader import Module, ModuleError, load
from tensmith.runtime.slots import Output

pytestmark = needs_x86


@pytest.fixture(scope="module")
def symbolic_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    return link(make_model("symbolic", folder), "so", folder / "symbolic.so")[0]


def feed(value: float, rows: int = 40, columns: int = 300) -> dict[str, Any]:
    """Inputs of the plan "symbolic": its output "scaled" is large, the others are small."""
    a = np.full((rows, columns), value, np.float32)
    return {"a": a, "s": np.full(columns, 2, np.float32)}


def check(out: dict[str, np.ndarray], value: float, rows: int = 40, columns: int = 300) -> None:
    assert list(out) == ["rows", "scaled", "total"]
    np.testing.assert_array_equal(out["rows"], np.full(rows, columns * value))
    np.testing.assert_array_equal(out["scaled"], np.full((rows, columns), 2 * value))
    assert out["total"] == rows * columns * value


@pytest.fixture
def warm(symbolic_path: Path) -> Iterator[Module]:
    """A module whose next call may be a repetition."""
    with load(symbolic_path) as module:
        for value in range(2):
            check(module(feed(value)), value)
        yield module


@pytest.fixture
def only_repeats(warm: Module, monkeypatch: pytest.MonkeyPatch) -> Module:
    """A module that fails at a call that is no repetition."""

    def refuse(inputs: Any) -> Any:
        raise AssertionError("not a repetition")

    monkeypatch.setattr(warm, "_arrays", refuse)
    return warm


def test_inputs_that_are_converted_first(warm: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(arrays: Any) -> None:
        raise AssertionError("not a repetition")

    monkeypatch.setattr(warm, "_bind_call", refuse)
    for value in range(5):
        inputs = feed(value)
        check(warm({**inputs, "s": inputs["s"].tolist()}), value)
        check(warm(np.asfortranarray(inputs["a"]), inputs["s"]), value)


def test_calls_by_name_in_any_order_and_by_position(only_repeats: Module) -> None:
    for value in range(5):
        inputs = feed(value)
        check(only_repeats(inputs), value)
        check(only_repeats(dict(reversed(inputs.items()))), value)
        check(only_repeats(inputs["a"], inputs["s"]), value)


def test_arrays_that_cannot_be_written(only_repeats: Module) -> None:
    inputs = feed(3)
    inputs["a"].flags.writeable = False
    check(only_repeats(inputs), 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [("f4", b"f"), ("f2", b"e"), ("i8", b"l"), ("u1", b"B"), ("?", b"?"), ("bfloat16", None)],
)
def test_formats_of_element_types(name: str, text: bytes | None) -> None:
    pytest.importorskip("ml_dtypes")
    assert repeat._format(np.dtype(name)) == text


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.astype(np.float64)[:, :].astype(a.dtype.newbyteorder()),
        lambda a: a.astype(np.float64),
        lambda a: a.view(np.int32),
        lambda a: a[:, ::-1],
        lambda a: np.asfortranarray(a),
        lambda a: a[:-1],
        lambda a: a[0],
        lambda a: a.tolist(),
        lambda a: memoryview(a),
        lambda a: "text",
        lambda a: None,
    ],
)
def test_what_is_not_alike_is_not_run(only_repeats: Module, change: Callable[..., Any]) -> None:
    good = feed(1)
    bad = {**good, "a": change(good["a"])}
    for _ in range(3):
        with pytest.raises(AssertionError, match="not a repetition"):
            only_repeats(bad)
        with pytest.raises(AssertionError, match="not a repetition"):
            only_repeats(bad["a"], bad["s"])
        check(only_repeats(good), 1)


@pytest.mark.parametrize("names", [("a",), ("a", "t"), ("a", "s", "t"), ()])
def test_other_names_are_not_alike(only_repeats: Module, names: tuple[str, ...]) -> None:
    array = np.ones((40, 300), np.float32)
    with pytest.raises(AssertionError, match="not a repetition"):
        only_repeats({name: array for name in names})
    check(only_repeats(feed(2)), 2)


def test_another_shape_ends_the_repetition_of_the_last(warm: Module) -> None:
    for rows in (40, 7, 7, 7, 40, 40, 0, 0, 40):
        check(warm(feed(2, rows)), 2, rows)


def test_arrays_are_not_kept(only_repeats: Module) -> None:
    inputs = feed(1)
    before = [sys.getrefcount(value) for value in (*inputs, *inputs.values())]
    for _ in range(50):
        result = only_repeats(inputs)
    assert [sys.getrefcount(value) for value in (*inputs, *inputs.values())] == before
    kept = weakref.ref(result["rows"])
    del result
    assert kept() is None


def test_a_module_that_nobody_refers_to_is_closed(symbolic_path: Path) -> None:
    module = load(symbolic_path)
    for value in range(4):
        check(module(feed(value)), value)
    kept = weakref.ref(module)
    gc.disable()
    try:
        del module
        assert kept() is None
    finally:
        gc.enable()


def test_a_result_that_has_no_memory(symbolic_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, full = Output.receive, threading.Event()

    def receive(self: Output) -> Any:
        if full.is_set():
            raise MemoryError("no memory for a result")
        return usual(self)

    monkeypatch.setattr(Output, "receive", receive)
    with load(symbolic_path) as module:
        for _ in range(3):
            for value in range(3):
                check(module(feed(value)), value)
            full.set()
            with pytest.raises(MemoryError, match="no memory for a result"):
                module(feed(1))
            full.clear()


def test_failures_have_the_status_of_the_run(tmp_path: Path) -> None:
    path = link(make_model("failing", tmp_path), "so", tmp_path / "failing.so")[0]
    good, bad = np.array([0], np.int32), np.array([2], np.int32)
    with load(path) as module:
        for _ in range(3):
            for _ in range(3):
                assert module(good)["y"] == 0
            with pytest.raises(ModuleError, match="failed with code 3") as caught:
                module(bad)
            assert caught.value.status == "TS_ERROR_MODEL"


def test_an_interpreter_without_the_functions(
    symbolic_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeat, "_API", None)
    with load(symbolic_path) as module:
        for value in range(4):
            check(module(feed(value)), value)


def test_threads_take_turns(warm: Module) -> None:
    wrong: list[float] = []

    def work(value: int) -> None:
        for k in range(60):
            rows = 40 if k % 7 else 5 + value
            out = warm(feed(value, rows))
            if not (out["scaled"] == 2 * value).all() or out["rows"].shape != (rows,):
                wrong.append(value)

    run_together(work)
    assert not wrong
