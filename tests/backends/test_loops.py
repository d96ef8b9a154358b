"""Loops whose trip counts, shapes and memory only the run knows, compiled against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Job, Setting, compile_graph, run_all
from suites.case import BOOL, CLOSE, F32, I64, CaseBuilder, N
from suites.cases import compare

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph, symbol
from tensmith.runtime.loader import ModuleError, load

UNBOUNDED = (1 << 63) - 1
SETTING = Setting("native", 1)
pytestmark = pytest.mark.skipif(bool(SETTING.missing()), reason=SETTING.missing())


def swap() -> tuple[Graph, dict[str, Any]]:
    """Two carried values trade places; one is seen through a reshape."""
    c = CaseBuilder("swap")
    trip, a, b = c.input(dtype=I64, name="trip"), c.input(2, 3, name="a"), c.input(6, name="b")
    body = c.region("body")
    body.input(dtype=I64)
    cond = body.input(dtype=BOOL)
    first, second = body.input(2, 3), body.input(6)
    halved = body.op("mul", body.op("reshape", second, shape=(2, 3)), body.scalar(0.5))
    body.results = [cond, halved, body.op("reshape", first, shape=(6,))]
    node = c.node("loop", [trip, c.scalar(1, BOOL), a, b], {}, [body.graph()])
    c.output(*node.outputs)
    values = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": -np.ones(6, "f4")}
    return c.graph(), {"trip": np.array(5), **values}


def unbounded() -> tuple[Graph, dict[str, Any]]:
    """Stacks the powers of two below a limit: the condition ends it, nothing bounds it."""
    c = CaseBuilder("unbounded")
    x = c.input(3, name="x")
    body = c.region("body")
    step = body.input(dtype=I64)
    body.input(dtype=BOOL)
    value = body.input(3)
    twice = body.op("mul", value, body.scalar(2))
    total = body.op("reduce_sum", twice, axes=(0,))
    body.results = [body.op("lt", total, body.scalar(1e9)), twice, value, step]
    attrs = {"bound": ("rows", "steps")}
    start = [c.scalar(UNBOUNDED, I64), c.scalar(1, BOOL), x]
    c.output(*c.node("loop", start, attrs, [body.graph()]).outputs)
    return c.graph(), {"x": np.array([0.5, 1, 1.5], "f4")}


def growing(trip: int) -> tuple[Graph, dict[str, Any]]:
    """Fibonacci words: two growing values, each round's the old ones joined; sums are stacked."""
    c = CaseBuilder("growing")
    count, a, b = c.input(dtype=I64, name="trip"), c.input(N, name="a"), c.input(1, name="b")
    body = c.region("body")
    body.input(dtype=I64)
    cond = body.input(dtype=BOOL)
    first, second = body.input(symbol("p")), body.input(symbol("q"))
    joined = body.op("concat", second, first, axis=0)
    total = body.op("reduce_sum", joined, axes=(0,), keepdims=True)
    body.results = [cond, second, joined, total]
    attrs = {"bound": ("p_end", "q_end", "rounds")}
    node = c.node("loop", [count, c.scalar(1, BOOL), a, b], attrs, [body.graph()])
    c.output(c.op("neg", node.outputs[0]), *node.outputs[1:])
    c.output(c.op("reduce_sum", node.outputs[2], axes=(0,)))
    return c.graph(), {
        "trip": np.array(trip),
        "a": np.array([1, 2], "f4"),
        "b": np.array([3], "f4"),
    }


def nested() -> tuple[Graph, dict[str, Any]]:
    """An inner loop that stacks, run anew in every round of an outer one that stacks."""
    c = CaseBuilder("nested")
    trip, x = c.input(dtype=I64, name="trip"), c.input(4, name="x")
    outer = c.region("outer")
    step, cond, value = outer.input(dtype=I64), outer.input(dtype=BOOL), outer.input(4)
    inner = c.region("inner")
    at, going, inside = inner.input(dtype=I64), inner.input(dtype=BOOL), inner.input(4)
    more = inner.op("add", inside, x)
    inner.results = [going, more, inner.op("mul", more, inner.op("cast", at, dtype=F32))]
    begin = [step, outer.scalar(1, BOOL), value]
    run = outer.node("loop", begin, {"bound": ("inner_rounds",)}, [inner.graph()])
    total = outer.op("reduce_sum", run.outputs[1], axes=(0,))
    outer.results = [cond, outer.op("mul", run.outputs[0], outer.scalar(0.5)), total]
    node = c.node("loop", [trip, c.scalar(1, BOOL), x], {"bound": ("rounds",)}, [outer.graph()])
    c.output(*node.outputs)
    return c.graph(), {"trip": np.array(6), "x": np.array([1, 2, 3, 4], "f4")}


GRAPHS = {
    "swap": swap,
    "unbounded": unbounded,
    "growing": lambda: growing(9),
    "growing_not_at_all": lambda: growing(0),
    "nested": nested,
}


def test_loops(tmp_path: Path) -> None:
    jobs = {name: Job(*make()) for name, make in GRAPHS.items()}
    results = run_all(jobs, SETTING, tmp_path)
    for name, make in GRAPHS.items():
        got, want = results[name], run_graph(*make())
        if isinstance(got, Exception):
            raise got
        for key, array in want.items():
            compare(f"{name} {key}", got[key], array, CLOSE)


def test_absurd_sizes_are_errors_of_the_run(tmp_path: Path) -> None:
    c = CaseBuilder("absurd")
    shape = c.input(2, dtype=I64, name="shape")
    c.node("read_dims", [shape], {"symbols": ("r", "q")})
    x = c.input(1, name="x")
    c.output(c.op("broadcast_to", x, shape=(symbol("r"), symbol("q"))))
    model = compile_graph(c.graph(), SETTING, tmp_path)
    module = load(link(model, "so", tmp_path / "m.so")[0])
    x_data = np.ones(1, "f4")
    assert module({"shape": np.array([2, 3]), "x": x_data})["y0"].shape == (2, 3)
    for dims in ([-1, 2], [1 << 40, 1 << 20], [1 << 62, 8]):
        with pytest.raises(ModuleError):
            module({"shape": np.array(dims), "x": x_data})
