"""Inputs that have a default, through the Python loader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cplans import make_model, needs_x86

from tensmith.backends.common.link import link
from tensmith.runtime.loader import Module, ModuleError, load

pytestmark = needs_x86


@pytest.fixture(scope="module")
def optional(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Module]:
    """scaled = a * s, where s is 1, 2, 3 unless it is given."""
    folder: Path = tmp_path_factory.mktemp("optional")
    with load(link(make_model("optional", folder), "so", folder / "optional.so")[0]) as module:
        yield module


def test_calls_with_and_without(optional: Module) -> None:
    assert [spec.optional for spec in optional.inputs] == [False, True]
    a, s = np.ones((2, 3), np.float32), np.float32([4, 5, 6])
    default = np.float32([1, 2, 3])
    calls = [
        (({"a": a},), default),
        ((a,), default),
        ((a, None), default),
        (({"a": a, "s": None},), default),
        (({"a": a, "s": s},), s),
        ((a, s), s),
    ]
    for inputs, used in [*calls, *reversed(calls)]:
        for _ in range(4):
            np.testing.assert_array_equal(optional(*inputs)["scaled"], a * used)
    assert len(optional.bench(a, warmup=1, iterations=3)) == 3
    wider = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(optional(wider, wider[0])["scaled"], wider)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"s": np.ones(3, np.float32)}, r"missing \['a'\]"),
        ({"a": np.ones((2, 3), np.float32), "b": 1}, r"unknown \['b'\]"),
        ({"a": np.ones((2, 4), np.float32)}, "'s': dimension 0 .*expected 4 .* got 3"),
        ({"a": np.ones((2, 3), np.float32), "s": np.ones((3, 1), np.float32)}, "1 dimensions"),
    ],
)
def test_faults(optional: Module, feed: dict[str, object], message: str) -> None:
    with pytest.raises(ModuleError, match=message):
        optional(feed)
    with pytest.raises(ModuleError, match="expected 2 inputs, got 0"):
        optional()
