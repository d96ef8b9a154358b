"""The size that two sizes broadcast to, as an expression of dims."""

from __future__ import annotations

import itertools

from tensmith.compiler.ir.dims import (
    dbroadcast,
    dmax,
    dmin,
    evaluate,
    floordiv,
    is_never_one,
    symbol,
)

A, B, C = (symbol(name) for name in "abc")


def test_values_are_those_of_numpy() -> None:
    form = dbroadcast(A, B)
    for a, b in itertools.product(range(5), repeat=2):
        if a == b or 1 in (a, b):
            assert evaluate(form, {"a": a, "b": b}) == (b if a == 1 else a)
        else:
            assert evaluate(form, {"a": a, "b": b}) == max(a, b)


def test_order_and_repetition_do_not_matter() -> None:
    forms = {
        dbroadcast(dbroadcast(x, y), dbroadcast(z, x))
        for x, y, z in itertools.permutations((A, B, C))
    }
    assert len(forms) == 1
    assert dbroadcast(A, A) == A
    assert dbroadcast(1, dbroadcast(A, 1)) == A


def test_sizes_that_cannot_be_one_decide() -> None:
    assert dbroadcast(A, 7) == 7
    assert dbroadcast(0, A) == 0
    assert dbroadcast(A, B * 2) == B * 2
    assert dbroadcast(dbroadcast(A, B), C * 4 + 2) == C * 4 + 2
    assert dbroadcast(A + 2, B) == A + 2
    assert is_never_one(floordiv(A, 3) * 3 + 2)
    assert not is_never_one(A * 2 + 1)
    assert not is_never_one(A + B)


def test_sizes_that_are_one_together() -> None:
    assert dbroadcast(A, dmin(A, 512)) == A
    assert dbroadcast(dmin(A, 512), B) == dbroadcast(B, dmin(A, 512))
    assert dbroadcast(dmin(A, 1), A) not in (A, 1)
    assert dbroadcast(A - 3, dmax(A - 3, 0)) == A - 3
    assert dbroadcast(dmax(A - 3, 0), dmax(A - 3, 0)) == dmax(A - 3, 0)
