"""Assumptions of symbolic dims: which are noted, and which sizes a run has to look at."""

from __future__ import annotations

import pytest

from tensmith.compiler.ir.assumptions import (
    AT_MOST,
    EQUAL,
    ONE_OR_EQUAL,
    Assumption,
    assume_at_most,
    assume_equal,
    assume_one_or_equal,
    may_wrap,
    recorded,
)
from tensmith.compiler.ir.dims import Dim, floordiv, symbol

N, M = symbol("n"), symbol("m")


@pytest.mark.parametrize(
    ("size", "wraps"),
    [
        (1 << 40, False),
        (N, False),
        (4096 * N, False),
        (4097 * N, True),
        (N + 4095 * M, False),
        (N + 4096 * M, True),
        (N - 4096 * M, True),
        (N + 4095, False),
        (N + 4096, True),
        (N * M, True),
        (N * N, True),
        (floordiv(N, 2), True),
        (N + floordiv(M, 3), True),
    ],
    ids=str,
)
def test_sizes_that_may_wrap(size: Dim, wraps: bool) -> None:
    assert may_wrap(size) is wraps


def test_what_is_true_by_its_form_is_not_noted() -> None:
    with recorded() as found:
        for assume in (assume_equal, assume_at_most, assume_one_or_equal):
            assume(N, N)
            assume(3, 4)
        assume_at_most(N, N + 1)
        assume_one_or_equal(1, N)
        assert not found
        assume_at_most(N + 1, N)
        assume_one_or_equal(N, 1)
        assume_equal(M, N)
        assume_equal(N, M)
    assert list(found) == [
        Assumption(AT_MOST, N + 1, N),
        Assumption(ONE_OR_EQUAL, N, 1),
        Assumption(EQUAL, M, N),
    ]


def test_nothing_is_noted_outside() -> None:
    assume_equal(N, M)
    with recorded() as found:
        pass
    assume_equal(N, M)
    assert not found
