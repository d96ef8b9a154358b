"""What a cache finds again of a trace's requests, and traces that name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tensmith.compiler.economics.caching import hit_rate
from tensmith.compiler.economics.loads import read_trace
from tensmith.compiler.errors import UsageError


@pytest.mark.parametrize(
    ("keys", "entries", "machines", "hits"),
    [
        ("abab", 2, 1, 2),
        ("abab", 1, 1, 0),
        ("abcabc", 2, 1, 0),  # always just gone
        ("abcab", 3, 1, 2),
        ("aabcba", 2, 1, 2),  # a, then b, which is newer than c when a has gone
        ("abab", 2, 2, 2),  # each machine sees one
        ("aabb", 2, 2, 0),  # both machines see both
        ("aaaa", 0, 1, 0),
        ("", 4, 1, 0),
    ],
)
def test_the_least_recently_used_goes(keys: str, entries: int, machines: int, hits: int) -> None:
    assert hit_rate(list(keys), entries, machines) == (hits / len(keys) if keys else 0)


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_trace_of_requests(tmp_path: Path) -> None:
    moments = np.sort(np.random.default_rng(0).uniform(0, 1200, 6000))
    lines = [f"{at:.3f},{n % 7}" for n, at in enumerate(moments)]
    load = read_trace(_file(tmp_path, "seconds,key", *lines))
    assert len(load.rates) == 20
    assert load.mean == pytest.approx(5.0, rel=0.01)
    assert load.peak > load.mean
    assert load.keys[:8] == ("0", "1", "2", "3", "4", "5", "6", "0")
    assert load.scaled(2).mean == pytest.approx(2 * load.mean)
    assert load.scaled(2).keys == load.keys


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("0,a", "5,"), "key is missing"),
        (("5,a", "0,b"), "time goes back"),
        (("5,a", "5,b"), "takes no time"),
        (("5,a", "x,b"), "seconds is 'x'"),
    ],
)
def test_wrong_traces_of_requests(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_trace(_file(tmp_path, "seconds,key", *lines))
