"""Counters of energy in folders that look like the system's, and the protocol around them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tensmith.compiler.economics.estimate import Provenance
from tensmith.compiler.errors import UsageError
from tensmith.driver.planning.energy_readers import (
    IDLE_SECONDS,
    HwmonCounter,
    PowercapCounter,
    Unreadable,
    counters,
    hwmon,
    measured_energy,
    meter_energy,
    nvml,
    perf,
    powercap,
)

Write = Callable[..., Path]


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return tmp_path / "sys"


def _zone(system: Path, name: str, kind: str, energy: int, most: int = 1_000_000) -> Path:
    folder = system / "class/powercap"
    for part in range(1, name.count(":") + 1):
        folder /= ":".join(name.split(":")[: part + 1])
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in (("name", kind), ("energy_uj", energy), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{value}\n")
    return folder


def test_packages_and_memory_are_added_up_and_wrap_around(system: Path) -> None:
    first = _zone(system, "intel-rapl:0", "package-0", 999_000)
    second = _zone(system, "intel-rapl:1", "package-1", 0)
    memory = _zone(system, "intel-rapl:0:0", "dram", 10)
    _zone(system, "intel-rapl:0:1", "core", 5)  # a part of the package
    _zone(system, "intel-rapl:2", "psys", 7)  # counts the packages again
    counter = powercap(system)
    assert isinstance(counter, PowercapCounter)
    assert counter.source == "RAPL, 3 zone(s)"
    assert counter.joules() == 0.0
    (first / "energy_uj").write_text("1000")  # past the end: 2000 further
    (second / "energy_uj").write_text("500000")
    (memory / "energy_uj").write_text("1010")
    assert counter.joules() == pytest.approx(0.503)
    (first / "energy_uj").write_text("500")  # once more
    assert counter.joules() == pytest.approx(0.503 + 0.9995)


def test_what_is_not_there_is_told_with_a_remedy(system: Path) -> None:
    for read in (powercap, perf, hwmon):
        found = read(system)
        assert isinstance(found, Unreadable)
        assert str(system) in found.why
        assert found.remedy
    found = nvml("libno-such-library.so")
    assert isinstance(found, Unreadable)
    assert "driver" in found.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads files whatever their mode")
def test_rights_that_are_missing_are_told(system: Path) -> None:
    zone = _zone(system, "intel-rapl:0", "package-0", 1)
    (zone / "energy_uj").chmod(0)
    found = powercap(system)
    assert isinstance(found, Unreadable)
    assert "may not be read" in found.why
    assert "chmod" in found.remedy


def test_power_sensors_are_integrated(system: Path) -> None:
    folder = system / "class/hwmon/hwmon0"
    folder.mkdir(parents=True)
    for number, watts in ((1, 2), (2, 3)):
        (folder / f"power{number}_input").write_text(f"{watts}000000")
    now = [10.0]
    counter = hwmon(system, lambda: now[0])
    assert isinstance(counter, HwmonCounter)
    now[0] = 12.0
    assert counter.joules() == pytest.approx(10.0)
    (folder / "energy1_input").write_text("4000000")
    exact = hwmon(system)
    assert not isinstance(exact, Unreadable)
    assert exact.joules() == 4.0  # counters of energy need no integration


class _Ticking:
    """A counter of a machine that takes 3 W idle and 10 W at work."""

    source = "made up"

    def __init__(self) -> None:
        self.now, self.total = 0.0, 0.0

    def joules(self) -> float:
        return self.total

    def sleep(self, seconds: float) -> None:
        self.now, self.total = self.now + seconds, self.total + 3 * seconds

    def work(self) -> int:
        self.now, self.total = self.now + 20, self.total + 200
        return 400


def test_idle_is_taken_off() -> None:
    own = _Ticking()
    found = measured_energy(
        own, own.work, "zen4", "2026-11-30", clock=lambda: own.now, sleep=own.sleep
    )
    assert own.now == 20 + 2 * IDLE_SECONDS
    assert found.gross.value == pytest.approx(0.5)
    assert found.net.value == pytest.approx((200 - 60) / 400)
    assert found.idle.value == pytest.approx(3.0)
    assert found.net.kind is Provenance.MEASURED
    assert "400 calls in 20.0 s" in found.net.method
    with pytest.raises(UsageError, match="no call"):
        measured_energy(own, lambda: 0, "", "", clock=lambda: own.now, sleep=own.sleep)


def test_files_of_meters(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("seconds,watts\n0,1\n2,3\n3,3\n")
    found = meter_energy(path, 7, "board")
    assert found.value == pytest.approx((4 + 3) / 7)
    assert (found.kind, found.machine) == (Provenance.MEASURED, "board")
    path.write_text("seconds,watts\n0,1\n0,3\n")
    with pytest.raises(UsageError, match="line 3: time does not go on"):
        meter_energy(path, 7, "board")
    path.write_text("seconds,watts\n0,1\n")
    with pytest.raises(UsageError, match="two rows"):
        meter_energy(path, 7, "board")


def test_every_source_of_this_machine_is_read_or_explained() -> None:
    found, reasons = counters()
    assert len(found) + len(reasons) >= 3
    for counter in found:
        assert counter.joules() <= counter.joules()
    for reason in reasons:
        assert reason.why
        assert reason.remedy
