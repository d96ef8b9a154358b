"""Masks that exporters write as comparisons of positions: attention leaves out what they hide."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import count, inputs_for, same_results
from suites.case import BOOL, F32, I8, I32, I64, U8, CaseBuilder, S

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Dim, Graph, Value, constant
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.arithmetic.hidden_scores import MASKED
from tensmith.passes.arithmetic.key_regions import COMPARED, KeyBand, KeyBands, Position
from tensmith.passes.arithmetic.known_masks import KnownMasks
from tensmith.passes.arithmetic.mask_regions import MaskReader
from tensmith.passes.arithmetic.query_blocks import query_blocks
from tensmith.passes.pipeline import SIMPLIFY

LOWEST = float(np.finfo(np.float32).min)
P = symbol("p")
Condition = Callable[["Written"], Value]


class Written(CaseBuilder):
    """An attention of `queries` rows and `keys` keys whose mask is written out."""

    def __init__(self, queries: Dim, keys: Dim, seed: int = 0) -> None:
        super().__init__("written")
        self.queries, self.keys = queries, keys
        self.rng = np.random.default_rng(seed)

    def rows(self) -> Value:
        """Positions of queries, [queries, 1]."""
        line = self.op("iota", shape=(self.queries,), axis=0, dtype=I64)
        return self.op("reshape", line, shape=(self.queries, 1))

    def columns(self) -> Value:
        """Positions of keys, [1, keys]."""
        return self.op("iota", shape=(1, self.keys), axis=1, dtype=I64)

    def number(self, dim: Dim) -> Value:
        """A size as a tensor of rank 0."""
        return self.op("reshape", self.op("dims", values=(dim,)), shape=())

    def kept(self) -> Value:
        """Keys that only a run knows, [2, 1, 1, keys]."""
        given_ = self.input(2, self.keys, dtype=BOOL)
        return self.op("reshape", given_, shape=(2, 1, 1, self.keys))

    def attend(self, mask: Value) -> Graph:
        """The graph under a mask that is added."""
        q = self.input(2, 2, self.queries, 4)
        k, v = self.input(2, 2, self.keys, 4), self.input(2, 2, self.keys, 3)
        self.output(self.op("attention", q, k, v, mask, scale=0.5))
        return self.graph()

    def added(self, condition: Value, low: float = LOWEST) -> Value:
        """A condition as numbers to add."""
        return self.op("where", condition, self.scalar(0), self.scalar(low))


def optimised(graph: Graph, **sizes: int) -> list[Saving]:
    """What was told, folding first; checks that results stay what they are."""
    inputs = [inputs_for(graph, seed, **sizes) for seed in (0, 1)]
    want = [run_graph(graph, each) for each in inputs]
    told: list[Saving] = []
    run_passes(graph, (*SIMPLIFY, KnownMasks(told.append, 8), *SIMPLIFY))
    for each, wanted in zip(inputs, want, strict=True):
        same_results(wanted, run_graph(graph, each))
    return told


def causal(w: Written) -> Value:
    return w.op("ge", w.rows(), w.columns())


def cached(w: Written) -> Value:
    past = w.number(w.keys - w.queries)
    return w.op("le", w.columns(), w.op("add", w.rows(), past))


def window(w: Written) -> Value:
    far = w.op("sub", w.rows(), w.columns())
    return w.op("and", w.op("lt", far, w.scalar(12, I64)), w.op("not", w.op("lt", far, ZERO)))


def counted(w: Written) -> Value:
    """Positions as running sums of ones, from 1 on."""
    ones = w.op("broadcast_to", constant(np.ones((1,), np.int64)), shape=(w.queries,))
    sums = w.op("cumsum", ones, axis=0, exclusive=False, reverse=False)
    return w.op("gt", w.op("reshape", sums, shape=(w.queries, 1)), w.columns())


def sliced_triangle(w: Written) -> Value:
    table = constant(np.tril(np.ones((1, 1, 128, 128), bool)))
    first = w.keys - w.queries
    stops = (1, 1, w.keys, w.keys)
    return w.op("slice", table, starts=(0, 0, first, 0), stops=stops, steps=(1, 1, 1, 1))


def padded(w: Written) -> Value:
    return w.op("and", w.kept(), causal(w))


def hidden_by_two(w: Written) -> Value:
    return w.op("not", w.op("or", w.op("not", w.kept()), w.op("not", cached(w))))


ZERO = constant(np.zeros((), np.int64))
LENGTHS = [(64, 64, {}), (S, S, {"s": 40}), (S, S, {"s": 5}), (S, S, {"s": 67})]


@pytest.mark.parametrize("low", [LOWEST, -np.inf])
@pytest.mark.parametrize(("queries", "keys", "sizes"), LENGTHS)
@pytest.mark.parametrize(
    "condition", [causal, cached, window, counted, sliced_triangle, padded, hidden_by_two]
)
def test_comparisons(
    condition: Condition, queries: Dim, keys: Dim, sizes: dict[str, int], low: float
) -> None:
    w = Written(queries, keys)
    graph = w.attend(w.added(condition(w), low))
    told = optimised(graph, **sizes)
    assert [saving.by for saving in told] == ["known_masks"]
    assert told[0].after <= 0.7 * told[0].before
    assert count(graph)["attention"] == 4


@pytest.mark.parametrize("condition", [cached, sliced_triangle, hidden_by_two])
def test_keys_of_former_steps(condition: Condition) -> None:
    """Queries see the keys of a cache and those up to their own."""
    w = Written(S, P + S)
    w.input(P)
    graph = w.attend(w.added(condition(w)))
    assert optimised(graph, s=33, p=9)


def test_sums_of_masks() -> None:
    """Where what hides a key is infinite, a row that nothing else hides is as before."""
    w = Written(S, S)
    both = w.op("add", w.added(causal(w), -np.inf), w.input(2, 1, S, S))
    assert optimised(w.attend(both), s=40)


def test_low_numbers_that_do_not_hide_alone() -> None:
    """A row whose keys the run hides by another number would see those that are left out."""
    w = Written(S, S)
    both = w.op("add", w.added(causal(w)), w.added(w.kept()))
    assert not optimised(w.attend(both), s=40)


@pytest.mark.parametrize(
    "condition",
    [
        lambda w: w.op("or", w.kept(), causal(w)),
        lambda w: w.op("ge", w.columns(), w.rows()) if isinstance(w.keys, int) else w.kept(),
        lambda w: w.op("ge", w.rows(), w.input(1, w.keys, dtype=I64)),
    ],
)
def test_others_stay(condition: Condition) -> None:
    w = Written(S, S)
    assert not optimised(w.attend(w.added(condition(w))), s=40)


def wrapped(w: Written, kind: str) -> Value:
    """Positions that do not fit the type that they are in."""
    line = {"shape": (1, w.keys), "axis": 1}
    if kind == "cast":
        return w.op("cast", w.op("cast", w.columns(), dtype=U8), dtype=I64)
    if kind == "iota":
        return w.op("cast", w.op("iota", **line, dtype=U8), dtype=I64)
    if kind == "cumsum":
        ones = w.op("broadcast_to", constant(np.ones((1, 1), np.uint8)), shape=(1, w.keys))
        sums = w.op("cumsum", ones, axis=1, exclusive=True, reverse=False)
        return w.op("cast", sums, dtype=I64)
    most = w.scalar(2**31 - 9, I32)
    far = w.op("add", w.op("iota", **line, dtype=I32), most)
    return w.op("sub", w.op("cast", far, dtype=I64), w.op("cast", most, dtype=I64))


@pytest.mark.parametrize("kind", ["cast", "iota", "cumsum", "sum"])
def test_positions_that_wrap(kind: str) -> None:
    """Behind 255 keys, or sums above what 32 bits hold, the comparison holds again."""
    w = Written(S, S)
    assert not optimised(w.attend(w.added(w.op("ge", w.rows(), wrapped(w, kind)))), s=320)


def test_positions_of_32_bits() -> None:
    w = Written(S, S)
    rows = w.op("add", w.op("cast", w.rows(), dtype=I32), w.scalar(2, I32))
    graph = w.attend(w.added(w.op("ge", rows, w.op("cast", w.columns(), dtype=I32))))
    assert optimised(graph, s=40)


def test_chains_that_read_all_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions x + x - x, and masks m + m: a chain has 2^n ways to its end, and n nodes."""
    read: list[Value] = []
    inner = MaskReader._read_added
    monkeypatch.setattr(
        MaskReader, "_read_added", lambda r, v, *rest: read.append(v) or inner(r, v, *rest)
    )
    w = Written(S, S)
    rows = w.rows()
    for _ in range(40):
        rows = w.op("sub", w.op("add", rows, rows), rows)
    mask = w.added(w.op("ge", rows, w.columns()), -np.inf)
    for _ in range(40):
        mask = w.op("cast", w.op("add", mask, mask), dtype=F32)
    assert query_blocks(mask, S, S, 8) is not None
    assert len(set(read)) > 40
    assert len(read) < 1000


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [("ge", -3, None), ("gt", -2, None), ("le", None, -3), ("lt", None, -4), ("eq", -3, -3)],
)
def test_bands_of_comparisons_are_no_wider(op: str, low: int | None, high: int | None) -> None:
    """key - row + 3 against 0, and the same with both sides turned round."""
    assert KeyBands().compared(op, Position(-1, 1, 3)) == KeyBand(low, high)
    assert KeyBands().compared(COMPARED[op], Position(1, -1, -3)) == KeyBand(low, high)
    assert KeyBands().compared(op, Position(0, 1, 3)) == KeyBand(first=low, last=high)


