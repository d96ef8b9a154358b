"""Loaded models where processes are forked, and where Python copies or pickles them."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time
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
PATIENCE = 60  # seconds, for what never takes long


def _is_right(module: Module) -> bool:
    return np.array_equal(module(X)["values"], X / 2)


def _child_is_right(module: Module) -> bool:
    """Forks; whether the child can run a model."""
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)  # instead of waiting for a thread that is not there
        os._exit(0 if _is_right(module) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _held_until_a_fork_waits(module: Module, then: Callable[[], None]) -> threading.Thread:
    """A thread that has a module's lock until a fork has taken another; then does something."""
    held = threading.Event()

    def hold() -> None:
        with module._lock:
            held.set()
            while not forking._taken:
                time.sleep(0.001)
            then()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert held.wait(PATIENCE)
    return thread


def test_a_fork_finds_no_run_in_progress(path: Path) -> None:
    first, busy = load(path), load(path)
    thread = _held_until_a_fork_waits(busy, lambda: None)
    assert _child_is_right(busy)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert _is_right(busy)
    first.close()


def test_who_holds_a_lock_may_fork(path: Path) -> None:
    module = load(path)
    with module._lock:
        assert _child_is_right(module)


def test_what_the_collector_finds_during_a_fork_is_closed_behind_it(path: Path) -> None:
    found, busy = [load(path)], load(path)
    thread = _held_until_a_fork_waits(busy, found.clear)  # whose lock the fork has
    assert _child_is_right(busy)
    thread.join(PATIENCE)
    assert not thread.is_alive()
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
