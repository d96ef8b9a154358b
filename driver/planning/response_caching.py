"""Whether a cache of responses pays: by the keys of a trace, and the choice's own times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.economics.caching import hit_rate
from ...compiler.economics.estimate import Estimate, Provenance, combined, given
from ..artifacts import load
from ..console import human_bytes, human_seconds
from ..journal import Journal
from ..tensor_files import read_file, write_npz
from .builds import Build
from .plan_request import PlanRequest
from .points import PlanPoint
from .probe_reports import probe_of
from .rounds import VISIT_SECONDS, RunProbe

MIB = 1 << 20
SIZES = tuple(MIB << shift for shift in range(0, 12, 2))  # that are looked at: 1 MiB to 1 GiB
NEAR = 0.01  # of the best hit rate: the smallest cache that is so close is taken
PAYS = 0.9  # of the time of a call without a cache, below which one is advised


@dataclass(frozen=True)
class CacheAdvice:
    """bytes: of the cache of each of so many machines. entry_bytes: of one response with its key.
    hit_rate: share of the trace's requests that it answers. hit, without: seconds of a call that it
    answers, and of one where there is no cache; expected: with it, on average."""

    bytes: int
    entry_bytes: int
    machines: int
    hit_rate: Estimate
    hit: Estimate
    without: Estimate
    expected: Estimate

    @property
    def pays(self) -> bool:
        """Whether a tenth of the time or more is saved."""
        return self.expected.value < PAYS * self.without.value

    def to_json(self) -> dict[str, Any]:
        """For `plan.json`."""
        return {
            "bytes": self.bytes, "entry_bytes": self.entry_bytes, "machines": self.machines,
            "pays": self.pays,
            **{
                name: getattr(self, name).to_json()
                for name in ("hit_rate", "hit", "without", "expected")
            },
        }  # fmt: skip

    def text(self) -> str:
        """For people."""
        found = (
            f"a cache of responses of {human_bytes(self.bytes)} on each of {self.machines} "
            f"machine(s) would answer {self.hit_rate.value:.1%} of the trace's requests: "
            f"~{human_seconds(self.expected.value)} a call on average, in place of "
            f"{human_seconds(self.without.value)}"
        )
        if not self.pays:
            return f"{found}; it does not pay"
        return (
            f"{found}; it pays: --cache {self.bytes // MIB}M, load(..., cache_bytes={self.bytes})"
        )


def cache_advice(
    choice: PlanPoint, rows: Path, request: PlanRequest, probe: RunProbe, journal: Journal
) -> CacheAdvice | None:
    """What a cache would do for the choice. None where the trace names no requests, or the choice
    takes several in a run, has a device, or gives more than any cache holds.

    A call that misses is taken to need a run, and what a hit needs besides: the bytes of its inputs
    are read and copied, and a result is. Arrivals and prices stay as they are.
    """
    if not request.load.keys or choice.layout.batch > 1 or choice.cost is None:
        return None
    backend, _ = choice.build.variant.request(request).resolve()
    if backend.host_kernels:  # what runs beside a device is not answered from a cache
        return None
    entry, hit = _measured(choice, rows, request, probe, journal)
    if not entry:
        return None
    machines = choice.cost.replicas
    rates = {size: hit_rate(request.load.keys, size // entry, machines) for size in SIZES}
    size = next(own for own in SIZES if rates[own] >= max(rates.values()) - NEAR)
    rate = given(rates[size], "", f"{request.load.method}, least recently used of {machines}")
    expected = combined(
        lambda share, answered, run: answered + (1 - share) * run, (rate, hit, choice.service), "s",
        "hits, and runs of the rest, which cost a look-up besides",
    )  # fmt: skip
    expected = replace(expected, kind=Provenance.MODELLED)  # nobody has run the trace
    return CacheAdvice(size, entry, machines, rate, hit, choice.service, expected)


def _measured(
    choice: PlanPoint, rows: Path, request: PlanRequest, probe: RunProbe, journal: Journal
) -> tuple[int, Estimate]:
    """Bytes of an entry, and seconds of a hit with all instances at work."""
    build = choice.build
    key = ("cache", build.variant.name, build.sha256, str(choice.layout))
    kept = journal.get(*key)
    if kept is None:
        request.note(f"measuring a cache of responses for {build.variant.name}")
        one = rows.with_name("row.npz")
        write_npz(one, {name: array[:1] for name, array in read_file(rows).items()})
        entry = _entry_bytes(build, one)
        seconds = VISIT_SECONDS
        told = probe(build, choice.layout, one, seconds=seconds, cache=max(SIZES[0], 2 * entry))
        kept = {"entry": entry, "probe": told.to_json()}
        journal.put(kept, *key)
    report = probe_of(kept["probe"], "the cache")
    machine = f"{report.processor}, {report.cores} core(s)"
    hit = Estimate(
        report.mean, "s", Provenance.MEASURED, "one call again and again, all instances at work",
        machine=machine, date=request.today.isoformat(),
    )  # fmt: skip
    return int(kept["entry"]), hit


def _entry_bytes(build: Build, row: Path) -> int:
    """What a cache grows by with one call, as the binary itself counts it."""
    with load(build.library, build.variant.threads, cache_bytes=SIZES[-1]) as module:
        before = module.counters().cache
        feed = {name: np.ascontiguousarray(array) for name, array in read_file(row).items()}
        shapes = {spec.name: spec.dims for spec in module.inputs}
        module({name: array.reshape(_fixed(shapes[name], array)) for name, array in feed.items()})
        after = module.counters().cache
    assert before is not None
    assert after is not None
    return after.bytes - before.bytes


def _fixed(dims: tuple[int | str, ...], array: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """The shape of a row as the model takes it: without the axis of samples where it has none."""
    shape: tuple[int, ...] = array.shape
    return shape if len(dims) == len(shape) else shape[1:]