def test_masks_that_wrap() -> None:
    """A low integer is none in fewer bits."""
    w = Written(S, S)
    small = w.op("cast", w.added(causal(w)), dtype=I8)
    assert not optimised(w.attend(w.op("cast", small, dtype=F32)), s=40)


def drawn(w: Written, depth: int) -> Value:
    """A random condition on positions, tables and what only a run knows."""
    rng = w.rng
    kind = int(rng.integers(0, 8 if depth else 4))
    if kind == 0:
        return w.kept()
    if kind == 1:
        table = np.tril(rng.integers(0, 4, (96, 96)) > 0, int(rng.integers(-4, 5)))
        shift = int(rng.integers(0, 3))
        stops = (w.queries + shift, w.keys + shift)
        return w.op("slice", constant(table), starts=(shift, shift), stops=stops, steps=(1, 1))
    if kind < 4:
        shift = w.scalar(int(rng.integers(-5, 6)), I64)
        op = str(rng.choice(["ge", "gt", "le", "lt", "eq", "ne"]))
        return w.op(op, w.op("add", w.rows(), shift), w.columns())
    if kind == 4:
        return w.op("not", drawn(w, depth - 1))
    op = "or" if kind == 5 else "and"
    return w.op(op, drawn(w, depth - 1), drawn(w, depth - 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 20), st.booleans(), st.integers(1, 70))
def test_random_conditions(seed: int, known: bool, length: int) -> None:
    """Whatever a mask hides, results stay: static and symbolic sizes, finite masks and -inf."""
    size: Dim = length if known else S
    w = Written(size, size, seed)
    mask = w.added(drawn(w, 2), LOWEST if w.rng.integers(2) else -np.inf)
    if w.rng.integers(3) == 0:
        mask = w.op("add", mask, w.input(size, size, dtype=F32))
    shape = mask.shape if mask.type.rank == 4 else (1, 1, *mask.shape)
    optimised(w.attend(w.op("reshape", mask, shape=shape)), s=length)


def test_constants_of_halves_are_compared_with_limits_that_halves_do_not_hold() -> None:
    hidden = np.where(np.tri(6, dtype=bool), 0, -np.inf)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (np.float16, np.float32):
            found.append(MaskReader(KeyBands(), MASKED).seen(constant(hidden.astype(dtype))))
    assert found[0] == found[1] != KeyBand()
