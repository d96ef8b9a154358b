"""Loaded models where processes are forked, and where Python copies or pickles them."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cplans import MANIFEST, make_model, needs_x86
from numpy.typing import NDArray

from tensmith.backends.common.link import link
from tensmith.runtime import forking
from tensmith.runtime.loader import Module, ModuleError, load

pytestmark = needs_x86


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that halves its input."""
    folder = tmp_path_factory.mktemp("libraries")
    return link(make_model("parallel", folder), "so", folder / "parallel.so", MANIFEST)[0]


X = np.arange(100, dtype=np.float32)


def _is_right(module: Module) -> bool:
    return np.array_equal(module(X)["values"], X / 2)


def test_a_fork_finds_no_run_in_progress(path: Path) -> None:
    busy = load(path)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with busy._lock:
            held.set()
            let_go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    threading.Timer(0.05, let_go.set).start()
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # instead of waiting for a thread that is not there
        os._exit(0 if _is_right(busy) else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _is_right(busy)


def test_who_holds_a_lock_may_fork(path: Path) -> None:
    module = load(path)
    with module._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            os._exit(0 if _is_right(module) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_the_collector_finds_during_a_fork_is_closed_behind_it(path: Path) -> None:
    found, busy = load(path), load(path)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        nonlocal found
        with busy._lock:  # the fork has the lock of the first, and waits for this one
            held.set()
            let_go.wait(10)
            del found
        let_go.clear()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait(10)
    threading.Timer(0.05, let_go.set).start()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if _is_right(busy) else 1)
    thread.join(10)
    assert not thread.is_alive()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not forking._waiting


def test_a_call_within_a_call_is_refused(path: Path) -> None:
    module = load(path)
    inner: list[Exception] = []
    bind = module._bind_call

    def bound(arrays: Sequence[NDArray[Any] | None]) -> None:
        bind(arrays)
        try:
            module(X[:50])
        except ModuleError as error:
            inner.append(error)

    module._bind_call = bound  # type: ignore[method-assign]
    assert _is_right(module)
    assert "in progress" in str(inner[0])
    assert _is_right(module)


def _unpickled(module: Module) -> Module:
    found: Module = pickle.loads(pickle.dumps(module))
    return found


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, _unpickled])
def test_a_copy_is_loaded_from_the_file(path: Path, again: Callable[[Module], Module]) -> None:
    first = load(path, 2)
    with again(first) as second:
        assert (second.path, second.threads) == (first.path, 2)
        first.close()
        assert _is_right(second)
