"""Runs that are cancelled from another thread, and loops whose rounds are limited."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from compiled import Setting, compile_graph
from suites.case import BOOL, I64, CaseBuilder

from tensmith.backends.common.link import link
from tensmith.compiler.ir import Graph
from tensmith.runtime.loader import Module, ModuleError, load

FOREVER = np.int64((1 << 63) - 1)
X = np.ones(3, np.float32)


def counting_loop() -> Graph:
    """y = x + the number of rounds, each of which runs a second loop of one round."""
    c = CaseBuilder("graph")
    trip, x = c.input(dtype=I64, name="trip"), c.input(3, name="x")
    body = c.region("body")
    body.input(dtype=I64)
    cond, total = body.input(dtype=BOOL), body.input(3)
    inner = body.region("inner")
    inner.input(dtype=I64)
    going, value = inner.input(dtype=BOOL), inner.input(3)
    inner.results = [going, inner.op("add", value, inner.scalar(1))]
    once = [body.scalar(1, I64), body.scalar(1, BOOL), total]
    body.results = [cond, body.node("loop", once, {}, [inner.graph()]).output]
    c.output(c.node("loop", [trip, c.scalar(1, BOOL), x], {}, [body.graph()]).output)
    return c.graph()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    setting = Setting("native", 2)
    if missing := setting.missing():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("loops")
    return link(compile_graph(counting_loop(), setting, folder), "so", folder / "m.so")[0]


@pytest.fixture
def module(library: Path) -> Iterator[Module]:
    with load(library) as opened:
        yield opened


def test_a_run_is_cancelled_from_another_thread_and_the_next_one_works(module: Module) -> None:
    over = threading.Event()

    def cancel() -> None:
        while not over.wait(0.002):  # before the run has begun it does nothing
            module.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(ModuleError, match="the run was cancelled") as caught:
            module(FOREVER, X)
    finally:
        over.set()
        thread.join()
    assert caught.value.status == "TS_ERROR_CANCELLED"
    np.testing.assert_array_equal(module(np.int64(4), X)["y0"], X + 4)


def test_cancelling_without_a_run_does_nothing(module: Module) -> None:
    module.cancel()
    np.testing.assert_array_equal(module(np.int64(1), X)["y0"], X + 1)
    module.close()
    module.cancel()


def test_rounds_are_limited_by_an_option_of_the_instance(library: Path) -> None:
    with load(library, max_trips=5) as limited:
        np.testing.assert_array_equal(limited(np.int64(5), X)["y0"], X + 5)
        with pytest.raises(ModuleError, match=r"'loop_0' \(loop\): more than 5 rounds") as caught:
            limited(np.int64(6), X)
        assert caught.value.status == "TS_ERROR_LIMIT"
        with pytest.raises(ModuleError, match="more than 5 rounds"):
            limited(FOREVER, X)


def test_a_negative_limit_is_refused(library: Path) -> None:
    with pytest.raises(ModuleError, match="max_trips: expected 0 or more, got -1"):
        load(library, max_trips=-1)
