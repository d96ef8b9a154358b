"""Locks that are free in a forked process: its one thread would wait for others that are not there.

A fork waits for the runs in progress, so that the child finds every instance between two runs.
What the collector finds closes between two forks: a fork may wait for the thread that finds it.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable

_numbers = itertools.count()
_locks: weakref.WeakKeyDictionary[threading.RLock, int] = weakref.WeakKeyDictionary()
_forking = threading.RLock()  # by one thread at a time
_taken: list[threading.RLock] = []
_waiting: list[Callable[[], None]] = []


def lock() -> threading.RLock:
    """A new lock, which no fork finds held but by the thread that forks.

    Who holds one may wait for one that was made later, not for an earlier one.
    """
    made = threading.RLock()
    with _forking:
        _locks[made] = next(_numbers)
    return made


def between_forks(action: Callable[[], None]) -> None:
    """Do something now or, where a thread is about to fork, when it has: nothing is waited for."""
    _waiting.append(action)
    _do_waiting()


def _do_waiting() -> None:
    while _waiting and _forking.acquire(blocking=False):  # else whoever holds it looks again
        try:
            if _waiting:
                _waiting.pop()()
        finally:
            _forking.release()


def _take() -> None:
    _forking.acquire()
    for held, _ in sorted(_locks.items(), key=lambda item: item[1]):
        held.acquire()
        _taken.append(held)


def _release() -> None:
    while _taken:
        _taken.pop().release()
    _forking.release()
    _do_waiting()


os.register_at_fork(before=_take, after_in_parent=_release, after_in_child=_release)
