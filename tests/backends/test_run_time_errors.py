"""Indices and sizes that do not fit are errors of the run: compiled, and in the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from compiled import Arrays, Job, Setting, run_all
from suites.case import BOOL, F32, I32, I64, CaseBuilder, N, S

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import TensmithError
from tensmith.compiler.ir import Graph, symbol
from tensmith.compiler.ir.dims import dbroadcast, floordiv
from tensmith.runtime.loader import ModuleError


@dataclass(frozen=True)
class Wrong:
    """A graph, inputs that it must refuse, what the error says, and inputs that it takes."""

    build: Callable[[CaseBuilder], None]
    refused: Arrays
    message: str
    taken: Arrays

    def graph(self) -> Graph:
        c = CaseBuilder("wrong")
        self.build(c)
        return c.graph()


def floats(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def _gather(c: CaseBuilder) -> None:
    c.output(c.op("gather", c.input(7, 3), c.input(N, dtype=I64), axis=0))


def _computed(c: CaseBuilder) -> None:
    """The index is computed in a kernel, and what is gathered joins another one."""
    x, i = c.input(N, 3), c.input(2, dtype=I32)
    place = c.op("add", c.op("mul", i, c.scalar(2, I32)), c.scalar(1, I32))
    c.output(c.op("exp", c.op("neg", c.op("gather", x, place, axis=0))))


def _divisor(c: CaseBuilder) -> None:
    a, b = c.input(N, dtype=I32), c.input(N, dtype=I32)
    c.node("check_nonzero", [b], {"what": "node 'share' (Div): division by zero"})
    c.output(c.op("div", a, b))


def _elements(c: CaseBuilder) -> None:
    c.output(c.op("gather_elements", c.input(2, 4), c.input(2, 1, dtype=I64), axis=1))


def _tuples(c: CaseBuilder) -> None:
    c.output(c.op("gather_nd", c.input(5, 4, 3), c.input(N, 2, dtype=I64), batch_dims=0))


def _scatter(c: CaseBuilder) -> None:
    x, i, u = c.input(6), c.input(N, dtype=I64), c.input(N)
    c.output(c.op("scatter_elements", x, i, u, axis=0, reduction="add"))


def _scatter_tuples(c: CaseBuilder) -> None:
    x, i, u = c.input(6, 2), c.input(N, 1, dtype=I32), c.input(N, 2)
    c.output(c.op("scatter_nd", x, i, u))


def _branch(c: CaseBuilder) -> None:
    """Only the branch taken is checked."""
    cond, x, i = c.input(dtype=BOOL), c.input(4), c.input(1, dtype=I64)
    one, other = c.region("then"), c.region("else")
    one.output(one.op("gather", x, i, axis=0))
    other.output(other.op("slice", x, starts=(0,), stops=(1,), steps=(1,)))
    c.output(c.node("if", [cond], {}, [one.graph(), other.graph()]).output)


def _loop(c: CaseBuilder) -> None:
    """Round i reads element i + 2."""
    trip, x = c.input(dtype=I64), c.input(5)
    body = c.region("body")
    step, cond = body.input(dtype=I64), body.input(dtype=BOOL)
    total = body.input()
    item = body.op("gather", x, body.op("add", step, body.scalar(2, I64)), axis=0)
    body.results = [cond, body.op("add", total, item)]
    c.output(c.node("loop", [trip, c.scalar(1, BOOL), c.scalar(0)], {}, [body.graph()]).output)


def _broadcast(c: CaseBuilder) -> None:
    c.output(c.op("add", c.input(N, 3), c.input(S, 3)))


def _number(c: CaseBuilder) -> None:
    c.output(c.op("mul", c.input(N), c.weight(4)))


def _matmul(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(2, N), c.input(S, 3)))


def _expand(c: CaseBuilder) -> None:
    a, b = c.input(N, 3), c.input(S, 3)
    shape = (dbroadcast(N, S), 3)
    c.output(c.op("add", c.op("expand", a, shape=shape), c.op("expand", b, shape=shape)))


def _window(c: CaseBuilder) -> None:
    window = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    c.output(c.op("conv", c.input(1, 2, N, 8), c.weight(4, 2, 5, 5), **window))


def _reshape(c: CaseBuilder) -> None:
    x, shape = c.input(N, 2), c.input(2, dtype=I64)
    c.node("read_dims", [shape], {"symbols": ("r", "q")})
    c.output(c.op("reshape", x, shape=(symbol("r"), symbol("q"))))


def _slice(c: CaseBuilder) -> None:
    x, bounds = c.input(N, dtype=F32), c.input(2, dtype=I64)
    c.node("read_dims", [bounds], {"symbols": ("first", "last")})
    span = {"starts": (symbol("first"),), "stops": (symbol("last"),), "steps": (1,)}
    c.output(c.op("slice", x, **span))


def _divided(c: CaseBuilder) -> None:
    x = c.input(N)
    size = c.op("broadcast_to", c.scalar(1), shape=(floordiv(12, N),))
    c.output(c.op("reduce_sum", size, axes=(0,)), c.op("neg", x))


def _i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CASES = {
    "gather": Wrong(
        _gather,
        {"x0": floats(7, 3), "x1": _i64(0, 6, 7)},
        r"'gather_0' .*index 7 is out of range for .*size 7",
        {"x0": floats(7, 3), "x1": _i64(0, 6, -7)},
    ),
    "gather_below": Wrong(
        _gather,
        {"x0": floats(7, 3), "x1": _i64(-8)},
        r"'gather_0' .*index -8 is out of range for .*size 7",
        {"x0": floats(7, 3), "x1": _i64()},
    ),
    "computed": Wrong(
        _computed,
        {"x0": floats(5, 3), "x1": np.int32([1, 2])},
        r"index 5 is out of range for .*size 5",
        {"x0": floats(6, 3), "x1": np.int32([1, 2])},
    ),
    "divisor": Wrong(
        _divisor,
        {"x0": np.int32([4, 5, 6]), "x1": np.int32([1, 0, 2])},
        r"'share' \(Div\): division by zero",
        {"x0": np.int32([4, 5, 6]), "x1": np.int32([1, -1, 2])},
    ),
    "elements": Wrong(
        _elements,
        {"x0": floats(2, 4), "x1": _i64(3, 4).reshape(2, 1)},
        r"'gather_elements_0' .*index 4",
        {"x0": floats(2, 4), "x1": _i64(3, -4).reshape(2, 1)},
    ),
    "tuples": Wrong(
        _tuples,
        {"x0": floats(5, 4, 3), "x1": _i64(4, 3, 3, 4).reshape(2, 2)},
        r"index 4 is out of range for .*size 4",
        {"x0": floats(5, 4, 3), "x1": _i64(4, 3, -5, -4).reshape(2, 2)},
    ),
    "scatter": Wrong(
        _scatter,
        {"x0": floats(6), "x1": _i64(5, 6), "x2": floats(2)},
        r"'scatter_elements_0' .*index 6 is out of range for .*size 6",
        {"x0": floats(6), "x1": _i64(5, -6), "x2": floats(2)},
    ),
    "scatter_tuples": Wrong(
        _scatter_tuples,
        {"x0": floats(6, 2), "x1": np.int32([[-7]]), "x2": floats(1, 2)},
        r"'scatter_nd_0' .*index -7",
        {"x0": floats(6, 2), "x1": np.int32([[-6]]), "x2": floats(1, 2)},
    ),
    "branch": Wrong(
        _branch,
        {"x0": np.array(True), "x1": floats(4), "x2": _i64(4)},
        r"'gather_0' .*index 4",
        {"x0": np.array(False), "x1": floats(4), "x2": _i64(4)},
    ),
    "loop": Wrong(
        _loop,
        {"x0": np.int64(4), "x1": floats(5)},
        r"index 5 is out of range",
        {"x0": np.int64(3), "x1": floats(5)},
    ),
    "broadcast": Wrong(
        _broadcast,
        {"x0": floats(2, 3), "x1": floats(4, 3)},
        r"'add_0' .*n == s, where n is dimension 0 of input 'x0', s is dimension 0 of input 'x1'",
        {"x0": floats(2, 3), "x1": floats(2, 3)},
    ),
    "number": Wrong(_number, {"x0": floats(3)}, r"n == 4.*here 3 and 4", {"x0": floats(4)}),
    "matmul": Wrong(
        _matmul,
        {"x0": floats(2, 4), "x1": floats(5, 3)},
        r"'matmul_0' .*n == s",
        {"x0": floats(2, 4), "x1": floats(4, 3)},
    ),
    "expand": Wrong(
        _expand,
        {"x0": floats(4, 3), "x1": floats(2, 3)},
        r"'expand_1' .*s to be 1 or broadcast\(n, s\).* of input 'x1' \(here 2 and 4\)",
        {"x0": floats(4, 3), "x1": floats(1, 3)},
    ),
    "window": Wrong(
        _window,
        {"x0": floats(1, 2, 4, 8)},
        r"5 <= n, where n is dimension 2 of input 'x0' \(here 5 and 4\)",
        {"x0": floats(1, 2, 5, 8)},
    ),
    "reshape": Wrong(
        _reshape,
        {"x0": floats(3, 2), "x1": _i64(4, 2)},
        r"'reshape_1' .*q\*r == 2\*n.*here 8 and 6",
        {"x0": floats(3, 2), "x1": _i64(1, 6)},
    ),
    "negative": Wrong(
        _reshape,
        {"x0": floats(3, 2), "x1": _i64(-3, -2)},
        r"'read_dims_0' computes a negative size",
        {"x0": floats(3, 2), "x1": _i64(2, 3)},
    ),
    "huge": Wrong(
        _reshape,
        {"x0": floats(0, 2), "x1": _i64(0, 1 << 60)},
        r"'read_dims_0' computes a size larger than",
        {"x0": floats(0, 2), "x1": _i64(0, 1 << 32)},
    ),
    "slice": Wrong(
        _slice,
        {"x0": floats(5), "x1": _i64(1, 6)},
        r"'slice_1' .*last <= n.*here 6 and 5",
        {"x0": floats(5), "x1": _i64(1, 5)},
    ),
    "slice_backwards": Wrong(
        _slice,
        {"x0": floats(5), "x1": _i64(3, 2)},
        r"'slice_1' .*first <= last.*here 3 and 2",
        {"x0": floats(5), "x1": _i64(3, 3)},
    ),
    "divided": Wrong(_divided, {"x0": floats(0)}, r"1 <= n.*here 1 and 0", {"x0": floats(5)}),
}


@pytest.mark.parametrize("level", [0, 2])
def test_compiled_code_refuses_what_does_not_fit(tmp_path: Path, level: int) -> None:
    setting = Setting("native", level)
    if missing := setting.missing():
        pytest.skip(missing)
    jobs = {name: Job(case.graph(), case.refused) for name, case in CASES.items()}
    jobs |= {f"{name}_taken": Job(case.graph(), case.taken) for name, case in CASES.items()}
    results = run_all(jobs, setting, tmp_path)
    for name, case in CASES.items():
        with pytest.raises(ModuleError, match=case.message):
            raise _error(results[name])
        got, want = results[f"{name}_taken"], run_graph(case.graph(), case.taken)
        assert isinstance(got, dict), f"{name}: {got}"
        for key, array in want.items():
            np.testing.assert_allclose(got[key], array, 1e-4, 1e-4, err_msg=name)


def _error(result: object) -> Exception:
    assert isinstance(result, Exception), f"accepted: {result}"
    return result


# numpy has no limit of its own to the sizes of an empty array
@pytest.mark.parametrize("name", [name for name in CASES if name != "huge"])
def test_the_reference_refuses_it_too(name: str) -> None:
    with pytest.raises(TensmithError):
        run_graph(CASES[name].graph(), CASES[name].refused)
