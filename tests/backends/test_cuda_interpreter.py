"""Triton's interpreter as the fake driver uses it: integers that overflow, functions within."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cuda_runs import needs_triton

from tensmith.backends.cuda.fake.interpreter import Program

pytestmark = needs_triton
SOURCE = """import triton
import triton.language as tl


@triton.jit
def doubled(x, y):
    at = tl.arange(0, 4)
    value = tl.load(x + at)
    tl.store(y + at, value + value)
"""
GIVEN = np.array([1, -2, 2**30, 5], np.int32)
WRAPPED = [2, -4, -(2**31), 10]


def doubled() -> list[int]:
    found = np.zeros(4, np.int32)
    program = Program(SOURCE, "doubled", ("*i32", "*i32"))
    program.run(1, [GIVEN.ctypes.data, found.ctypes.data])
    return found.tolist()


def test_checks_that_tell_nobody_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doubled() == WRAPPED
    from triton.language.semantic import TritonSemantic

    compared: list[object] = []
    given = TritonSemantic.less_equal

    def less_equal(self, *operands):
        compared.append(operands)
        return given(self, *operands)

    monkeypatch.setattr(TritonSemantic, "less_equal", less_equal)
    assert doubled() == WRAPPED
    assert not compared


def test_overflow_is_told_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doubled() == WRAPPED
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    monkeypatch.setattr(builder, "options", replace(builder.options, debug=True))
    with pytest.raises(Exception, match="int32 overflow detected"):
        doubled()


CALLS = """import triton
import triton.language as tl


@triton.jit
def twice(value):
    return value * 2


@triton.jit
def summed(x, y):
    at = tl.arange(0, 4)
    total = tl.zeros((1,), tl.int32)
    for step in range(0, 5):
        total += tl.sum(twice(tl.load(x + at)), 0) + tl.max(tl.load(x + at), 0)
    tl.store(y + tl.arange(0, 1), total)
"""


def test_functions_that_kernels_call_change_the_language_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, found = np.array([1, -2, 7, 4], np.int32), np.zeros(1, np.int32)
    program = Program(CALLS, "summed", ("*i32", "*i32"))
    program.run(1, [given.ctypes.data, found.ctypes.data])
    from triton.runtime import interpreter

    changes: list[str] = []
    change = interpreter._patch_lang

    def counted(function):
        changes.append(function.__name__)
        return change(function)

    monkeypatch.setattr(interpreter, "_patch_lang", counted)
    for _ in range(2):
        found[:] = 0
        program.run(3, [given.ctypes.data, found.ctypes.data])
        assert found == 5 * (20 + 7)
    assert changes == ["summed", "summed"], "by each launch, and by nothing within"
