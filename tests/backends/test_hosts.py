"""`native` on other machines: their caches and features, taken from the table of hosts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, needs_native, run_all
from suites.case import SUM, Case, CaseBuilder, N, compare

from tensmith.backends.reference import run_graph
from tensmith.backends.x86 import hosts
from tensmith.backends.x86.hosts import HOSTS, V3, V4
from tensmith.backends.x86.targets import native_target
from tensmith.compiler.errors import UsageError

DISTINCT = list({host: name for name, host in HOSTS.items()}.values())
UNLIKE = ("least", "no-caches", "zen4")  # small caches, unknown ones, large ones


def test_table_is_complete() -> None:
    wanted = {"zen2", "zen3", "zen4", "zen5", "skylake", "skylake-sp", "sapphirerapids"}
    assert wanted <= set(HOSTS)
    assert all(host.features >= set(V3) for host in HOSTS.values())


def test_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSMITH_HOST", "pentium")
    with pytest.raises(UsageError, match="zen2"):
        native_target()


@needs_native
def test_features_count_where_both_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSMITH_HOST", "zen5")
    for found, features in ((V3, "x86-64-v3"), (V4, "x86-64-v4")):
        monkeypatch.setattr(
            "tensmith.backends.x86.targets.host_features", lambda found=found: frozenset(found)
        )
        target = native_target()
        assert target is not None
        assert (target.cpu, target.l1_bytes, target.l2_bytes) == (features, 48 << 10, 1 << 20)
    monkeypatch.setattr("tensmith.backends.x86.targets.host_features", frozenset)
    assert native_target() is None


@needs_native
@pytest.mark.parametrize(
    ("host", "l1_kib", "l2_kib"),
    [("least", 16, 256), ("most", 128, 4096), ("no-caches", 32, None), ("shared-caches", 32, None)],
)
def test_caches_that_are_believed(
    monkeypatch: pytest.MonkeyPatch, host: str, l1_kib: int, l2_kib: int | None
) -> None:
    monkeypatch.setenv("TENSMITH_HOST", host)
    target = native_target()
    assert target is not None
    assert target.l1_bytes == l1_kib << 10
    assert target.l2_bytes == (l2_kib << 10 if l2_kib else target.l2_bytes)
    assert 256 << 10 <= target.l2_bytes <= 4 << 20


def _matmul(c: CaseBuilder) -> None:
    product = c.op("matmul", c.input(61, 512), c.weight(512, 90))
    c.output(c.op("max", c.op("add", product, c.weight(90)), c.scalar(0)))


def _long(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(N, 3000), c.weight(3000, 70)))


def _row(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(1, 700), c.weight(700, 330)))


def _convolutions(c: CaseBuilder) -> None:
    """What may become Winograd transforms, bands of rows, and a depthwise kernel."""
    window = {"strides": (1, 1), "pads": (1,) * 4, "dilations": (1, 1), "groups": 1}
    y = c.op("conv", c.input(1, 16, 30, 30), c.weight(64, 16, 3, 3), c.weight(64), **window)
    y = c.op("max", y, c.scalar(0))
    y = c.op("conv", y, c.weight(192, 64, 1, 1), **{**window, "pads": (0,) * 4})
    y = c.op("conv", y, c.weight(192, 1, 3, 3), **{**window, "groups": 192})
    c.output(c.op("conv", y, c.weight(24, 192, 3, 3), **{**window, "strides": (2, 2)}))


def _attention(c: CaseBuilder) -> None:
    q, k, v = (c.input(1, 4, 97, 32) for _ in range(3))
    scores = c.op("matmul", q, c.op("transpose", k, perm=(0, 1, 3, 2)))
    c.output(c.op("matmul", c.op("softmax", scores, axis=3), v))


def _moves(c: CaseBuilder) -> None:
    c.output(c.op("transpose", c.input(3, 37, 41), perm=(1, 2, 0)))
    c.output(c.op("reduce_sum", c.input(33, 700), axes=(1,), keepdims=False))


SCHEDULED = [
    Case(fill.__name__.strip("_"), fill, SUM, sizes={"n": 47})
    for fill in (_matmul, _long, _row, _convolutions, _attention, _moves)
]


@needs_native
@pytest.mark.parametrize(
    "host",
    [*UNLIKE, *(pytest.param(n, marks=pytest.mark.slow) for n in DISTINCT if n not in UNLIKE)],
)
def test_every_schedule_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    monkeypatch.setenv("TENSMITH_HOST", host)
    jobs = {case.name: Job(case.graph(), case.inputs()) for case in SCHEDULED}
    results = run_all(jobs, Setting("native", 2), tmp_path)
    for case in SCHEDULED:
        got = results[case.name]
        assert not isinstance(got, Exception), f"{case.name}: {got}"
        for name, want in run_graph(case.graph(), case.inputs()).items():
            scale = max(1, np.abs(want).max())  # sums of up to 3000 products
            compare(f"{case.name} {name}", got[name] / scale, want / scale, SUM)


@pytest.mark.parametrize("reported", [True, False])
def test_registers_of_matrices_that_linux_does_not_lend_are_not_there(
    reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether features are read from /proc or, without it, from the processor."""
    flags = "flags : fma avx2 amx_tile amx_int8 avx512_vnni"

    def read(*args: object, **more: object) -> str:
        if reported:
            return flags
        raise OSError

    every = {"fma": True, "avx2": True, "amx-tile": True, "amx-int8": True, "avx512vnni": True}
    monkeypatch.setattr(hosts.Path, "read_text", read)
    monkeypatch.setattr(hosts.binding, "get_host_cpu_features", lambda: every)
    for lent in (True, False):
        monkeypatch.setattr(hosts, "lends_matrices", lambda lent=lent: lent)
        found = hosts.host_features()
        assert {"fma", "avx2", "avx512vnni"} <= found
        assert ("amx-tile" in found, "amx-int8" in found) == (lent, lent)
