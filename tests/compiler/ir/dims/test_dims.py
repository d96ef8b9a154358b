"""The algebra of dims against integers: every form is equal to what it was made of."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir.dims import (
    Dim,
    Sym,
    ceildiv,
    dmax,
    dmin,
    estimate,
    evaluate,
    exact_quotient,
    floordiv,
    is_nonnegative,
    mod,
    size_of,
    substitute,
    symbol,
    symbols_of,
)

NAMES = ("h", "n", "w", "$0", "$1")
SIZES = {name: symbol(name) for name in NAMES}
Values = dict[str, int]
Made = tuple[Dim, Callable[[Values], int]]  # an expression and the integers' way to its value
VALUES = st.fixed_dictionaries({name: st.integers(0, 40) for name in NAMES})


def _leaf(names: tuple[str, ...]) -> st.SearchStrategy[Made]:
    def named(name: str) -> Made:
        return SIZES[name], lambda values: values[name]

    def number(n: int) -> Made:
        return n, lambda values: n

    return st.one_of(st.sampled_from(names).map(named), st.integers(-9, 9).map(number))


def _binary(inner: st.SearchStrategy[Made]) -> st.SearchStrategy[Made]:
    numbers = st.integers(-12, 12).filter(bool)

    def add(a: Made, b: Made) -> Made:
        return a[0] + b[0], lambda v: a[1](v) + b[1](v)

    def sub(a: Made, b: Made) -> Made:
        return a[0] - b[0], lambda v: a[1](v) - b[1](v)

    def mul(a: Made, b: Made) -> Made:
        return a[0] * b[0], lambda v: a[1](v) * b[1](v)

    def larger(a: Made, b: Made) -> Made:
        return dmax(a[0], b[0]), lambda v: max(a[1](v), b[1](v))

    def smaller(a: Made, b: Made) -> Made:
        return dmin(a[0], b[0]), lambda v: min(a[1](v), b[1](v))

    def quotient(a: Made, n: int) -> Made:
        return floordiv(a[0], n), lambda v: a[1](v) // n

    def upwards(a: Made, n: int) -> Made:
        return ceildiv(a[0], abs(n)), lambda v: -(-a[1](v) // abs(n))

    def rest(a: Made, n: int) -> Made:
        return mod(a[0], n), lambda v: a[1](v) % n

    return st.one_of(
        *(st.builds(fn, inner, inner) for fn in (add, sub, mul, larger, smaller)),
        *(st.builds(fn, inner, numbers) for fn in (quotient, upwards, rest)),
    )


def _made(names: tuple[str, ...] = NAMES, leaves: int = 10) -> st.SearchStrategy[Made]:
    return st.recursive(_leaf(names), _binary, max_leaves=leaves)


@settings(max_examples=600)
@given(_made(), VALUES)
def test_every_form_has_the_value_of_what_it_was_made_of(made: Made, values: Values) -> None:
    assert evaluate(made[0], values) == made[1](values)


@settings(max_examples=600)
@given(_made(("h", "n", "w")), VALUES)
def test_what_is_proven_not_negative_is_not(made: Made, values: Values) -> None:
    for dim in (made[0], made[0] * -1):
        if is_nonnegative(dim):
            assert evaluate(dim, values) >= 0


@settings(max_examples=300)
@given(_made(("h", "n")), _made(("h", "w")), VALUES)
def test_divisions_by_expressions(top: Made, bottom: Made, values: Values) -> None:
    number = bottom[1](values)
    assume(number != 0 and not isinstance(bottom[0], int))
    for fn, expected in ((floordiv, top[1](values) // number), (mod, top[1](values) % number)):
        made = fn(top[0], bottom[0])
        assert evaluate(made, values) == expected
    assert floordiv(top[0] * bottom[0], bottom[0]) == top[0]


@settings(max_examples=300)
@given(_made(("h", "n", "w")), _made(("n", "w"), leaves=4), VALUES)
def test_substitution_keeps_values(made: Made, other: Made, values: Values) -> None:
    assume(other[1](values) >= 0)
    changed = substitute(made[0], {"h": other[0]})
    assert "h" not in symbols_of(changed)
    assert evaluate(changed, values) == made[1]({**values, "h": other[1](values)})


@settings(max_examples=200)
@given(_made())
def test_equal_forms_are_one_object(made: Made) -> None:
    dim = made[0]
    assert pickle.loads(pickle.dumps(dim)) is dim or isinstance(dim, int)
    assert copy.deepcopy(dim) is dim or isinstance(dim, int)
    assert dim + 1 - 1 is dim or isinstance(dim, int)


@settings(max_examples=300)
@given(_made())
def test_an_estimate_is_always_a_size(made: Made) -> None:
    assert all(estimate(made[0], typical) >= 1 for typical in (0, 1, 64))


H, N, T, W = map(symbol, ("h", "n", "t", "w"))


def test_a_size_padded_to_a_multiple_is_one() -> None:
    padded = H + mod(8 - mod(H, 8), 8)
    assert padded == ceildiv(H, 8) * 8
    assert mod(padded, 8) == mod(padded, 4) == 0
    assert floordiv(padded, 8) == floordiv(H + 7, 8)
    assert H + mod(-1 * H, 8) == padded
    assert padded - (padded - H) == H


def test_remainder_and_quotient_make_the_whole() -> None:
    assert floordiv(H + 5, 7) * 7 + mod(H + 5, 7) == H + 5
    assert mod(mod(H, 12), 4) == mod(H, 4)
    assert floordiv(mod(H, 4), 4) == 0
    assert floordiv(N * W, W) == N
    assert floordiv((H + 1) * (N + 2), N + 2) == H + 1
    assert mod(N * W + H * W + 1, W) == 1 - floordiv(1, W) * W
    assert exact_quotient(20 * H + 40, H + 2) == 20
    assert exact_quotient(N * W, W) == N
    assert exact_quotient(6 * H, 4) is exact_quotient(H, W) is exact_quotient(H + 1, H) is None
    assert [exact_quotient(*pair) for pair in ((6, 3), (6, 4), (6, 0), (0, H), (3, H))] == [
        2, None, None, 0, None,
    ]  # fmt: skip


def test_a_quotient_of_a_quotient_is_one() -> None:
    length: Dim = T
    for taps, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
        length = floordiv(length - taps, stride) + 1
    assert length == floordiv(T + 240, 320) - 1
    assert ceildiv(ceildiv(H, 4), 7) == ceildiv(H, 28)
    assert floordiv(6 * H + 3, 9) == floordiv(2 * H + 1, 3)
    assert floordiv(H * -1, 4) == ceildiv(H, 4) * -1


def test_the_last_step_is_one_at_most() -> None:
    first = dmin(dmax(H - 1, 0), H)
    last = H - first
    assert is_nonnegative(last)
    assert is_nonnegative(1 - last)
    assert [evaluate(last, {"h": h}) for h in (0, 1, 5)] == [0, 1, 1]


@pytest.mark.parametrize("window", [2, 3, 7, 14])
@pytest.mark.parametrize("strides", [(), (2,), (2, 2, 2), (3, 5)])
def test_whole_windows_hold_what_is_cut_into_them(window: int, strides: tuple[int, ...]) -> None:
    """Both quotients are rounded: their linear bounds alone differ by less than 1."""
    size: Dim = H
    for stride in strides:
        size = ceildiv(size, stride)
    padded = ceildiv(size, window) * window
    assert is_nonnegative(padded - size)
    assert not is_nonnegative(padded - size - 1)
    assert dmax(size - padded, 0) == 0
    assert size - dmax(size - padded, 0) == size
    assert is_nonnegative(size - floordiv(size, window) * window)


def test_minima_and_maxima_of_ordered_terms() -> None:
    assert dmax(H, H + 3) == H + 3
    assert dmin(H, H + 3) == H
    assert dmax(H + N, N) == H + N
    assert dmin(H * 2 + N, H) == H
    assert dmax(0, H) == H
    assert dmin(floordiv(H, 2), H) == floordiv(H, 2)
    assert dmax(ceildiv(H, 4) * 4, H) == ceildiv(H, 4) * 4
    assert dmax(H, N) + dmin(H, N) == H + N
    assert dmax(H, N) == dmax(N, H)
    assert dmin(H, dmax(H, N)) == H
    assert dmax(dmax(H - 3, 0) - 2, 0) == dmax(H - 5, 0)
    assert dmax(3 * H, 6) == dmax(H, 2) * 3


def test_positions_keep_the_form_that_they_have() -> None:
    axis = symbol("$0")
    assert str(floordiv(axis * 3 + 1, 4)) == "floordiv(3*$0 + 1, 4)"
    assert str(mod(axis + 5, 4)) == "mod($0 + 1, 4)"
    assert str(dmin(axis + 1, 5)) == "min($0 + 1, 5)"


@pytest.mark.parametrize("depth", [12, 40])
def test_sizes_that_refer_to_smaller_ones_many_times_cost_little(depth: int) -> None:
    size: Dim = H
    for _ in range(depth):
        size = dmax(floordiv(size * 3 + 1, 5) + floordiv(size, 7), floordiv(size, 2)) + mod(size, 3)
    assert size_of(size) > depth**2
    assert symbols_of(size) == {"h"}
    assert isinstance(size, Sym)
    assert hash(size) == hash(size + 0)
    assert evaluate(size, {"h": 1000}) >= 0
    assert evaluate(substitute(size, {"h": N}), {"n": 1000}) == evaluate(size, {"h": 1000})


def test_the_order_of_terms_does_not_depend_on_the_process() -> None:
    program = (
        "from tensmith.compiler.ir.dims import *\n"
        "h, n, w = map(symbol, 'hnw')\n"
        "print(dmax(floordiv(n*h, w) + mod(h, 5), w) * (n + floordiv(w + 1, 2)) + dmin(h*n, w*w))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1
    assert texts.pop()


def test_a_division_by_zero_is_an_error_where_it_computes() -> None:
    with pytest.raises(InternalError, match="by zero"):
        floordiv(H, 0)
    frames = floordiv(N * 16, floordiv(T, 320))
    with pytest.raises(InternalError, match="by zero"):
        evaluate(frames, {"n": 3, "t": 64})
    assert estimate(frames, 64) >= 1


def test_a_symbol_without_a_value_is_an_error() -> None:
    with pytest.raises(InternalError, match=r"no value .*'w'"):
        evaluate(H + W, {"h": 1})
