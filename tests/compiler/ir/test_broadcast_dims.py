"""The size that two sizes broadcast to, as an expression of dims."""

from __future__ import annotations

import itertools
import random

from tensmith.compiler.ir.dims import (
    Dim,
    all_calls,
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


def test_many_sizes_have_one_form_however_they_meet() -> None:
    draw = random.Random(3)
    sizes: list[Dim] = [symbol(f"d{number}") for number in range(12)]
    sizes += [floordiv(size, 2) for size in sizes[:4]]

    def together(parts: list[Dim]) -> Dim:
        if len(parts) == 1:
            return parts[0]
        cut = draw.randrange(1, len(parts))
        return dbroadcast(together(parts[:cut]), together(parts[cut:]))

    forms = {together(draw.choices(sizes, k=8) + draw.sample(sizes, len(sizes))) for _ in range(40)}
    assert len(forms) == 1
    form = forms.pop()
    for _ in range(40):
        common = draw.choice([0, 4, 9])
        values = {f"d{number}": draw.choice([1, common]) for number in range(12)}
        values |= {f"d{number}": draw.choice([2, 3]) for number in range(4)}  # their halves are 1
        wanted = {evaluate(size, values) for size in sizes} - {1}
        if len(wanted) == 1:
            assert evaluate(form, values) == wanted.pop()
        assert evaluate(form, dict.fromkeys(values, 1)) in (0, 1)


def test_a_size_more_is_a_few_calls_more() -> None:
    sizes = [symbol(f"d{number}") for number in range(64)]
    random.Random(5).shuffle(sizes)
    links = list(itertools.accumulate(sizes, dbroadcast))
    assert len(all_calls(links)) < 64 * 8
