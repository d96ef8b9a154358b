"""Programs that are interpreted side by side give what each gives by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_runs import needs_triton

from tensmith.backends.cuda.fake import program_groups
from tensmith.backends.cuda.fake.interpreter import Program

pytestmark = needs_triton
HEAD = """import triton
import triton.language as tl


@triton.jit
def larger(a, b):
    return tl.where(a > b, a, b)


"""
TOGETHER = pytest.mark.parametrize("together", [1, 3, 64])


def run(
    body: str, programs: int, arrays: dict[str, Any], together: int, monkeypatch: Any
) -> list[int]:
    """Run a kernel of pointers by these names; the sizes of the groups that were begun."""
    kinds = {"f4": "*fp32", "f2": "*fp16", "i4": "*i32"}
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    source = f"{HEAD}@triton.jit\ndef kernel({', '.join(arrays)}):\n{lines}\n"
    program = Program(source, "kernel", [kinds[a.dtype.str[1:]] for a in arrays.values()])
    monkeypatch.setattr(program, "_together", together)
    begun: list[int] = []
    begin = program_groups.GroupBuilder.begin

    def counted(self: Any, numbers: Any) -> None:
        begun.append(len(numbers))
        begin(self, numbers)

    monkeypatch.setattr(program_groups.GroupBuilder, "begin", counted)
    program.run(programs, [array.ctypes.data for array in arrays.values()])
    return begun


@TOGETHER
def test_conditions_and_loops_that_differ(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored ahead of them, in place of what was read, is stored once."""
    rng = np.random.default_rng(0)
    x, steps = rng.integers(0, 9, 10).astype("i4"), rng.integers(0, 4, 10).astype("i4")
    given, y = x.copy(), np.zeros(10, "i4")
    body = """
at = tl.program_id(0)
value = tl.load(x + at)
tl.store(x + at, value + 1)
if value > 4:
    total = value * 10
else:
    total = value
for step in range(0, tl.load(steps + at)):
    total += step + 1
tl.store(y + at, total)
"""
    begun = run(body, 10, {"x": x, "steps": steps, "y": y}, together, monkeypatch)
    assert bool(begun) == (together > 1)
    np.testing.assert_array_equal(x, given + 1)
    want = np.where(given > 4, given * 10, given) + steps * (steps + 1) // 2
    np.testing.assert_array_equal(y, want)


@TOGETHER
@pytest.mark.parametrize("holes", [[], [0], [1, 4, 5], range(7)])
def test_conditions_that_are_no_numbers(
    holes: list[int], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN is true, and goes the way of other NaNs."""
    x, y = np.float32([0, 1, 0, 2, 1, 0, 3]), np.zeros(7, "f4")
    x[holes] = np.nan
    body = """
at = tl.program_id(0)
if tl.load(x + at):
    tl.store(y + at, 1.0)
else:
    tl.store(y + at, 2.0)
"""
    begun = run(body, 7, {"x": x, "y": y}, together, monkeypatch)
    np.testing.assert_array_equal(y, np.where(x == 0, 2, 1))
    if together == 64 and len(holes) == len(x):
        assert begun == [7], "all of them go one way"


@TOGETHER
def test_products_and_shapes(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix that programs share by one of each, with a masked edge, turned and joined."""
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((16, 16)).astype("f4"), rng.standard_normal((7, 16, 16)).astype("f4")
    y, z = np.zeros((7, 16, 16), "f4"), np.zeros((7, 32), "f4")
    body = """
number = tl.program_id(0)
row = tl.arange(0, 16)[:, None]
column = tl.arange(0, 16)[None, :]
inside = (column < 13) & (row < number + 10)
a = tl.load(x + (number * 256 + row * 16 + column), mask=inside, other=0.5)
b = tl.load(w + (row * 16 + column))
total = tl.dot(a, tl.trans(b), tl.zeros([16, 16], tl.float32), input_precision="ieee")
scale = tl.where(number % 2 == 0, number.to(tl.float32), tl.full([], 3.0, tl.float32))
tl.store(y + (number * 256 + row * 16 + column), total * scale)
pair = tl.join(tl.sum(a, 1), tl.full([16], 2.0, tl.float32))
tl.store(z + number * 32 + tl.arange(0, 32), tl.reshape(pair, [32]))
"""
    begun = run(body, 7, {"w": w, "x": x, "y": y, "z": z}, together, monkeypatch)
    assert begun == {1: [], 3: [3, 3], 64: [7]}[together], "what goes on together stays so"
    numbers = np.arange(7)[:, None, None]
    rows, columns = np.arange(16)[:, None], np.arange(16)
    a = np.where((columns < 13) & (rows < numbers + 10), x, np.float32(0.5))
    scale = np.where(numbers % 2 == 0, numbers, 3)
    np.testing.assert_allclose(y, a.astype("f8") @ w.T * scale, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(z[:, ::2], a.astype("f8").sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(z[:, 1::2], 2)


@TOGETHER
@pytest.mark.parametrize("axis", [0, 1, None])
def test_reductions_by_functions_fold_halves(
    axis: int | None, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(2).standard_normal((5, 8, 4)).astype("f4")
    y, z = np.zeros((5, 32), "f4"), np.zeros((5, 32), "f4")
    body = f"""
number = tl.program_id(0)
a = tl.load(x + number * 32 + tl.arange(0, 8)[:, None] * 4 + tl.arange(0, 4)[None, :])
kept = tl.broadcast_to(tl.reduce(a, {axis}, larger, keep_dims=True), [8, 4])
tl.store(y + number * 32 + tl.arange(0, 8)[:, None] * 4 + tl.arange(0, 4)[None, :], kept)
found = tl.reduce(a, {axis}, larger)
tl.store(z + number * 32 + tl.arange(0, {1 if axis is None else (4, 8)[axis]}), found)
"""
    run(body, 5, {"x": x, "y": y, "z": z}, together, monkeypatch)
    own = (1, 2) if axis is None else axis + 1
    want = x.max(axis=own, keepdims=True)
    np.testing.assert_array_equal(y.reshape(x.shape), np.broadcast_to(want, x.shape))
    found = want.reshape(5, -1)
    np.testing.assert_array_equal(z[:, : found.shape[1]], found)


def test_a_reduction_calls_its_function_for_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,024 elements ten times, not for each."""
    x, y = np.arange(1024, dtype="f4"), np.zeros(1, "f4")
    from triton.language.semantic import TritonSemantic

    compared: list[object] = []
    given = TritonSemantic.greater_than

    def greater_than(self: Any, *operands: Any) -> Any:
        compared.append(operands)
        return given(self, *operands)

    monkeypatch.setattr(TritonSemantic, "greater_than", greater_than)
    body = "tl.store(y, tl.reduce(tl.load(x + tl.arange(0, 1024)), 0, larger))"
    run(body, 1, {"x": x, "y": y}, 1, monkeypatch)
    assert y[0] == 1023
    assert len(compared) == 10


def test_what_no_group_computes_is_interpreted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums from left to right, and what was stored ahead of them."""
    x, y = np.arange(12, dtype="i4").reshape(3, 4), np.zeros((3, 4), "i4")
    body = """
at = tl.program_id(0) * 4 + tl.arange(0, 4)
value = tl.load(x + at)
tl.store(x + at, value + 100)
tl.store(y + at, tl.cumsum(value, 0))
"""
    given = x.copy()
    assert run(body, 3, {"x": x, "y": y}, 64, monkeypatch) == [3]
    np.testing.assert_array_equal(x, given + 100)
    np.testing.assert_array_equal(y, given.cumsum(1))
