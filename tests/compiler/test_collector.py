"""The pause of Python's collector ends, whatever happens in it."""

from __future__ import annotations

import gc

import pytest

from tensmith.compiler.collector import SELDOM, collector_paused, collector_seldom


def test_as_before() -> None:
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_after_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), collector_paused():
        raise ValueError("inside")
    assert gc.isenabled()


def test_seldom_is_as_before_at_the_end() -> None:
    before = gc.get_threshold()
    with collector_seldom():
        assert gc.get_threshold() == (max(before[0], SELDOM), *before[1:])
    assert gc.get_threshold() == before
    with pytest.raises(ValueError, match="inside"), collector_seldom():
        raise ValueError("inside")
    assert gc.get_threshold() == before


def test_blocks_that_overlap_end_as_before() -> None:
    before = gc.get_threshold()
    first, second = collector_seldom(), collector_seldom()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] >= SELDOM
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before


def test_what_is_off_stays_off() -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with collector_seldom():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
