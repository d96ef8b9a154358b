"""Triton's interpreter as the fake driver uses it: integers that overflow."""

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
